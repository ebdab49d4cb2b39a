"""`BacktestConfig`: how a backtest trades, as a checked value, and configs as mappings with a strategy in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

from admf_dask.errors import EngineError
from admf_dask.text import closest, did_you_mean, join_words


@dataclass(frozen=True)
class BacktestConfig:
    """How a backtest trades; the defaults are those of the semantics: long only, next open, no costs."""

    direction: str = "long"
    fill: str = "next_open"
    commission: float = 0.0
    slippage: float = 0.0
    initial_cash: float = 1_000_000.0
    periods_per_year: float | None = None
    """Bars in a year, for the Sharpe ratio; None takes it from the spacing of the index."""
    lot_size: float = 0.0
    """Quantities are rounded towards zero to whole lots of this size; 0 is no rounding."""

    def __post_init__(self) -> None:
        """Check the values. Raises EngineError naming the key."""
        for key, known in (("direction", ("long", "long_short")), ("fill", ("next_open", "same_close"))):
            if getattr(self, key) not in known:
                raise EngineError(f"{key} must be {join_words(known, 'or')}, but is {getattr(self, key)!r}")
        for key in ("commission", "slippage", "initial_cash", "lot_size", "periods_per_year"):
            value: Any = getattr(self, key)
            if value is None and key == "periods_per_year":
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise EngineError(f"{key} must be a number, but is {value!r}")
        for key in ("commission", "slippage"):
            if not 0 <= getattr(self, key) < 1:
                raise EngineError(
                    f"{key} must be a fraction from 0 to below 1 (0.001 is 0.1 %), but is {getattr(self, key)!r}"
                )
        if not 0 < self.initial_cash < float("inf"):
            raise EngineError(f"initial_cash must be above 0, but is {self.initial_cash!r}")
        if not 0 <= self.lot_size < float("inf"):
            raise EngineError(f"lot_size must be at least 0, but is {self.lot_size!r}")
        if self.periods_per_year is not None and not 0 < self.periods_per_year < float("inf"):
            raise EngineError(f"periods_per_year must be above 0 and finite, but is {self.periods_per_year!r}")

    @property
    def low(self) -> int:
        """The target of a strategy that wants out: 0 long only, -1 long and short."""
        return 0 if self.direction == "long" else -1

    def book(self, periods_per_year: float) -> tuple[Any, ...]:
        """As the compiled kernels take it: next_open, commission, slippage, initial_cash, lot_size, periods_per_year."""
        numbers = (self.commission, self.slippage, self.initial_cash, self.lot_size, periods_per_year)
        return (self.fill == "next_open", *map(float, numbers))


SETTINGS = tuple(field.name for field in fields(BacktestConfig))
KEYS = ("class", "parameters", "symbol", *SETTINGS)


@dataclass(frozen=True)
class StrategyConfig:
    """One backtest to do: a strategy with its parameters, a symbol, and how to trade."""

    strategy: Any
    parameters: Mapping[str, Any]
    symbol: str | None
    settings: BacktestConfig

    @classmethod
    def from_mapping(cls, mapping: Any, *, rename: Mapping[str, str] | None = None) -> StrategyConfig:
        """From the shape of the semantics page. Raises EngineError with the nearest key for an unknown one.

        `rename` maps parameter names of the config to those of the strategy.
        """
        if isinstance(mapping, StrategyConfig):
            return mapping
        if not isinstance(mapping, Mapping):
            raise EngineError(
                f"a strategy config must be a mapping with `class` and `parameters`, but is {mapping!r:.80}"
            )
        for key in mapping:
            if key not in KEYS:
                inside = "" if closest(key, KEYS) else "; what the strategy takes stands under `parameters`"
                raise EngineError(f"{key!r} is not a key of a strategy config{did_you_mean(str(key), KEYS)}{inside}")
        if "class" not in mapping:
            raise EngineError("a strategy config needs `class`: a registered name, or package.module:ClassName")
        parameters = mapping.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise EngineError(f"`parameters` must be a mapping of name -> value, but is {parameters!r:.80}")
        renamed = {(rename or {}).get(name, name): value for name, value in parameters.items()}
        settings = BacktestConfig(**{key: mapping[key] for key in SETTINGS if key in mapping})
        return cls(mapping["class"], renamed, mapping.get("symbol"), settings)

    def to_mapping(self) -> dict[str, Any]:
        """The reverse of `from_mapping`, with every setting."""
        return {
            "class": self.strategy,
            "parameters": dict(self.parameters),
            "symbol": self.symbol,
            **asdict(self.settings),
        }
