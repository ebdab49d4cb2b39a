"""`OptimizationResult`: what an optimisation found, as the original mapping, as tables and as figures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.errors import SpaceError
from admf_dask.optimize.ranked import RankedResults
from admf_dask.outcomes import FailedItem
from admf_dask.progress.digest import FAILURES, TOP, FailureTold, Update, axes_of, in_words
from admf_dask.rich import SHOWN, box
from admf_dask.runtime import MapEvaluator
from admf_dask.runtime.replay import Audit, Replay, audit, replay
from admf_dask.space import ABSENT, Combinable
from admf_dask.text import did_you_mean, format_count, format_rate, format_seconds, readable

if TYPE_CHECKING:
    import pandas as pd
    from bokeh.plotting import figure

_KEYS = ("best_params", "best_score", "all_results", "total_evaluations", "total_combinations")
AGGREGATES = ("max", "min", "mean", "median", "count")


@dataclass(frozen=True, eq=False)
class OptimizationResult(Mapping[str, Any]):
    """What an optimisation found; made by `ParallelOptimizer.optimize`.

    A mapping with the keys `best_params`, `best_score`, `all_results` (pairs of parameters and score, best first),
    `total_evaluations` (what was evaluated, failures included) and `total_combinations` (the space before constraints); the
    same as attributes. Rank: by score, ties in grid order, NaN last; failures are not ranked but listed in `.failures`. Where all
    scores are NaN there is no best: `best_params` is None and `best_score` NaN, and the run warned.
    Immutable: it may be read from any thread.
    """

    space: Combinable
    indices: NDArray[np.int64]
    """Positions in the space that have a score, ascending, shape (n,)."""
    columns: dict[str, NDArray[np.float64]]
    """The numbers that the objective returned, each of shape (n,)."""
    seconds: NDArray[np.float32]
    """Seconds that each evaluation took, shape (n,)."""
    failed_items: tuple[FailedItem, ...]
    failed: int
    """Number of failures; with `keep=n` it may exceed what `.failures` lists."""
    total_evaluations: int
    rejected: int
    """Combinations that a constraint turned away."""
    score: str
    """The column that ranks."""
    maximize: bool
    kept: int | None
    """The n of `keep=n`, None for all."""
    elapsed: float
    """Seconds from start to end."""
    state: str
    """`finished` or `interrupted`."""
    workers: dict[str, int]
    """Evaluations by worker."""
    recalled: int = 0
    """Combinations that the journal had; they are counted in `total_evaluations` (or `rejected`) as well."""
    source: MapEvaluator | None = field(default=None, repr=False)
    """The objective with its data and settings, for `replay`."""

    def __getitem__(self, key: str) -> Any:
        """One of the five keys of the mapping."""
        if key not in _KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        """The five keys."""
        return iter(_KEYS)

    def __len__(self) -> int:
        """Five."""
        return len(_KEYS)

    # -- the best --------------------------------------------------------------------------------------------------

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Row positions from best to worst, shape (n,)."""
        return ranking.rank(self.scores, self.indices, maximize=self.maximize)

    @cached_property
    def _first(self) -> int:
        """Row position of the best; the order of all takes a hundred times longer."""
        return ranking.first(self.scores, self.indices, maximize=self.maximize)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The ranking column, aligned with `indices`."""
        return self.columns.get(self.score, np.empty(0, np.float64))

    @property
    def best_params(self) -> dict[str, Any] | None:
        """The parameters of the best combination; None when nothing has a score, or all scores are NaN."""
        return self.space[int(self.indices[self._first])] if self._ranks else None

    @property
    def best_score(self) -> float | None:
        """The best score; NaN when all scores are NaN, None when there is none."""
        return float(self.scores[self._first]) if len(self.indices) else None

    @property
    def best(self) -> dict[str, float] | None:
        """All numbers of the best combination; None when there is none."""
        return {name: float(column[self._first]) for name, column in self.columns.items()} if self._ranks else None

    @property
    def _ranks(self) -> bool:
        """Whether any score is a number: NaN ranks last, and what is first among NaN is no best."""
        return bool(len(self.indices)) and not np.isnan(self.scores[self._first])

    @property
    def total_combinations(self) -> int:
        """Size of the space before constraints."""
        return self.space.size

    @property
    def all_results(self) -> RankedResults:
        """Pairs (parameters, score), best first: a lazy sequence."""
        return RankedResults(self.space, self.indices, self.scores, self.order)

    @property
    def first_failure(self) -> FailedItem:
        """The failure that comes first in the space. Raises IndexError when there is none."""
        return self.failed_items[0]

    # -- tables ----------------------------------------------------------------------------------------------------

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per evaluated combination, in grid order: index `combination` (position in the space), the parameters, the
        scores, `seconds`.

        The same object at every call; copy it before changing it.
        """
        import pandas as pd

        index = pd.Index(self.indices, name="combination")
        params = self.space.table(self.indices)
        return pd.DataFrame({**params, **self.columns, "seconds": self.seconds}, index=index)

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n best rows of `.frame`, best first. Costs O(n) beyond the ranking, whatever the size of the space."""
        import pandas as pd

        rows = self.order[:n]
        params = self.space.table(self.indices[rows])
        scores = {name: column[rows] for name, column in self.columns.items()}
        index = pd.Index(self.indices[rows], name="combination")
        return pd.DataFrame({**params, **scores, "seconds": self.seconds[rows]}, index=index)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per failed combination: the parameters, error_type, message, traceback, seconds, attempts."""
        import pandas as pd

        failed = self.failed_items
        indices = np.array([item.index for item in failed], np.int64)
        columns = {
            **self.space.table(indices),
            "error_type": [item.failure.error_type for item in failed],
            "message": [item.failure.message for item in failed],
            "traceback": [item.failure.traceback for item in failed],
            "seconds": [item.seconds for item in failed],
            "attempts": [item.attempts for item in failed],
        }
        return pd.DataFrame(columns, index=pd.Index(indices, name="combination"))

    def heatmap(self, x: str, y: str, aggregate: str = "max") -> pd.DataFrame:
        """Scores over two parameters, the others aggregated: rows y, columns x, NaN where nothing was evaluated.

        `aggregate` is max, min, mean, median or count. Raises SpaceError for an unknown parameter, with the nearest name.
        """
        for name in (x, y):
            if name not in self.space.names:
                raise SpaceError(f"{name!r} is no parameter of this space{did_you_mean(name, self.space.names)}")
        if x == y:
            raise SpaceError(f"a heatmap needs two different parameters, but both are {x!r}")
        if aggregate not in AGGREGATES:
            raise SpaceError(f"aggregate must be one of {', '.join(AGGREGATES)}, but is {aggregate!r}")
        columns = self.space.take(self.indices)
        table = _numeric_frame(columns, x, y, self.scores)
        wide = table.groupby(["y", "x"], observed=True)["score"].agg(aggregate).unstack("x")
        return wide.rename_axis(index=y, columns=x)

    # -- figures and files -----------------------------------------------------------------------------------------

    def plot_heatmap(self, x: str | None = None, y: str | None = None, aggregate: str = "max") -> figure:
        """The heatmap as a Bokeh figure, the best marked; x and y default to the first two parameters."""
        from admf_dask.optimize.plots import heatmap_figure

        names = [name for name in self.space.names if name not in (x, y)]
        x = x or (names.pop(0) if names else None)
        y = y or (names.pop(0) if names else None)
        if x is None or y is None:
            raise SpaceError("a heatmap needs two parameters, but the space has one; use .plot_history() or .frame")
        title = readable(self.score) + (
            f" ({aggregate} over the other parameters)" if len(self.space.names) > 2 else ""
        )
        best = self.best_params or {}
        mark = (best[x], best[y]) if {x, y} <= best.keys() and not np.isnan(self.scores[self._first]) else None
        return heatmap_figure(self.heatmap(x, y, aggregate), title, self.score, mark)

    def plot_history(self) -> figure:
        """Every score in grid order with the best so far, as a Bokeh figure."""
        from admf_dask.optimize.plots import history_figure

        return history_figure(self.indices, self.scores, self.score, maximize=self.maximize)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens without a network: figures, heatmaps, the best, failures with tracebacks.

        Returns the path; its folder is made where it is missing. About 4 MB, most of them the library that draws; costs a second.
        Raises OSError where it cannot be written.
        """
        from admf_dask.page.report import save_report

        return save_report(self._update(), Path(path))

    def _update(self) -> Update:
        """What an observer would have been told of the run."""
        best = self.order[:TOP].tolist()
        failures = self.failed_items[:FAILURES]
        now = time.time()
        kinds: dict[str, int] = {}
        for failed in self.failed_items:
            kinds[failed.failure.error_type] = kinds.get(failed.failure.error_type, 0) + 1
        return Update(
            run="result", kind="optimize", name=f"Optimisation of {readable(self.score)}", total=self.space.size, slots=1,
            score=self.score, maximize=self.maximize, began=now - self.elapsed, at=now, state=self.state,
            recalled=self.recalled, done=self.total_evaluations + self.rejected, evaluated=self.total_evaluations,
            failed=self.failed, rejected=self.rejected, indices=self.indices, scores=self.scores,
            best=tuple(
                (float(self.scores[at]), int(self.indices[at]), in_words(self.space[int(self.indices[at])])) for at in best
            ),
            failures=tuple(
                FailureTold(
                    failed.index, in_words(self.space[failed.index]), failed.failure.error_type, failed.failure.summary,
                    failed.failure.traceback, now,
                )
                for failed in failures
            ),
            kinds=kinds, notices=(), axes=axes_of(self.space),
        )  # fmt: skip

    def save(self, directory: str | os.PathLike[str]) -> dict[str, Path]:
        """Write `results.parquet`, `results.csv`, `heatmap.html` (opens offline) and, if any, `failures.csv`.

        Each file appears whole or not at all. Returns the paths by name. The folder is made where it is missing.
        """
        from admf_dask.optimize.plots import save_html

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        ordered = self.frame.iloc[self.order]
        paths = {
            "parquet": _write(folder / "results.parquet", ordered.to_parquet),
            "csv": _write(folder / "results.csv", ordered.to_csv),
        }
        if len(self.space.names) > 1 and len(self.indices):
            paths["heatmap"] = _write(folder / "heatmap.html", lambda path: save_html(self.plot_heatmap(), path))
        if self.failed_items:
            paths["failures"] = _write(folder / "failures.csv", self.failures.to_csv)
        return paths

    # -- doing it again --------------------------------------------------------------------------------------------

    def replay(self, combination: int) -> Replay:
        """Evaluate a combination (its position in the space) again, alone in a fresh process with the same seed, and compare.

        Costs tens of milliseconds and the evaluation. Raises IndexError for one that has neither score nor failure here.
        """
        if self.source is None:
            raise SpaceError("this result was loaded without its objective; run the optimisation to replay from it")
        failed = {item.index: item.failure for item in self.failed_items}
        if combination in failed:
            return replay(self.source, combination, failed[combination])
        at = int(np.searchsorted(self.indices, combination))
        if at >= len(self.indices) or self.indices[at] != combination:
            raise IndexError(
                f"combination {combination} has no score in this result; `.frame.index` lists those that have"
            )
        return replay(self.source, combination, {name: float(column[at]) for name, column in self.columns.items()})

    def audit(self, k: int = 10, *, seed: int = 0) -> Audit:
        """`replay` of k random combinations: finds state that leaks between evaluations."""
        return audit(self.indices.tolist(), k, seed, self.replay)

    def __getstate__(self) -> dict[str, Any]:
        """A pickled result leaves the objective behind: it may not travel, and the numbers do."""
        return {**self.__dict__, "source": None}

    # -- words -----------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Counts and time in one line."""
        parts = [
            f"{format_count(self.total_evaluations)} of {format_count(self.total_combinations)} combinations evaluated"
        ]
        if self.rejected:
            parts.append(f"{format_count(self.rejected)} constrained out")
        if self.failed:
            parts.append(f"{format_count(self.failed)} failed")
        if self.recalled:
            parts.append(f"{format_count(self.recalled)} from the journal")
        fresh = max(0, self.total_evaluations - self.recalled)
        rate = f" ({format_rate(fresh / self.elapsed)})" if self.elapsed > 0 and fresh else ""
        return f"{', '.join(parts)}; {self.state} in {format_seconds(self.elapsed)}{rate}"

    def __repr__(self) -> str:
        """Best and counts."""
        return f"<OptimizationResult best {self.score}={self.best_score} at {self.best_params}; {self.summary()}>"

    def _repr_html_(self) -> str:
        table = self.top(SHOWN) if len(self.indices) else None
        return box("OptimizationResult", self.summary(), table=table, rows=len(self.indices))


def _numeric_frame(columns: dict[str, NDArray[Any]], x: str, y: str, scores: NDArray[np.float64]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({"x": _labels(columns[x]), "y": _labels(columns[y]), "score": scores})
    return table.dropna(subset=["x", "y"])


def _labels(column: NDArray[Any]) -> Any:
    """Numbers stay; anything else becomes text, in order of appearance."""
    import pandas as pd

    if column.dtype != object:
        return column
    texts = [None if value is ABSENT else str(value) for value in column]
    return pd.Categorical(
        texts, categories=list(dict.fromkeys(text for text in texts if text is not None)), ordered=True
    )


def _write(path: Path, write: Any) -> Path:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
