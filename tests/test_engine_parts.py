"""The parts of the event-driven engine: container, bus, data, registry, and what they say about bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from admf_dask import DataError, EngineError, NotSupported, UnknownStrategy, datasets
from admf_dask.engine import (
    BacktestConfig,
    BacktestCoordinator,
    BarEvent,
    Container,
    EventBus,
    FillEvent,
    FrameDataHandler,
    Strategy,
    StrategyConfig,
    coordinator_for,
    get_strategy_class,
    register_strategy,
    run_compiled,
)
from admf_dask.study.data import PriceSource


def frame(closes: list[float], start: str = "2020-01-01", freq: str = "D") -> pd.DataFrame:
    index = pd.date_range(start, periods=len(closes), freq=freq)
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes), index=index)


# -- container ---------------------------------------------------------------------------------------------------------


class Engine:
    pass


class Car:
    def __init__(self, engine: Engine, wheels: int = 4) -> None:
        self.engine, self.wheels = engine, wheels


def test_constructors_get_what_they_ask_for_by_name() -> None:
    container = Container()
    container.register_class("engine", Engine)
    container.register_class("car", Car)
    assert container.resolve("car").engine is container.resolve("engine")
    assert container.resolve("car").wheels == 4
    container.register_instance("wheels", 3)
    container.register_factory("fresh", lambda engine, wheels: Car(engine, wheels), singleton=False)
    assert container.resolve("fresh") is not container.resolve("fresh")
    assert container.resolve("fresh").wheels == 3
    other = container.copy()
    assert other.resolve("car") is not container.resolve("car")
    assert other.resolve("wheels") == 3
    # A lambda makes, too: what it has made is not shared, and is made anew after a reset.
    container.register_factory("state", lambda: Engine())
    state = container.resolve("state")
    assert container.resolve("state") is state
    assert container.copy().resolve("state") is not state
    container.reset()
    assert container.resolve("state") is not state
    assert container.resolve("wheels") == 3


def test_missing_names_and_circles_are_named() -> None:
    container = Container()
    container.register_class("car", Car)
    with pytest.raises(EngineError, match="'engine', which 'car' asks for, is not registered; known: car"):
        container.resolve("car")
    container.register_class("engine", Engine)
    with pytest.raises(EngineError, match="'engin' is not registered; did you mean 'engine'"):
        container.resolve("engin")
    container.register_factory("a", lambda b: b)
    container.register_factory("b", lambda a: a)
    with pytest.raises(EngineError, match="circle: a -> b -> a"):
        container.resolve("a")
    with pytest.raises(EngineError, match="a class or a function"):
        container.register_class("c", 3)  # type: ignore[arg-type]


# -- bus ---------------------------------------------------------------------------------------------------------------


def test_handlers_hear_their_events_in_the_order_of_registration() -> None:
    bus, heard = EventBus(), []
    bus.subscribe(BarEvent, lambda event: heard.append(("first", event.index)))
    bus.subscribe(BarEvent, lambda event: heard.append(("second", event.index)))
    bus.subscribe(FillEvent, lambda event: heard.append(("fill", event.index)))
    bus.publish(BarEvent("A", 0, 7, 1.0, 1.0, 1.0, 1.0))
    assert heard == [("first", 7), ("second", 7)]
    bus.reset()
    bus.publish(BarEvent("A", 0, 8, 1.0, 1.0, 1.0, 1.0))
    assert len(heard) == 2


def test_an_error_reaches_the_publisher_with_the_event() -> None:
    bus = EventBus()

    def fail(event: Any) -> None:
        raise LookupError("no")

    bus.subscribe(BarEvent, fail)
    with pytest.raises(LookupError) as caught:
        bus.publish(BarEvent("A", 0, 7, 1.0, 1.0, 1.0, 1.0))
    assert "BarEvent(symbol='A'" in caught.value.__notes__[0]
    bus.unsubscribe(BarEvent, fail)
    with pytest.raises(ValueError, match="is not subscribed to BarEvent"):
        bus.unsubscribe(BarEvent, fail)
    with pytest.raises(TypeError, match="by their class"):
        bus.subscribe("bar", fail)  # type: ignore[arg-type]


# -- data --------------------------------------------------------------------------------------------------------------


def test_symbols_are_merged_by_time_and_the_future_is_not_there() -> None:
    handler = FrameDataHandler({"A": frame([1.0, 2.0, 3.0]), "B": frame([5.0, 6.0], start="2020-01-02")})
    seen = []
    while (bar := handler.next_bar()) is not None:
        seen.append((bar.symbol, bar.close))
        assert [b.close for b in handler.latest(bar.symbol, 10)][-1] == bar.close
    assert seen == [("A", 1.0), ("A", 2.0), ("B", 5.0), ("A", 3.0), ("B", 6.0)]
    assert [b.close for b in handler.latest("A", 2)] == [2.0, 3.0]
    clone = handler.clone()
    assert clone.next_bar() is not None
    assert len(clone.latest("A", 10)) == 1, "its own cursor"
    assert clone.prices("A").close is handler.prices("A").close, "the same arrays"
    handler.reset()
    first = handler.next_bar()
    assert first is not None
    assert first.close == 1.0
    assert handler.latest("B", 3) == []


def test_files_are_read_with_their_own_columns_and_dates(tmp_path: Path) -> None:
    table = frame([1.0, 2.0]).rename(columns={"close": "Px Last"}).reset_index(names="day")
    table["day"] = table["day"].dt.strftime("%d.%m.%Y")
    table.to_csv(tmp_path / "ABC.csv", index=False)
    options: dict[str, Any] = {
        "columns": {"Px Last": "close"},
        "date_column": "day",
        "date_format": "%d.%m.%Y",
        "tz": "UTC",
    }
    handler = FrameDataHandler.from_csv(tmp_path / "ABC.csv", **options)
    assert handler.symbols == ("ABC",)
    assert str(handler.prices().index.tz) == "UTC"
    frame([1.0, 2.0]).to_parquet(tmp_path / "x.parquet")
    assert len(FrameDataHandler.from_parquet(tmp_path / "x.parquet", "X").prices("X")) == 2
    with pytest.raises(DataError, match="cannot be read"):
        FrameDataHandler.from_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="the dates in column 'day'"):
        FrameDataHandler.from_csv(tmp_path / "ABC.csv", **{**options, "date_format": "%Y"})


@pytest.mark.parametrize(
    ("texts", "options", "wanted"),
    [
        (["13/03/2013", "14/03/2013"], {}, "2013-03-13"),
        (["03/13/2013", "03/14/2013"], {}, "2013-03-13"),
        (["01.03.2013", "13.03.2013"], {}, "2013-03-01"),
        (["03/01/2013", "03/13/2013"], {}, "2013-03-01"),
        (["Mar 1, 2013", "Mar 4, 2013"], {}, "2013-03-01"),
        (["2013/03/01", "2013/03/04"], {}, "2013-03-01"),
        (["20130301", "20130304"], {"date_format": "%Y%m%d"}, "2013-03-01"),
        (["01022013", "02022013"], {"date_format": "%d%m%Y"}, "2013-02-01"),
        ([" 01022013", " 02022013"], {"date_format": "%d%m%Y"}, "2013-02-01"),
        (["1362096000", "1362355200"], {"date_format": "s"}, "2013-03-01"),
        (["2013-03-08 16:00:00-05:00", "2013-03-11 16:00:00-04:00"], {}, "2013-03-08 21:00:00+00:00"),
        (["2013-03-08 16:00:00-05:00", "2013-03-11 16:00:00-04:00"], {"tz": "America/New_York"}, "2013-03-08 16:00:00-05:00"),
        (
            ["2013-03-08 16:00-0500", "2013-03-11 16:00-0400"],
            {"date_format": "%Y-%m-%d %H:%M%z"},
            "2013-03-08 21:00:00+00:00",
        ),
        (["2013-03-08 16:00-0500", "2013-03-11"], {"date_format": "%Y-%m-%d %H:%M%z"}, r"cannot be read as %Y-%m-%d %H:%M%z"),
        (["01.03.2013", "04.03.2013"], {}, r"'date' have two meanings, such as '01.03.2013', .*'%d.%m.%Y' or '%m/%d/%Y'"),
        (["1362096000", "1362355200"], {}, "'date' are numbers such as 1362096000; set date_format: s, ms, us, ns for"),
        (["13/13/2013", "14/03/2013"], {}, "'date', such as '13/13/2013', cannot be read; set date_format"),
        (["2013-03-08 16:00", "2013-03-11 16:00-04:00"], {}, "'date', such as '2013-03-08 16:00', cannot be read"),
    ],
)  # fmt: skip
def test_a_date_of_two_meanings_is_refused_and_never_guessed(
    tmp_path: Path, texts: list[str], options: dict[str, Any], wanted: str
) -> None:
    lines = "".join(f'"{text}",1,1,1,1\n' for text in texts)
    (tmp_path / "A.csv").write_text(f"date,open,high,low,close\n{lines}")
    if wanted[0] == "2":
        found = FrameDataHandler.from_csv(tmp_path / "A.csv", **options).prices().index
        assert found[0] == pd.Timestamp(wanted)
        assert found.is_monotonic_increasing
        return
    with pytest.raises(DataError, match=wanted):
        FrameDataHandler.from_csv(tmp_path / "A.csv", **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date;open;high;low;close\n2013-03-01;1;1;1;1\n", "A.csv has one column, 'date;open;.*'; set separator to ';'"),
        ("date,open,high,low,close\n", "A.csv has no rows"),
        ('date,open,high,low,close\n2013-03-01,1,1,1,"1,5"\n', "'close' is not .*1,5.*; a decimal comma is read"),
        ("date,open,high,low,close,Close\n2013-03-01,1,1,1,1,2\n", "one column 'close', but there are 'close' and 'Close'; drop"),
    ],
)  # fmt: skip
def test_a_file_of_another_make_is_answered_with_what_to_set(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "A.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        FrameDataHandler.from_csv(tmp_path / "A.csv")
    made = text.replace(",", ".").replace("date;", "day;")
    (tmp_path / "B.csv").write_text(made.replace("2013-03-01;1", "2013-03-01;1,5"))
    if ";" in text:
        handler = FrameDataHandler.from_csv(tmp_path / "B.csv", date_column="day", separator=";", decimal=",")
        assert handler.prices().open.tolist() == [1.5]


def test_tables_of_another_shape_are_answered_with_what_to_write() -> None:
    one = frame([1.0, 2.0])
    of_vendor = pd.concat({"X": one}, axis=1)
    for table, words in (
        (of_vendor, r"2 levels, such as \('X', 'open'\); write prices.xs\('X', axis=1, level=0\)"),
        (of_vendor.swaplevel(axis=1), r"2 levels, such as \('open', 'X'\); write prices.xs\('X', axis=1, level=1\)"),
        (one[["close"]], r"write prices.assign\(open=prices.close, high=prices.close, low=prices.close\)"),
        (one.set_axis(["31.08.2004", "01.09.2004"]), "text such as '31.08.2004'; write prices.index = pd.to_datetime"),
    ):
        with pytest.raises(DataError, match=words):
            FrameDataHandler(table)
    assert len(FrameDataHandler(of_vendor.xs("X", axis=1, level=0)).prices()) == 2


def test_rows_in_another_order_are_named_and_sorted_where_that_is_asked_for(tmp_path: Path) -> None:
    bars = frame([1.0, 2.0, 3.0, 4.0])
    path = tmp_path / "ABC.csv"
    for rows, words in (
        ([3, 2, 1, 0], r"ABC: the rows of ABC.csv .* but they are newest first: row 1 .*write sort=True"),
        ([0, 2, 1, 3], r"ABC: the rows of ABC.csv .* time, but row 2 \(.*\) follows .*write sort=True"),
    ):
        bars.iloc[rows].to_csv(path, index_label="date")
        with pytest.raises(DataError, match=words):
            FrameDataHandler.from_csv(path)
        assert FrameDataHandler.from_csv(path, sort=True).prices().close.tolist() == [1.0, 2.0, 3.0, 4.0]
        bars.iloc[rows].to_parquet(tmp_path / "ABC.parquet")
        with pytest.raises(DataError, match=r"the rows of ABC\.parquet"):
            FrameDataHandler.from_parquet(tmp_path / "ABC.parquet")
        assert len(FrameDataHandler.from_parquet(tmp_path / "ABC.parquet", sort=True).prices()) == 4
        with pytest.raises(DataError, match=r"X: the rows of ABC.csv"):
            PriceSource("X", str(path)).load()
        assert PriceSource("X", str(path), sort=True).load()["close"].tolist() == [1.0, 2.0, 3.0, 4.0]
    bars.iloc[[0, 1, 1, 2]].to_csv(path, index_label="date")
    with pytest.raises(DataError, match=r"ABC: .* row 2 \(.*\) follows .*; keep one of them: "):
        FrameDataHandler.from_csv(path, sort=True)
    path.write_text("date,open,high,low,close\n2024-01-01,1,1,1,1\n,1,1,1,1\n")
    with pytest.raises(DataError, match=r"ABC: ABC\.csv has no time in row 1"):
        FrameDataHandler.from_csv(path)
    with pytest.raises(DataError, match="sort must be true or false, but is 'yes'"):
        FrameDataHandler.from_csv(path, sort="yes")


@pytest.mark.parametrize("kind", [str, object, "category"])
def test_an_index_of_dates_as_text_is_one_of_times(kind: Any) -> None:
    table = frame([1.0, 2.0, 3.0, 4.0], freq="h")
    texts = table.set_axis(pd.Index(table.index.strftime("%Y-%m-%d %H:%M"), dtype=kind))
    by_text, by_time = (FrameDataHandler(one).prices() for one in (texts, table))
    assert by_text.periods_per_year == by_time.periods_per_year == 365.25 * 24
    assert by_text.index.equals(texts.index)
    with pytest.raises(DataError, match="must be ascending without repeats, but row 1"):
        FrameDataHandler(texts[::-1])


@pytest.mark.parametrize("bound", ["20050201", "2005/02/01", "2005.2.1", "2005-2-1", "2005-02-01 00:00"])
def test_a_start_of_one_meaning_may_be_written_in_many_ways(bound: str) -> None:
    assert str(PriceSource("AAPL", start=bound).load().index[0]) == "2005-02-01 00:00:00"


def test_a_start_in_another_time_zone_than_the_prices_is_refused() -> None:
    with pytest.raises(DataError, match=r"start and end of AAPL do not fit its times: .*timezone"):
        PriceSource("AAPL", start="2005-02-01T10:00:00+01:00").load()


@pytest.mark.parametrize("bound", ["01.02.2005", "hello", "2005-02-31", "2005-2", "200502"])
def test_a_start_that_is_no_date_or_two_is_refused(bound: str) -> None:
    for options in ({"start": bound}, {"end": bound}):
        with pytest.raises(
            DataError, match=f"start and end of AAPL must be dates such as 2005-02-01, but one is '{bound}'"
        ):
            PriceSource("AAPL", **options).load()
    assert str(PriceSource("AAPL", start="2005-02", end="2005-02-03 12:00").load().index[-1]) == "2005-02-03 00:00:00"


def test_bad_prices_are_named_with_symbol_and_row() -> None:
    good = frame([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match=r"ABC: the index of prices must be ascending .* row 1"):
        FrameDataHandler({"ABC": good.iloc[::-1]})
    with pytest.raises(DataError, match=r"ABC: .*'high' is -1.0 in row 1"):
        FrameDataHandler({"ABC": good.assign(high=[1.0, -1.0, 3.0])})
    with pytest.raises(DataError, match=r"must have a column 'close'"):
        FrameDataHandler(good.drop(columns="close"))
    with pytest.raises(DataError, match="but none of 'ABD'; did you mean 'ABC'"):
        FrameDataHandler({"ABC": good, "X": good}).prices("ABD")
    with pytest.raises(DataError, match="say which one"):
        FrameDataHandler({"ABC": good, "X": good}).prices()
    with pytest.raises(DataError, match="empty"):
        FrameDataHandler({})


# -- strategies and configs --------------------------------------------------------------------------------------------


def test_names_are_found_and_unknown_ones_answered_with_the_closest() -> None:
    assert get_strategy_class("admf_dask.engine.strategies:SmaCrossover") is get_strategy_class("sma_crossover")
    with pytest.raises(UnknownStrategy, match="did you mean 'sma_crossover'"):
        get_strategy_class("sma_crosover")
    with pytest.raises(UnknownStrategy, match="cannot be loaded"):
        get_strategy_class("no.such.module:Thing")
    with pytest.raises(UnknownStrategy, match="not a subclass"):
        get_strategy_class("pathlib:Path")
    with pytest.raises(EngineError, match="is taken by"):

        @register_strategy("sma_crossover")
        class Other(Strategy):
            pass


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"class": "sma_crossover", "parameters": {"slw": 2}}, "'slw' is no parameter .*; did you mean 'slow'"),
        ({"class": "sma_crossover", "parameters": {"fast": 1}}, "needs the parameter 'slow'"),
        ({"class": "sma_crossover", "parameters": {"fast": 0, "slow": 2}}, "at least 1, but is 0"),
        ({"class": "sma_crossover", "comission": 0.1}, "'comission' is not a key .*did you mean 'commission'"),
        ({"parameters": {}}, "needs `class`"),
        ({"class": "buy_and_hold", "commission": -0.1}, "commission must be a fraction"),
        ({"class": "buy_and_hold", "commission": float("inf")}, "commission must be a fraction"),
        ({"class": "buy_and_hold", "slippage": "much"}, "slippage must be a number"),
        ({"class": "buy_and_hold", "periods_per_year": "252"}, "periods_per_year must be a number, but is '252'"),
        ({"class": "buy_and_hold", "periods_per_year": float("inf")}, "periods_per_year must be above 0 and finite"),
        ({"class": "buy_and_hold", "lot_size": -1}, "lot_size must be at least 0"),
        ({"class": "buy_and_hold", "fill": "open"}, "fill must be next_open or same_close"),
        ([1], "must be a mapping"),
    ],
)  # fmt: skip
def test_wrong_configs_are_named_by_key(config: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        run_compiled(config, frame([1.0, 2.0, 3.0]))


def test_configs_round_trip_and_rename() -> None:
    config = StrategyConfig.from_mapping(
        {"class": "sma_crossover", "parameters": {"fast_window": 2, "slow": 3}}, rename={"fast_window": "fast"}
    )
    assert config.parameters == {"fast": 2, "slow": 3}
    assert StrategyConfig.from_mapping(config.to_mapping()) == config


def test_a_coordinator_is_put_together_by_hand_too() -> None:
    container = Container()
    container.register_instance("data_handler", FrameDataHandler(datasets.load_prices("FB"), "FB"))
    container.register_instance("settings", BacktestConfig(commission=0.001))
    container.register_class("fast", lambda: 5)  # type: ignore[arg-type]
    container.register_instance("slow", 20)
    container.register_class("strategy", get_strategy_class("sma_crossover"))
    result = BacktestCoordinator(container).run()
    assert result["n_fills"] > 0
    assert result.engine == "event"


def test_what_an_engine_cannot_do_is_said() -> None:
    class OnlyVector(Strategy):
        @staticmethod
        def targets(bars: Any, *, low: int = 0) -> Any:
            return [2] * len(bars)

    class OnlyEvents(Strategy):
        def __init__(self) -> None:
            pass

        def on_bar(self, bar: BarEvent) -> int:
            return 5

    with pytest.raises(NotSupported, match="has no on_bar"):
        coordinator_for({"class": OnlyVector}, frame([1.0, 2.0]))
    with pytest.raises(NotSupported, match="has no vectorised targets"):
        run_compiled({"class": OnlyEvents}, frame([1.0, 2.0]))
    with pytest.raises(EngineError, match="a target must be -1, 0 or"):
        run_compiled({"class": OnlyVector}, frame([1.0, 2.0]))
    with pytest.raises(EngineError, match="a target must be -1, 0 or"):
        coordinator_for({"class": OnlyEvents}, frame([1.0, 2.0])).run()
