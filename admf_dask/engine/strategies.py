"""Strategies: what states a target at the close of each bar, the registry of their names, and the four that are built in.

A strategy may have `targets(bars, **parameters)`, which states all targets at once from arrays, or `on_bar`, which is called
bar by bar and can see nothing that has not happened; or both, which must then agree (`check_truncation` and the contract tests
look).
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.prices import Prices, read_prices
from admf_dask.errors import EngineError, NotSupported, UnknownStrategy
from admf_dask.text import did_you_mean, join_words

if TYPE_CHECKING:
    from admf_dask.engine.events import BarEvent

Targets = NDArray[np.int8]
S = TypeVar("S", bound="type[Strategy]")
_registered: dict[str, type[Strategy]] = {}


class Strategy:
    """Base of strategies. Subclass it, and write `on_bar` and/or a static method `targets`.

    Parameters come as keyword arguments of `__init__` and of `targets`; their names are read from there. `self.low` is 0
    when only long positions are allowed and -1 otherwise; it is the target that wants out.
    """

    low: int = 0
    targets: ClassVar[Callable[..., Any] | None] = None
    """`targets(bars, *, low, **parameters)`: bars have arrays open, high, low, close; returns -1, 0 or +1 for each bar."""

    def on_bar(self, bar: BarEvent) -> int | None:
        """The target (-1, 0 or +1) at the close of `bar`; None keeps the last one."""
        raise NotImplementedError

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """What it takes, from `__init__`, else from `targets`."""
        source: Any = cls.__init__ if cls.__init__ is not object.__init__ else cls.targets
        if source is None:
            return ()
        names = list(inspect.signature(source).parameters)
        return tuple(name for name in names if name not in ("self", "bars", "low"))

    @classmethod
    def _check_targets_signature(cls, name: str, known: Sequence[str]) -> None:
        """Raise EngineError for a `targets` that cannot be called as it will be."""
        if cls.targets is None:
            return
        taken = inspect.signature(cls.targets).parameters
        loose = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
        if "self" in taken or not ("low" in taken or loose):
            call = ", ".join(["bars", "*", "low", *known])
            raise EngineError(
                f"targets is called with the bars and low= (0 long only, -1 long and short), but {name} has "
                f"targets({', '.join(taken)}); write @staticmethod and def targets({call})"
            )

    @classmethod
    def is_event_driven(cls) -> bool:
        """Whether it has an `on_bar` of its own."""
        return cls.on_bar is not Strategy.on_bar

    @classmethod
    def check_parameters(cls, name: str, given: Mapping[str, Any]) -> None:
        """Raise EngineError, with the nearest name, unless these are parameters it takes and none is missing."""
        known = cls.parameter_names()
        cls._check_targets_signature(name, known)
        for one in given:
            if one not in known:
                raise EngineError(f"{one!r} is no parameter of {name}{_instead(one, known)}")
        source: Any = cls.__init__ if cls.__init__ is not object.__init__ else cls.targets
        for one in known:
            if one not in given and inspect.signature(source).parameters[one].default is inspect.Parameter.empty:
                raise EngineError(
                    f"{name} needs the parameter {one!r}, but got {join_words(given) if given else 'none'}"
                )


def _instead(given: str, known: Sequence[str]) -> str:
    """The nearest parameter; for a name of somebody else's habit, such as `fast_window`, how to keep it."""
    if not known:
        return "; it takes none"
    meant = next((one for one in known if one in given.split("_")), None)
    if meant is None:
        return did_you_mean(given, known)
    return f"; did you mean {meant!r}? To keep the name, write rename={{{given!r}: {meant!r}}}"


def register_strategy(name: str) -> Callable[[S], S]:
    """Class decorator: make a strategy known under a name. Raises EngineError if the name is taken by another class."""

    def register(cls: S) -> S:
        given: Any = cls
        if not (isinstance(given, type) and issubclass(given, Strategy)):
            raise EngineError(f"register_strategy decorates a subclass of Strategy, but got {cls!r:.80}")
        known = _registered.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise EngineError(
                f"the strategy name {name!r} is taken by {known.__module__}:{known.__qualname__}; choose another"
            )
        _registered[name] = cls
        return cls

    return register


def get_strategy_class(name: Any) -> type[Strategy]:
    """The class of a registered name, of `package.module:ClassName`, or the class itself.

    Raises UnknownStrategy with the closest name.
    """
    if isinstance(name, type) and issubclass(name, Strategy):
        return name
    if not isinstance(name, str):
        raise UnknownStrategy(
            f"a strategy is a registered name, package.module:ClassName or a subclass of Strategy, but got {name!r:.80}"
            f"{_strategy_hint(name)}"
        )
    if name in _registered:
        return _registered[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UnknownStrategy(f"no strategy {name!r} is registered{did_you_mean(name, _registered)}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownStrategy(f"the strategy {name!r} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UnknownStrategy(f"{name!r} is {found!r:.80}, and not a subclass of admf_dask.engine.Strategy")
    return found


def _strategy_hint(given: Any) -> str:
    """What was probably meant by something else than a strategy."""
    if isinstance(given, Strategy):
        return f"; give the class, {type(given).__name__}, and its values as `parameters`"
    if isinstance(given, type):
        return f"; write class {given.__name__}(Strategy), with from admf_dask.engine import Strategy"
    return ""


def check_targets(name: str, targets: Any, bars: int) -> Targets:
    """What `targets` returned, as int8 of shape (bars,). Raises EngineError with the rule and the first bar that breaks it."""
    array = np.asarray(targets)
    if array.shape != (bars,):
        raise EngineError(
            f"{name}.targets must return one target for each bar, shape ({bars},), but returned {array.shape}"
        )
    plain = array.dtype.kind in "iub" and int(array.min(initial=0)) >= -1 and int(array.max(initial=0)) <= 1
    wrong: Any = () if plain else np.flatnonzero(~np.isin(array, (-1, 0, 1)))
    if len(wrong):
        raise EngineError(f"a target must be -1, 0 or +1, but {name} returned {array[wrong[0]]!r} for bar {wrong[0]}")
    return np.ascontiguousarray(array, np.int8)


def check_truncation(strategy: Any, prices: Any, parameters: Mapping[str, Any], *, low: int = 0, cuts: int = 8) -> None:
    """Raise EngineError if a target depends on bars after it: the same targets must come from data that ends there.

    For the tests of your own strategies: `check_truncation(MyStrategy, prices, {"window": 20})`, with `prices` as for a backtest.
    The targets are stated `cuts` times more, on data that ends at evenly spaced bars. Raises NotSupported for a strategy without
    vectorised `targets`; one with `on_bar` only cannot look ahead.
    """
    cls, prices = get_strategy_class(strategy), read_prices(prices)
    cls.check_parameters(cls.__name__, parameters)
    if cls.targets is None:
        raise NotSupported(
            f"{cls.__name__} has no vectorised targets to check; its on_bar sees no bar that has not happened"
        )
    whole = check_targets(cls.__name__, cls.targets(prices, low=low, **parameters), len(prices))
    for cut in np.unique(np.linspace(1, len(prices), cuts + 1).astype(int)[:-1]).tolist():
        part = check_targets(cls.__name__, cls.targets(prices.until(cut), low=low, **parameters), cut)
        if not np.array_equal(part, whole[:cut]):
            at = int(np.flatnonzero(part != whole[:cut])[0])
            raise EngineError(
                f"{cls.__name__}.targets looks ahead: for bar {at} it is {whole[at]} with all bars, but {part[at]} when the "
                f"data ends at bar {cut - 1}; use bars 0 to t only"
            )


def _window(name: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise EngineError(f"{name!r} counts bars, so it must be a whole number of at least 1, but is {value!r}")
    return int(value)


def _millionths(price: float) -> int | float:
    """A whole number where the price has up to six decimals, so that sums of it are exact."""
    scaled = round(price * 1e6)
    return scaled if abs(scaled / 1e6 - price) <= abs(price) * 1e-15 else price * 1e6


@register_strategy("sma_crossover")
class SmaCrossover(Strategy):
    """+1 while the mean of the last `fast` closes is above that of the last `slow`, `low` while it is below, 0 when equal."""

    def __init__(self, fast: int, slow: int) -> None:
        """Windows in bars."""
        self.fast, self.slow = _window("fast", fast), _window("slow", slow)
        self._sums: list[int | float] = [0]

    @staticmethod
    def targets(bars: Prices, *, fast: int, slow: int, low: int = 0) -> Targets:
        """All at once, with exact ties."""
        from admf_dask.engine.kernels import exact_sums, sma_targets

        fast, slow = _window("fast", fast), _window("slow", slow)
        out = np.zeros(len(bars.close), np.int8)
        sma_targets(exact_sums(bars.close, max(fast, slow)), fast, slow, low, out)
        return out

    def on_bar(self, bar: BarEvent) -> int | None:
        """From the sums of the closes seen so far."""
        sums = self._sums
        sums.append(sums[-1] + _millionths(bar.close))
        if len(sums) <= max(self.fast, self.slow):
            return 0
        left = (sums[-1] - sums[-1 - self.fast]) * self.slow
        right = (sums[-1] - sums[-1 - self.slow]) * self.fast
        return 1 if left > right else self.low if left < right else 0


@register_strategy("rsi_reversion")
class RsiReversion(Strategy):
    """+1 when Wilder's RSI falls below `lower`, `low` when it rises above `upper`, else as before."""

    def __init__(self, period: int, lower: float, upper: float) -> None:
        """Period in bars, bounds in RSI points."""
        self.period, self.lower, self.upper = _window("period", period), lower, upper
        self._count, self._last, self._up, self._down, self._target = -1, math.nan, 0.0, 0.0, 0

    @staticmethod
    def targets(bars: Prices, *, period: int, lower: float, upper: float, low: int = 0) -> Targets:
        """All at once."""
        from admf_dask.engine.kernels import rsi_targets, wilder_rsi

        rsi, out = np.empty(len(bars.close)), np.zeros(len(bars.close), np.int8)
        wilder_rsi(bars.close, _window("period", period), rsi)
        rsi_targets(rsi, float(lower), float(upper), low, out)
        return out

    def on_bar(self, bar: BarEvent) -> int | None:
        """By Wilder's recursion."""
        self._count += 1
        change, self._last = bar.close - self._last, bar.close
        if self._count == 0:
            return 0
        gain, loss, n = max(change, 0.0), max(-change, 0.0), self.period
        if self._count < n:
            self._up, self._down = self._up + gain, self._down + loss
            return 0
        if self._count == n:
            self._up, self._down = (self._up + gain) / n, (self._down + loss) / n
        else:
            self._up, self._down = (self._up * (n - 1) + gain) / n, (self._down * (n - 1) + loss) / n
        rsi = math.nan
        if self._down > 0.0:
            rsi = 100.0 - 100.0 / (1.0 + self._up / self._down)
        elif self._up > 0.0:
            rsi = 100.0
        if rsi < self.lower:
            self._target = 1
        elif rsi > self.upper:
            self._target = self.low
        return self._target


@register_strategy("donchian_breakout")
class DonchianBreakout(Strategy):
    """+1 when the close breaks above the highest high of the last `entry` bars, `low` below the lowest low of `exit` bars."""

    def __init__(self, entry: int, exit: int) -> None:
        """Windows in bars, the current one left out."""
        self.entry, self.exit = _window("entry", entry), _window("exit", exit)
        self._highs: list[float] = []
        self._lows: list[float] = []
        self._target = 0

    @staticmethod
    def targets(bars: Prices, *, entry: int, exit: int, low: int = 0) -> Targets:
        """All at once."""
        from admf_dask.engine.kernels import donchian_targets, rolling_extreme

        entry, leave, n = _window("entry", entry), _window("exit", exit), len(bars.close)
        above, below, queue = np.empty(n), np.empty(n), np.empty(n, np.int64)
        rolling_extreme(bars.high, entry, 1.0, queue, above)
        rolling_extreme(bars.low, leave, -1.0, queue, below)
        out = np.zeros(n, np.int8)
        donchian_targets(bars.close, above, below, max(entry, leave), low, out)
        return out

    def on_bar(self, bar: BarEvent) -> int | None:
        """From the highs and lows of the bars before this one."""
        if len(self._highs) >= max(self.entry, self.exit):
            if bar.close > max(self._highs[-self.entry :]):
                self._target = 1
            elif bar.close < min(self._lows[-self.exit :]):
                self._target = self.low
        self._highs.append(bar.high)
        self._lows.append(bar.low)
        longest = max(self.entry, self.exit)
        if len(self._highs) > 4 * longest + 64:
            del self._highs[:-longest], self._lows[:-longest]
        return self._target


@register_strategy("buy_and_hold")
class BuyAndHold(Strategy):
    """+1 from the first bar."""

    def __init__(self) -> None:
        """Nothing to set."""

    @staticmethod
    def targets(bars: Prices, *, low: int = 0) -> Targets:
        """All ones."""
        return np.ones(len(bars.close), np.int8)

    def on_bar(self, bar: BarEvent) -> int | None:
        """Always +1."""
        return 1
