"""`SymbolResults`: what became of the symbols; a dict whose values may still be files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from admf_dask.outcomes import Outcome, error_words
from admf_dask.progress.afterwards import told_of
from admf_dask.rich import box
from admf_dask.runtime import Outcomes
from admf_dask.symbols.task import Written
from admf_dask.text import did_you_mean, format_count, format_seconds

if TYPE_CHECKING:
    import pandas as pd
    from dask.bag import Bag


class SymbolResults(dict[str, Any]):
    """Symbol -> result of those that succeeded, in the order given; a dict, and the failures apart.

    Asking for a symbol that failed raises its error. With `out=` the values are read from their files when asked for
    (`results["AAPL"]`), so iterating over keys costs nothing; `.written` has paths, rows and bytes. `.skipped` lists those that
    an earlier run had done and that were not done again.
    """

    def __init__(self, names: Sequence[str], outcomes: Outcomes, recalled: Collection[int] = ()) -> None:
        """Made by `process_symbols`; `recalled` are the indices of outcomes that a journal had."""
        found: dict[str, Outcome] = {outcome.item.symbol: outcome for outcome in outcomes}
        ordered = [found[name] for name in names if name in found]
        super().__init__({outcome.item.symbol: outcome.value for outcome in ordered if outcome.ok})
        self._failed = {outcome.item.symbol: outcome for outcome in ordered if not outcome.ok}
        self._ordered, self._asked = ordered, list(names)
        self.elapsed = outcomes.elapsed
        """Seconds that the run took."""
        self.skipped: list[str] = [
            o.item.symbol for o in ordered if o.ok and (o.index in recalled or _was_found(o.value))
        ]
        """Symbols that an earlier run had done, in the order given."""
        self._bytes_in = {outcome.item.symbol: outcome.item.size for outcome in ordered}

    def __getitem__(self, symbol: str) -> Any:
        """The result. Raises the symbol's own error if it failed, KeyError with the nearest name if it was not asked for."""
        if symbol in self._failed:
            error = self._failed[symbol].error
            assert error is not None
            raise error
        return _read(super().__getitem__(symbol))

    def __missing__(self, symbol: str) -> NoReturn:
        raise KeyError(f"{symbol!r} was not processed{did_you_mean(symbol, [*self, *self._failed])}")

    def get(self, symbol: str, default: Any = None) -> Any:
        """The result; the default where there is none, also for a symbol that failed."""
        try:
            return _read(super().__getitem__(symbol))
        except KeyError:
            return default

    def values(self) -> Any:
        """The results, each read when it comes."""
        return [_read(value) for value in super().values()]

    def items(self) -> Any:
        """Pairs of symbol and result."""
        return [(symbol, _read(value)) for symbol, value in super().items()]

    @property
    def written(self) -> pd.DataFrame:
        """With `out=`, a row for each symbol: path, rows, bytes, rows_in and bytes_in (of its input), skipped; index `symbol`."""
        import pandas as pd

        skipped = set(self.skipped)
        rows = [
            (symbol, v.path, v.rows, v.bytes, v.rows_in, self._bytes_in[symbol], symbol in skipped)
            for symbol, v in super().items()
            if isinstance(v, Written)
        ]
        columns = ["symbol", "path", "rows", "bytes", "rows_in", "bytes_in", "skipped"]
        return pd.DataFrame(rows, columns=columns).astype({"rows_in": "Int64"}).set_index("symbol")

    @property
    def failures(self) -> pd.DataFrame:
        """One row for each symbol that failed: error_type, message, traceback, seconds, attempts; index `symbol`."""
        import pandas as pd

        rows = [
            (*error_words(o.error).split(": ", 1), o.traceback, o.seconds, o.attempts) for o in self._failed.values()
        ]
        index = pd.Index(list(self._failed), name="symbol")
        return pd.DataFrame(rows, index=index, columns=["error_type", "message", "traceback", "seconds", "attempts"])

    def to_bag(self) -> Bag:
        """Pairs (symbol, result) as a `dask.bag`."""
        from admf_dask.runtime.graph import list_bag

        return list_bag(list(super().items()), "symbols").map(_read_pair)

    def to_dask(self) -> Any:
        """One `dask.dataframe` over all results, with a column `symbol`; files are read when it is computed."""
        from admf_dask.runtime.graph import frame_of

        return frame_of({symbol: partial(_labelled, symbol, value) for symbol, value in super().items()})

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens without a network: counts, a cell for each symbol, failures with tracebacks.

        Returns the path; its folder is made where it is missing. About 4 MB, most of them the library that draws; costs a second.
        Raises OSError where it cannot be written.
        """
        from admf_dask.page.report import save_report

        place = {symbol: index for index, symbol in enumerate(self._asked)}
        outcomes = [replace(outcome, index=place[outcome.item.symbol]) for outcome in self._ordered]
        told = told_of(
            self._asked, outcomes, kind="process", name="Symbols", elapsed=self.elapsed, total=len(self._asked)
        )
        return save_report(told, Path(path))

    def _repr_html_(self) -> str:
        words = f"{format_count(len(self))} ok, {format_count(len(self._failed))} failed"
        skipped = f"{format_count(len(self.skipped))} of them done by an earlier run" if self.skipped else ""
        missing = len(self._asked) - len(self._ordered)
        left = f"{format_count(missing)} not done" if missing else ""
        table = self.failures[["error_type", "message"]] if self._failed else self.written
        return box("SymbolResults", words, skipped, left, f"took {format_seconds(self.elapsed)}", table=table)

    def __repr__(self) -> str:
        """Counts."""
        skipped = f" ({format_count(len(self.skipped))} of them skipped)" if self.skipped else ""
        return f"<SymbolResults: {format_count(len(self))} ok{skipped}, {format_count(len(self._failed))} failed>"


def _was_found(value: Any) -> bool:
    return isinstance(value, Written) and value.found


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, Written) else value


def _read_pair(pair: tuple[str, Any]) -> tuple[str, Any]:
    return pair[0], _read(pair[1])


def _labelled(symbol: str, value: Any) -> Any:
    return _read(value).assign(symbol=symbol)
