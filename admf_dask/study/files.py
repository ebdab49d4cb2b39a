"""Study files. Ours:

    name: my study                      # optional
    strategy: sma_crossover
    parameters: {fast: {low: 2, high: 100}, slow: {low: 10, high: 200, step: 5}}
    constraints: ["fast < slow"]
    data: {symbol: AAPL}                # or {symbol: X, file: x.csv, date_column: ..., date_format: ..., separator: ";",
                                        # decimal: ",", price_column: ..., sort: true, start: 2005-01-31, end: ...}
    backtest: {commission: 0.001, slippage: 0.0, fill: next_open, direction: long, initial_cash: 1000000}
    objective: sharpe_ratio             # or total_return, final_equity, max_drawdown
    sample: {n: 1000, seed: 1}          # optional: random points instead of the whole grid
    keep: all                           # or a number
    rename: {}                          # names in the file -> names of the strategy's parameters
    parallel: {mode: process}

and the files of ADMF-Trader (`strategy: {name, parameters}`, `parameter_space`, `optimization: {method, objective}`,
`data: {sources: [...]}`, `backtest: {initial_capital, ...}`, `broker: {...}` with rates in per cent), where every key that has
no meaning here is answered with a note.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError
from admf_dask.optimize import ParameterSpace
from admf_dask.space import Combinable
from admf_dask.study.data import PriceSource
from admf_dask.study.model import OBJECTIVES, Study
from admf_dask.text import did_you_mean
from admf_dask.yamlfile import read_yaml

_KEYS = (
    "name",
    "strategy",
    "parameters",
    "constraints",
    "data",
    "backtest",
    "objective",
    "sample",
    "keep",
    "rename",
    "parallel",
)
_SOURCE_KEYS = ("symbol", "file", "date_column", "date_format", "separator", "decimal", "price_column", "sort")
_DATA_KEYS = (*_SOURCE_KEYS, "start", "end")
_ADMF_MARKS = ("optimization", "parameter_space", "mode", "broker", "parameter_file")
_ADMF_OBJECTIVES = (
    "profit_factor",
    "win_rate",
    "expectancy",
    "risk_adjusted_return",
    "combined_score",
    "stability_score",
    "train_test_combined",
)


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read a study file of either shape. Raises ConfigError, SpaceError or DataError, naming file and key."""
    content = read_yaml(path)
    file = Path(path)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{file.name} must be a mapping of keys such as strategy, parameters and data, but is {content!r:.60}"
        )
    return _admf(content, file) if any(key in content for key in _ADMF_MARKS) else _ours(content, file)


def _ours(content: Mapping[str, Any], file: Path) -> Study:
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"`{key}` in {file.name} is not a key of a study{did_you_mean(key, _KEYS)}")
    for key in ("strategy", "parameters", "data"):
        if key not in content:
            raise ConfigError(f"{file.name} needs the key `{key}`, but has {', '.join(map(str, content))}")
    space: Combinable = ParameterSpace.from_mapping(content["parameters"])
    if content.get("constraints"):
        constraints = content["constraints"]
        space = space.with_constraints(*([constraints] if isinstance(constraints, str) else constraints))
    data = _mapping(content, "data", file, _DATA_KEYS)
    if "symbol" not in data:
        raise ConfigError(f"`data` in {file.name} needs a `symbol`")
    sample = _mapping(content, "sample", file, ("n", "seed"))
    return Study(
        name=str(content.get("name", file.stem)),
        strategy=str(content["strategy"]),
        space=_sampled(space, sample.get("n"), sample.get("seed", 0)) if sample else space,
        data=_source(data, file),
        backtest=_mapping(content, "backtest", file),
        objective=str(content.get("objective", "sharpe_ratio")),
        rename=_mapping(content, "rename", file),
        keep=content.get("keep", "all"),
        parallel=ParallelConfig.from_yaml(file) if "parallel" in content else ParallelConfig(),
    )


def _admf(content: Mapping[str, Any], file: Path) -> Study:
    notes: list[str] = []
    strategy = content.get("strategy")
    name = strategy.get("name") if isinstance(strategy, Mapping) else strategy
    if name is None and isinstance(content.get("strategies"), Mapping):
        name = next(iter(content["strategies"]))
        if len(content["strategies"]) > 1:
            notes.append(f"`strategies` names several; the first, {name}, is used")
    if not isinstance(name, str):
        raise ConfigError(f"{file.name} needs `strategy: {{name: ...}}`")
    optimization = _mapping(content, "optimization", file)
    space = _admf_space(content, optimization, name, file)
    method = optimization.get("method", "grid")
    if method == "random":
        space = _sampled(space, optimization.get("num_trials", 100), optimization.get("seed", 0))
    elif method != "grid":
        raise ConfigError(f"`optimization.method` in {file.name} is {method!r}, but only grid and random are supported")
    return Study(
        name=file.stem,
        strategy=name,
        space=space,
        data=_admf_source(content, file, notes),
        backtest=_admf_backtest(content, file, notes),
        objective=_admf_objective(optimization, file),
        rename=_mapping(content, "rename", file),
        parallel=ParallelConfig.from_yaml(file) if "parallel" in content else ParallelConfig(),
        notes=(*notes, *_leftovers(content, optimization)),
    )


def admf_backtests(
    content: Mapping[str, Any], path: str | os.PathLike[str]
) -> tuple[list[dict[str, Any]], dict[str, PriceSource], list[str]]:
    """An ADMF file as backtests: configs (each strategy on each symbol), the prices of the symbols, and notes.

    Strategies come from `strategy: {name, parameters}` or `strategies: {name: {parameters}}`, symbols from `backtest.symbols`,
    else from `data.sources`. The notes name each key that has no meaning here. Raises ConfigError for what cannot be read.
    """
    file, notes = Path(path), list[str]()
    sources = {}
    for one in _mapping(content, "data", file).get("sources") or []:
        if not isinstance(one, Mapping) or "symbol" not in one:
            raise ConfigError(
                f"an entry of `data.sources` in {file.name} must be a mapping with `symbol`, but is {one!r:.60}"
            )
        sources[str(one["symbol"])] = _known(one, _SOURCE_KEYS, "data.sources", file)
    backtest = _mapping(content, "backtest", file)
    symbols = [str(name) for name in backtest.get("symbols") or sources]
    if not symbols:
        raise ConfigError(
            f"{file.name} names no symbols; write `backtest: {{symbols: [...]}}` or `data: {{sources: [...]}}`"
        )
    bounds = {"start": backtest.get("start_date"), "end": backtest.get("end_date")}
    prices = {name: _source({**sources.get(name, {"symbol": name}), **bounds}, file) for name in symbols}
    notes += [
        f"`data.sources` has {name}, which `backtest.symbols` leaves out" for name in sources if name not in symbols
    ]
    settings = _admf_backtest(content, file, notes)
    configs = [
        {"class": name, "parameters": parameters, "symbol": symbol, **settings}
        for name, parameters in _admf_strategies(content, file, notes)
        for symbol in symbols
    ]
    notes += [
        f"`{key}` has no meaning in a file of backtests and is ignored" for key in content if key not in _BACKTESTS_READ
    ]
    notes += [
        f"`data.{key}` has no meaning here and is ignored" for key in content.get("data") or {} if key != "sources"
    ]
    return configs, prices, notes


_BACKTESTS_READ = ("strategy", "strategies", "data", "backtest", "broker", "rename", "parallel", "mode")


def _admf_strategies(content: Mapping[str, Any], file: Path, notes: list[str]) -> list[tuple[str, dict[str, Any]]]:
    single, several = content.get("strategy"), _mapping(content, "strategies", file)
    if single is not None:
        entry = {"name": single} if isinstance(single, str) else _mapping(content, "strategy", file)
        if not isinstance(entry.get("name"), str):
            raise ConfigError(f"{file.name} needs `strategy: {{name: ...}}`")
        several = {entry["name"]: {key: value for key, value in entry.items() if key != "name"}, **several}
    found = []
    for name in several:
        facts = _mapping(several, name, file)
        kinds = ("default_params", "fixed_params", "parameters")
        parameters = {key: value for kind in kinds for key, value in _mapping(facts, kind, file).items()}
        notes += [
            f"`{key}` of the strategy {name} has no meaning here and is ignored" for key in facts if key not in kinds
        ]
        found.append((str(name), parameters))
    return found


def _admf_space(content: Mapping[str, Any], optimization: Mapping[str, Any], strategy: str, file: Path) -> Combinable:
    pointer = content.get("parameter_file") or optimization.get("parameter_file")
    if pointer:
        return ParameterSpace.from_yaml(file.parent / pointer, strategy=strategy)
    for place in (content, optimization):
        for key in ("parameter_space", "parameters"):
            if key in place:
                return ParameterSpace.from_mapping({key: place[key]}, strategy=strategy)
    raise ConfigError(f"{file.name} has no parameter space; write `parameter_space:` with a list of parameters")


def _admf_source(content: Mapping[str, Any], file: Path, notes: list[str]) -> PriceSource:
    sources = _mapping(content, "data", file).get("sources") or []
    backtest = _mapping(content, "backtest", file)
    bounds = {"start": backtest.get("start_date"), "end": backtest.get("end_date")}
    bounds = {key: None if value is None else str(value) for key, value in bounds.items()}
    if not sources:
        symbols = backtest.get("symbols") or []
        if not symbols:
            raise ConfigError(f"{file.name} names no prices; write `data: {{sources: [{{symbol: ..., file: ...}}]}}`")
        return PriceSource(str(symbols[0]), start=bounds["start"], end=bounds["end"])
    if len(sources) > 1:
        notes.append(f"`data.sources` has {len(sources)} entries; the first is used")
    return _source({**_known(sources[0], _SOURCE_KEYS, "data.sources", file), **bounds}, file)


def _admf_backtest(content: Mapping[str, Any], file: Path, notes: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    backtest, broker = _mapping(content, "backtest", file), _mapping(content, "broker", file)
    if "initial_capital" in backtest:
        settings["initial_cash"] = backtest["initial_capital"]
    for key in ("slippage", "commission"):
        value = broker.get(key)
        if isinstance(value, Mapping):
            if value.get("type", "percentage") not in ("percentage", "percent"):
                raise ConfigError(
                    f"`broker.{key}.type` in {file.name} is {value['type']!r}, but only percentage is supported"
                )
            value = value.get("rate", value.get("percentage", value.get("value", 0)))
        if value is None:
            continue
        try:
            settings[key] = float(value) / 100
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`broker.{key}` in {file.name} must be a number (per cent), but is {value!r}") from error
    notes += [f"`backtest.{key}` has no meaning here and is ignored" for key in backtest if key not in _BACKTEST_READ]
    notes += [
        f"`broker.{key}` has no meaning here and is ignored" for key in broker if key not in ("slippage", "commission")
    ]
    return settings


_BACKTEST_READ = ("initial_capital", "symbols", "start_date", "end_date")


def _admf_objective(optimization: Mapping[str, Any], file: Path) -> str:
    objective = optimization.get("objective", "sharpe_ratio")
    if objective in _ADMF_OBJECTIVES:
        raise ConfigError(
            f"`optimization.objective` in {file.name} is {objective!r}, which is not available; "
            f"use one of {', '.join(OBJECTIVES)}"
        )
    return str(objective)


def _leftovers(content: Mapping[str, Any], optimization: Mapping[str, Any]) -> list[str]:
    read = {
        "mode", "strategy", "strategies", "parameter_space", "parameters", "parameter_file", "optimization", "data", "backtest",
        "broker", "rename", "parallel",
    }  # fmt: skip
    read_below = {"method", "objective", "num_trials", "seed", "parameter_space", "parameters", "parameter_file"}
    notes = [f"`{key}` has no meaning here and is ignored" for key in content if key not in read]
    return notes + [
        f"`optimization.{key}` has no meaning here and is ignored" for key in optimization if key not in read_below
    ]


def _source(data: Mapping[str, Any], file: Path) -> PriceSource:
    fields: dict[str, Any] = {
        key: value if key == "sort" else str(value) for key, value in data.items() if value is not None
    }
    if fields.get("file"):
        fields["file"] = str(file.parent / str(fields["file"]))
    return PriceSource(**fields)


def _sampled(space: Combinable, count: Any, seed: Any) -> Combinable:
    assert isinstance(space, ParameterSpace)
    sample: Combinable = space.sample(count, seed=seed)
    return sample


def _mapping(content: Mapping[str, Any], key: str, file: Path, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"`{key}` in {file.name} must be a mapping, but is {value!r:.60}")
    return dict(value) if known is None else _known(value, known, key, file)


def _known(value: Mapping[str, Any], known: tuple[str, ...], path: str, file: Path) -> dict[str, Any]:
    for key in value:
        if key not in known:
            raise ConfigError(f"`{path}.{key}` in {file.name} is not an option{did_you_mean(key, known)}")
    return dict(value)
