"""Configs that one compiled call can do together: those of one strategy with a kernel, one set of settings and one symbol.

A config that does not fit, for whatever reason, is none of this module's business: who runs it alone says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.config import KEYS, SETTINGS, StrategyConfig
from admf_dask.engine.coordinator import choose_engine
from admf_dask.engine.data import FrameDataHandler
from admf_dask.engine.metrics import METRICS
from admf_dask.engine.strategies import get_strategy_class
from admf_dask.engine.sweep import KERNELS, sweep
from admf_dask.errors import AdmfError

_KEYS = frozenset(KEYS)
FIGURES = (*METRICS, "periods_per_year")
"""What a backtest is told by, in this order."""


@dataclass(frozen=True, eq=False)
class Family:
    """What configs have in common that differ in symbol and parameter values only."""

    config: StrategyConfig
    """Of the first of them."""
    columns: Mapping[str, str]
    """Name of a parameter in the configs -> name in the strategy."""
    windows: tuple[str, ...]
    """Those that count bars, as the configs name them."""
    numbers: tuple[str, ...]
    engine: str
    why: str

    def takes(self, parameters: Mapping[str, Any]) -> bool:
        """Whether the values are such as a kernel can have."""
        for name in self.windows:
            value = parameters[name]
            if type(value) is not int or not 0 < value < 2**62:
                return False
        return all(type(parameters[name]) in (int, float) for name in self.numbers)


class Families:
    """Tells the family of a config. Remembers what it has seen, so it costs a microsecond or two for each config."""

    def __init__(self, engine: str, rename: Mapping[str, str], handler: FrameDataHandler) -> None:
        """`engine` and `rename` as for a run of many."""
        self._engine, self._rename, self._handler = engine, rename, handler
        self._known: dict[Any, Any] = {}
        self._symbols = {*handler.symbols, *([None] if len(handler.symbols) == 1 else [])}

    def of(self, config: Mapping[str, Any]) -> Family | None:
        """The family; None for a config that has to be run alone. The config has the keys `parameters` and `symbol`."""
        parameters = config.get("parameters")
        if type(parameters) is not dict or not config.keys() <= _KEYS:
            return None
        settings = [config.get(name, ...) for name in SETTINGS]
        try:
            # A number and a truth value may be equal, and only one of them is a commission.
            key = (config["class"], *parameters, ..., *map(type, settings), *settings)
            family = self._known.get(key, ...)
            if family is ...:
                family = self._known[key] = self._found(config, parameters)
            fits = family is not None and config["symbol"] in self._symbols and family.takes(parameters)
        except (KeyError, TypeError):
            return None
        return family if fits else None

    def _found(self, config: Mapping[str, Any], parameters: Mapping[str, Any]) -> Family | None:
        try:
            parsed = StrategyConfig.from_mapping(config, rename=self._rename)
            cls = get_strategy_class(parsed.strategy)
            kernel = KERNELS.get(cls)
            if kernel is None or len(parsed.parameters) != len(parameters):
                return None
            cls.check_parameters(str(parsed.strategy), parsed.parameters)
            engine, why = chosen_engine(self._engine, parsed)
        except AdmfError:
            return None
        columns = {name: self._rename.get(name, name) for name in parameters}
        windows = tuple(name for name, inner in columns.items() if inner in kernel.windows)
        numbers = tuple(name for name, inner in columns.items() if inner in kernel.numbers)
        return Family(parsed, columns, windows, numbers, engine, why) if engine == "compiled" else None


def chosen_engine(engine: str, config: StrategyConfig) -> tuple[str, str]:
    """The engine for a config, and why, where `engine` may be `auto`."""
    return choose_engine(config) if engine == "auto" else (engine, f"engine={engine!r}")


def run_together(
    configs: Sequence[Mapping[str, Any]], families: Sequence[Family], handler: FrameDataHandler
) -> NDArray[np.float64]:
    """The figures of each config, shape (n, 8): `FIGURES`. Each has a family that takes it."""
    groups: dict[tuple[Family, Any], list[int]] = {}
    for place, (config, family) in enumerate(zip(configs, families, strict=True)):
        groups.setdefault((family, config.get("symbol")), []).append(place)
    figures = np.empty((len(configs), 8))
    for (family, symbol), places in groups.items():
        prices, settings = handler.prices(symbol), family.config.settings
        given = [configs[place]["parameters"] for place in places]
        named = {inner: np.array([one[name] for one in given]) for name, inner in family.columns.items()}
        out = np.empty((len(places), 7))
        sweep(get_strategy_class(family.config.strategy), prices, settings, named, out)
        figures[places, :7] = out
        figures[places, 7] = settings.periods_per_year or prices.periods_per_year
    return figures
