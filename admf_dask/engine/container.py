"""`Container`: what a backtest is put together from, by name, with constructor injection."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from admf_dask.errors import EngineError
from admf_dask.text import did_you_mean


class Container:
    """Classes, factories and instances by name; `resolve` makes them, and what their constructors ask for, by parameter name.

    A parameter without a default whose name is registered is injected; with a default, too, if it is registered. Not
    thread-safe; each backtest has its own (`copy`).
    """

    def __init__(self) -> None:
        """Empty."""
        self._makers: dict[str, tuple[Callable[..., Any], bool]] = {}
        self._made: dict[str, Any] = {}
        self._instances: dict[str, Any] = {}

    def register_class(self, name: str, cls: type, *, singleton: bool = True) -> None:
        """`resolve(name)` makes an instance of a class: one for all (`singleton`), or a fresh one each time."""
        self._register(name, cls, singleton)

    def register_factory(self, name: str, factory: Callable[..., Any], *, singleton: bool = True) -> None:
        """`resolve(name)` calls a function, whose parameters are injected too."""
        self._register(name, factory, singleton)

    def register_instance(self, name: str, instance: Any) -> None:
        """`resolve(name)` is this object."""
        self._register(name, lambda: instance, True)
        self._instances[name] = instance

    def _register(self, name: str, maker: Callable[..., Any], singleton: bool) -> None:
        if not callable(maker):
            raise EngineError(f"{name!r} must be registered with a class or a function, but got {maker!r:.80}")
        self._makers[name] = maker, singleton
        self._made.pop(name, None)
        self._instances.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether the name is registered."""
        return name in self._makers

    def resolve(self, name: str) -> Any:
        """The object of a name. Raises EngineError for a name that is missing, listing those there are, and for a circle."""
        return self._resolve(name, ())

    def _resolve(self, name: str, above: tuple[str, ...]) -> Any:
        for known in (self._instances, self._made):
            if name in known:
                return known[name]
        if name in above:
            raise EngineError(f"the container goes in a circle: {' -> '.join((*above[above.index(name) :], name))}")
        if name not in self._makers:
            wanted = f", which {above[-1]!r} asks for," if above else ""
            near = did_you_mean(name, self._makers) if self._makers else "; nothing is"
            raise EngineError(f"{name!r}{wanted} is not registered{near}")
        maker, singleton = self._makers[name]
        made = maker(**self._arguments(maker, (*above, name)))
        if singleton:
            self._made[name] = made
        return made

    def _arguments(self, maker: Callable[..., Any], above: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, parameter in inspect.signature(maker).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if self.has(name) or parameter.default is parameter.empty:
                found[name] = self._resolve(name, above)
        return found

    def copy(self) -> Container:
        """The same registrations, without what was made from them; instances are shared."""
        other = Container()
        other._makers, other._instances = dict(self._makers), dict(self._instances)
        return other

    def reset(self) -> None:
        """Forget what was made; registered instances stay."""
        self._made.clear()
