"""The configs of many backtests, from what a user gives: a list, a file, or a space times symbols."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from admf_dask.engine import StrategyConfig
from admf_dask.errors import EngineError
from admf_dask.space.items import Combinable
from admf_dask.yamlfile import read_yaml


def expand(given: Any, symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Configs as a list of mappings. Raises EngineError or ConfigError for what is neither a config nor a list of them."""
    if isinstance(given, (str, os.PathLike)):
        given = read_yaml(given)
        if isinstance(given, Mapping) and isinstance(given.get("configs"), list):
            given = given["configs"]
    many = [given] if isinstance(given, Mapping) else list(given) if isinstance(given, Sequence | Iterator) else None
    if many is None or isinstance(given, (bytes, str)):
        found, cure = f"{given!r:.80}", ""
        if hasattr(given, "iterrows"):
            found, cure = "a DataFrame", "; write [dict(row.dropna()) for _, row in configs.iterrows()]"
        raise EngineError(
            f"strategy_configs must be a list of mappings such as {{'class': 'sma_crossover', 'parameters': {{...}}}}, or a YAML "
            f"file with such a list, but is {found}{cure}"
        )
    if not many:
        raise EngineError("strategy_configs is empty. Nothing to run.")
    return [one for config in many for one in _expand_one(config, symbols)]


def _expand_one(config: Any, symbols: Sequence[str]) -> Iterator[dict[str, Any]]:
    if isinstance(config, StrategyConfig):
        yield config.to_mapping()
        return
    if not isinstance(config, Mapping):
        raise EngineError(f"a strategy config must be a mapping with `class` and `parameters`, but is {config!r:.80}")
    plain = {key: value for key, value in config.items() if key != "symbols"}
    named = config.get("symbols")
    over = symbols if named == "all" else [named] if isinstance(named, str) else named or [config.get("symbol")]
    space = config.get("parameters")
    combinations = space.get_combinations() if isinstance(space, Combinable) else [space]
    for symbol in over:
        for parameters in combinations:
            yield {**plain, **({} if parameters is None else {"parameters": parameters}), "symbol": symbol}
