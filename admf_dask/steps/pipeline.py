"""`compose`: steps after each other, as one function over symbols."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from admf_dask.errors import TaskError
from admf_dask.text import did_you_mean

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Step:
    """A function with its options, and how it is called."""

    function: Callable[..., Any]
    options: Mapping[str, Any]
    takes_symbol: bool
    """Called as function(symbol, frame), and not as function(frame)."""
    names: tuple[str, ...]
    """Options that it knows."""
    takes_all: bool
    """Whether it takes options of any name."""

    def __call__(self, symbol: str, frame: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Call it with what is meant for it; `frame` is empty where there is none."""
        mine = {name: value for name, value in options.items() if self.takes_all or name in self.names}
        if "symbol" in self.names and not self.takes_symbol:
            mine["symbol"] = symbol
        place = (symbol, *frame) if self.takes_symbol or not frame else frame
        return self.function(*place, **{**mine, **self.options})

    @property
    def label(self) -> str:
        """As it was probably written: `rolling(windows=[20])`."""
        return f"{_name(self.function)}({', '.join(f'{name}={value!r:.40}' for name, value in self.options.items())})"


@dataclass(frozen=True)
class Composed:
    """Steps after each other; made by `compose`."""

    steps: tuple[Step, ...]

    def __call__(self, symbol: str, /, *frame: Any, **options: Any) -> Any:
        """Call the steps, each with what the one before returned; see `compose`."""
        self._check(options)
        value = frame
        for number, step in enumerate(self.steps, 1):
            try:
                result = step(symbol, value, options)
                if result is None and number < len(self.steps):
                    raise TaskError(
                        "a step must return what the next one takes, but returned None; does it end without return?"
                    )
            except Exception as error:
                error.add_note(f"in step {number} of {len(self.steps)} for {symbol}: {step.label}")
                raise
            value = (result,)
        return value[0]

    @property
    def __name__(self) -> str:
        """The names of the steps."""
        return "+".join(_name(step.function) for step in self.steps)

    def identity_parts(self) -> Mapping[str, Any]:
        """What its results depend on, for a journal: the steps in their order, and the options of each."""
        functions = [step.function for step in self.steps]
        places = [next(place for place, one in enumerate(functions) if one is function) for function in functions]
        parts: dict[str, Any] = {
            "the order of the steps": [
                (_name(function), place) for function, place in zip(functions, places, strict=True)
            ]
        }
        for number, step in enumerate(self.steps, 1):
            where = f"step {number}, {_name(step.function)}"
            parts[where] = step.function
            parts |= {f"option {name!r} of {where}": value for name, value in step.options.items()}
        return parts

    def _check(self, options: Mapping[str, Any]) -> None:
        """An option that no step takes would have no effect, and nobody would know."""
        if any(step.takes_all for step in self.steps):
            return
        known = {name for step in self.steps for name in step.names}
        for name in options:
            if name not in known:
                raise TypeError(f"no step has an option {name!r}{did_you_mean(name, known)}")


def compose(*steps: Any) -> Composed:
    """One function of several, for `process_symbols`: `compose(clean, (resample, {"rule": "W-FRI"}), returns)`.

    Each step is a function or a pair (function, options), and takes what the one before returned. A function whose first
    parameter is called `symbol` is called as function(symbol, frame, **options), one that can be called with the frame alone
    as function(frame, **options), any other with both. An option `symbol` of a step is filled in.

    The result is called as f(symbol, frame, **options): each option goes to every step that has one of that name; what is
    given with a step holds for that step. It can be pickled if the functions can, and an error in a step carries a note that
    names it. A journal knows it by its steps, their order and their options.

    Raises TypeError for what is no function, an option that a step does not have, and at the call for one that none has.
    """
    if not steps:
        raise TypeError("compose needs at least one step, such as compose(clean, returns)")
    return Composed(tuple(_step(number, given) for number, given in enumerate(steps, 1)))


def _step(number: int, given: Any) -> Step:
    pair = isinstance(given, tuple) and len(given) == 2
    function, options = given if pair else (given, {})
    if not callable(function) or not isinstance(options, Mapping):
        raise TypeError(
            f"a step must be a function or a pair (function, options), but step {number} is {given!r:.60} "
            f'({type(given).__name__}); write resample, or (resample, {{"rule": "W-FRI"}})'
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Step(function, dict(options), True, (), True)
    takes_symbol = _takes_symbol(function, parameters, options)
    placed = [parameter for parameter in parameters if parameter.kind in _PLACED][: 2 if takes_symbol else 1]
    names = tuple(p.name for p in parameters if p.kind in _NAMED and p not in placed)
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in options if name not in names and not takes_all]
    if unknown:
        hint = did_you_mean(unknown[0], names) if names else "; it has none"
        raise TypeError(f"step {number}, {_name(function)}, has no option {unknown[0]!r}{hint}")
    return Step(function, dict(options), takes_symbol, names, takes_all)


def _takes_symbol(function: Any, parameters: list[inspect.Parameter], options: Mapping[str, Any]) -> bool:
    """Whether it wants (symbol, frame): by the name of its first parameter, or else where the frame alone is too little."""
    placed = [parameter for parameter in parameters if parameter.kind in _PLACED]
    if not placed:
        raise TypeError(f"a step takes a frame, but {_name(function)} has no place for one")
    if placed[0].name in ("symbol", "frame"):
        return placed[0].name == "symbol"
    if placed[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return True
    needed = [p for p in placed if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in options]
    return len(needed) > 1


def starts_with_frame(function: Any) -> bool:
    """Whether a function is a step such as `clean`, and not one of symbol and frame: its first parameter is `frame`."""
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):
        return False
    return first == "frame"


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)
