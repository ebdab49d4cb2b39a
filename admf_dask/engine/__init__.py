"""The backtest engine: one meaning, an event-driven engine and a compiled one with the same fills."""

from __future__ import annotations

from admf_dask.engine import metrics
from admf_dask.engine.bus import EventBus
from admf_dask.engine.config import BacktestConfig, StrategyConfig
from admf_dask.engine.container import Container
from admf_dask.engine.coordinator import (
    BacktestCoordinator,
    choose_engine,
    coordinator_for,
    run_compiled,
    run_event,
)
from admf_dask.engine.data import DataHandler, FrameDataHandler
from admf_dask.engine.events import BarEvent, FillEvent, MarketEvent, OrderEvent, SignalEvent
from admf_dask.engine.objective import GridBacktest, backtest_objective
from admf_dask.engine.portfolio import Broker, Portfolio
from admf_dask.engine.prices import Prices
from admf_dask.engine.result import BacktestResult
from admf_dask.engine.strategies import Strategy, check_truncation, get_strategy_class, register_strategy

__all__ = [
    "BacktestConfig",
    "BacktestCoordinator",
    "BacktestResult",
    "BarEvent",
    "Broker",
    "Container",
    "DataHandler",
    "EventBus",
    "FillEvent",
    "FrameDataHandler",
    "GridBacktest",
    "MarketEvent",
    "OrderEvent",
    "Portfolio",
    "Prices",
    "SignalEvent",
    "Strategy",
    "StrategyConfig",
    "backtest_objective",
    "check_truncation",
    "choose_engine",
    "coordinator_for",
    "get_strategy_class",
    "metrics",
    "register_strategy",
    "run_compiled",
    "run_event",
]
