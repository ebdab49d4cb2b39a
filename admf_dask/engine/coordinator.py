"""`BacktestCoordinator`: the event-driven engine, and `run_compiled`, the same backtest over arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from admf_dask.engine.bus import EventBus
from admf_dask.engine.config import BacktestConfig, StrategyConfig
from admf_dask.engine.container import Container
from admf_dask.engine.data import DataHandler, FrameDataHandler
from admf_dask.engine.events import BarEvent, FillEvent, OrderEvent, SignalEvent
from admf_dask.engine.metrics import METRICS, figures
from admf_dask.engine.portfolio import Broker, Portfolio
from admf_dask.engine.prices import TRADING_DAYS, Prices
from admf_dask.engine.result import FILL_COLUMNS, BacktestResult
from admf_dask.engine.strategies import Strategy, check_targets, get_strategy_class
from admf_dask.errors import EngineError, NotSupported


class BacktestCoordinator:
    """Runs one event-driven backtest from the parts in a container.

    It resolves `data_handler` (bars of one symbol), `strategy` and `settings` (a `BacktestConfig`), and, where they are
    registered, `event_bus`, `portfolio` and `broker`. `coordinator_for(config, data)` fills a container from a config. About 5
    microseconds a bar beyond the strategy. State never leaks: parts are made for this run.
    """

    def __init__(self, container: Container) -> None:
        """Nothing is resolved before `run`."""
        self._container = container

    def run(self) -> BacktestResult:
        """Deliver all bars. Raises what a strategy raises, with the event in a note, and BooksDisagree for a bug of ours."""
        container = self._container
        data: DataHandler = container.resolve("data_handler")
        strategy: Strategy = container.resolve("strategy")
        settings: BacktestConfig = container.resolve("settings") if container.has("settings") else BacktestConfig()
        bus: EventBus = container.resolve("event_bus") if container.has("event_bus") else EventBus()
        portfolio = container.resolve("portfolio") if container.has("portfolio") else Portfolio(settings)
        broker = container.resolve("broker") if container.has("broker") else Broker(settings)
        if len(data.symbols) != 1:
            raise EngineError(
                f"a book has one symbol, but the data has {len(data.symbols)}; run each with data.only(symbol)"
            )
        strategy.low = settings.low
        times = _Loop(bus, strategy, portfolio, broker, settings).run(data)
        portfolio.check()
        config = container.resolve("config") if container.has("config") else {"class": type(strategy).__name__}
        prices = data.prices() if isinstance(data, FrameDataHandler) else None
        return _result(config, times, portfolio, settings, prices)


class _Loop:
    """One run: who hears of what, and the order of things within a bar."""

    def __init__(
        self, bus: EventBus, strategy: Strategy, portfolio: Portfolio, broker: Broker, settings: BacktestConfig
    ) -> None:
        self._bus, self._strategy, self._portfolio, self._broker = bus, strategy, portfolio, broker
        self._next_open = settings.fill == "next_open"
        self._wanted: SignalEvent | None = None
        self._bar: BarEvent | None = None
        bus.subscribe(BarEvent, self._on_bar)
        bus.subscribe(SignalEvent, self._on_signal)
        bus.subscribe(OrderEvent, self._on_order)
        bus.subscribe(FillEvent, portfolio.on_fill)

    def run(self, data: DataHandler) -> list[Any]:
        times: list[Any] = []
        publish = self._bus.publish
        while (bar := data.next_bar()) is not None:
            times.append(bar.time)
            publish(bar)
        return times

    def _on_bar(self, bar: BarEvent) -> None:
        self._bar = bar
        if self._next_open:
            if self._wanted is not None:
                self._act(self._wanted)
            self._portfolio.mark(bar.close)
            self._listen(bar)
            return
        self._listen(bar)
        if self._wanted is not None and not bar.last:
            self._act(self._wanted)
        self._portfolio.mark(bar.close)

    def _listen(self, bar: BarEvent) -> None:
        target = self._strategy.on_bar(bar)
        if target is None:
            return
        if self._wanted is None or target != self._wanted.target:
            if target not in (-1, 0, 1):
                raise EngineError(
                    f"a target must be -1, 0 or +1, but {type(self._strategy).__name__} returned {target!r}"
                )
            self._bus.publish(SignalEvent(bar.symbol, bar.time, target))

    def _on_signal(self, signal: SignalEvent) -> None:
        self._wanted = signal

    def _act(self, signal: SignalEvent) -> None:
        if (order := self._portfolio.order_for(signal)) is not None:
            self._bus.publish(order)

    def _on_order(self, order: OrderEvent) -> None:
        assert self._bar is not None
        self._broker.execute(order, self._bar, self._portfolio, self._bus.publish)


def coordinator_for(config: Any, data: Any) -> BacktestCoordinator:
    """A coordinator for a strategy config over a `FrameDataHandler`, a DataFrame or a mapping symbol -> DataFrame."""
    parsed = StrategyConfig.from_mapping(config)
    cls = get_strategy_class(parsed.strategy)
    cls.check_parameters(str(parsed.strategy), parsed.parameters)
    if not cls.is_event_driven():
        raise NotSupported(
            f"{cls.__name__} has no on_bar, so the event engine cannot run it; use engine='compiled' or 'auto'"
        )
    handler = data if isinstance(data, FrameDataHandler) else FrameDataHandler(data, parsed.symbol or "")
    container = Container()
    container.register_instance("settings", parsed.settings)
    container.register_instance("config", parsed.to_mapping())
    container.register_factory("data_handler", lambda: handler.only(parsed.symbol))
    container.register_factory("strategy", lambda: cls(**parsed.parameters))
    return BacktestCoordinator(container)


def run_event(config: Any, data: Any, why: str = "engine='event'") -> BacktestResult:
    """A backtest in the event-driven engine."""
    return replace(coordinator_for(config, data).run(), why=why)


def run_compiled(config: Any, data: Any, why: str = "engine='compiled'") -> BacktestResult:
    """The same backtest over arrays. Raises NotSupported for a strategy without `targets`."""
    import pandas as pd

    parsed = StrategyConfig.from_mapping(config)
    handler = data if isinstance(data, FrameDataHandler) else FrameDataHandler(data, parsed.symbol or "")
    prices = handler.prices(parsed.symbol)
    metrics, fills, equity, ruined = compiled_book(parsed, prices)
    bars = fills[:, 0].astype(np.int64)
    columns = ([prices.index[bar] for bar in bars.tolist()], bars, fills[:, 1], fills[:, 2], fills[:, 3])
    return BacktestResult(
        parsed.to_mapping(), pd.Series(equity, prices.index, name="equity"),
        pd.DataFrame(dict(zip(FILL_COLUMNS, columns, strict=True))), metrics, "compiled", why, ruined, notes_of(metrics),
    )  # fmt: skip


def compiled_book(config: StrategyConfig, prices: Prices) -> tuple[dict[str, float], Any, Any, bool]:
    """Metrics, fills (n, 4), equity (bars,) and whether it was ruined: the compiled backtest without a table around it."""
    from admf_dask.engine.kernels import NO_TAPE, walk

    settings, targets = config.settings, strategy_targets(config, prices)
    # Each change of the target is two fills at the most.
    most = 2 * (int(np.count_nonzero(np.diff(targets))) + 2) if settings.lot_size == 0.0 else 2 * len(prices) + 2
    equity, fills, out = np.empty(len(prices)), np.empty((most, 4)), np.empty(len(METRICS))
    ppy = float(settings.periods_per_year or prices.periods_per_year)
    ruined = walk(prices.open, prices.close, targets, settings.book(ppy), NO_TAPE, out, (equity, fills))
    metrics = {**dict(zip(METRICS, out.tolist(), strict=True)), "periods_per_year": ppy}
    return metrics, fills[: int(out[6])].copy(), equity, bool(ruined)


def strategy_targets(config: StrategyConfig, prices: Prices) -> Any:
    """The targets of a config, int8 of shape (bars,). Raises NotSupported for a strategy without `targets`."""
    cls = get_strategy_class(config.strategy)
    cls.check_parameters(str(config.strategy), config.parameters)
    if cls.targets is None:
        raise NotSupported(
            f"{cls.__name__} has no vectorised targets, so the compiled engine cannot run it; use engine='event'"
        )
    found = cls.targets(prices, low=config.settings.low, **config.parameters)
    return check_targets(cls.__name__, found, len(prices))


def choose_engine(config: Any) -> tuple[str, str]:
    """`compiled` where the strategy has `targets`, else `event`; and why, in words."""
    cls = get_strategy_class(StrategyConfig.from_mapping(config).strategy)
    if cls.targets is not None:
        return "compiled", f"{cls.__name__} states its targets over arrays"
    return "event", f"{cls.__name__} has no vectorised targets"


def _result(
    config: Mapping[str, Any], times: list[Any], portfolio: Portfolio, settings: BacktestConfig, prices: Prices | None
) -> BacktestResult:
    import pandas as pd

    ppy = settings.periods_per_year or (prices.periods_per_year if prices is not None else TRADING_DAYS)
    equity = np.array(portfolio.equity)
    counts = {"n_trades": portfolio.trades, "n_entries": portfolio.entries, "n_fills": len(portfolio.fills)}
    metrics = {**figures(equity, settings.initial_cash, ppy), **counts, "periods_per_year": float(ppy)}
    rows = [(fill.time, fill.index, fill.quantity, fill.price, fill.commission) for fill in portfolio.fills]
    index = prices.index if prices is not None else pd.Index(times)
    return BacktestResult(
        config, pd.Series(equity, index, name="equity"), pd.DataFrame(rows, columns=list(FILL_COLUMNS)),
        metrics, "event", "engine='event'", portfolio.ruined, notes_of(metrics),
    )  # fmt: skip


def notes_of(metrics: Mapping[str, float]) -> tuple[str, ...]:
    return (
        ()
        if metrics["n_entries"]
        else ("it never traded: no target was stated, or there are too few bars for its windows",)
    )
