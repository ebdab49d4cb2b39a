"""`ParallelOptimizer`: a parameter space through the one motion of the runtime, ranked."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError, SpaceError, TaskError
from admf_dask.events import Observer
from admf_dask.functions import misfit
from admf_dask.journal import Journal
from admf_dask.objectives import BatchObjective
from admf_dask.optimize.collect import Collector, check_room, read_keep
from admf_dask.optimize.result import OptimizationResult
from admf_dask.optimize.space import as_space
from admf_dask.outcomes import EqualResultsWarning, NothingRanksWarning
from admf_dask.policy import Policy
from admf_dask.progress import observers_for
from admf_dask.resources import Machine
from admf_dask.runtime import (
    BatchEvaluator,
    FailedItemsWarning,
    Keep,
    Run,
    ScoreEvaluator,
    Session,
    Title,
    session_for,
    settings_of,
    takes,
)
from admf_dask.space.constraints import as_many
from admf_dask.text import failed_words, format_count, join_words, others_are, short

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from distributed import Client

Constraint = str | Callable[[dict[str, Any]], bool]


class ParallelOptimizer:
    """Evaluates an objective on every combination of a parameter space, in parallel, and ranks what came out.

    ```python
    result = ParallelOptimizer(workers=4).optimize(space, objective)
    result.best_params, result.best_score
    ```

    Parameters
    ----------
    workers
        Slots to evaluate in; None lets the `ResourceManager` decide.
    mode
        `process`, `thread` or `hybrid`; see `Session`.
    session
        An open `Session`, or a `distributed.Client`, to use and leave open. Without one, each `optimize` opens a session
        and closes it, which costs about a second in process mode.
    config
        A `ParallelConfig` for the session that `optimize` opens; `workers` and `mode` go before it when given.
    """

    def __init__(
        self,
        workers: int | None = None,
        mode: str | None = None,
        *,
        session: Session | Client | None = None,
        config: ParallelConfig | None = None,
    ) -> None:
        """Check the settings; nothing is started."""
        self.config = settings_of(config, workers, mode)
        self.session = session

    @property
    def workers(self) -> int:
        """Slots asked for; 0 means automatic."""
        return self.config.max_workers

    @property
    def mode(self) -> str:
        """`process`, `thread` or `hybrid`."""
        return self.config.mode

    def optimize(
        self,
        parameter_space: Any,
        objective_function: Callable[..., Any],
        constraints: Iterable[Constraint] | Constraint | None = None,
        *,
        data: Any = None,
        score: str | None = None,
        maximize: bool = True,
        keep: str | int = "all",
        on_error: str = "record",
        timeout: float | None = None,
        retries: int = 0,
        retry_on: Any = Exception,
        seed: int | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        progress: bool | str | Observer = "auto",
        name: str | None = None,
    ) -> OptimizationResult:
        """Evaluate `objective_function(params)`, or `objective_function(params, data)`, on the whole space.

        Parameters
        ----------
        parameter_space
            A `ParameterSpace`, a sample of one, a mapping of axes, or a list of dicts.
        objective_function
            Returns a number or a mapping of numbers; or a `batch_objective`, which takes a mapping name -> 1-D array.
        constraints
            Functions `f(params) -> bool` or expressions such as `"fast < slow"`, applied on the workers.
        data
            Handed to the objective as its second argument, sent to each worker once.
        score
            Which number of a mapping ranks. Needed when there is more than one.
        maximize
            False when lower is better.
        keep
            `"all"` rows, or the best n: then memory does not grow with the space, which may hold 10^9 points.
        on_error, timeout, retries, retry_on, seed, journal
            As in `Session.map`. A batch objective with a parameter `seeds` gets a uint64 array (n,), one for each combination.
        progress
            `"auto"`, True, False, or an observer of your own.
        name
            What progress and dashboard call the run; the objective's name by default.

        Ties keep grid order, NaN ranks last, failed combinations are listed in `.failures` and not ranked.

        Raises TaskError when every combination failed or the call itself is wrong, SpaceError when the constraints leave
        nothing, ResourceError when the results would not fit into memory. KeyboardInterrupt and ClusterLost carry what was
        found as `.partial`, an `OptimizationResult` with state `interrupted`.

        Cost beyond the objective: 4 to 6 ms for each chunk of about 0.4 s; about 0.3 microseconds for each combination.
        """
        check_maximize(maximize)
        evaluator = self._evaluator(
            parameter_space, objective_function, constraints, data, Keep(score, maximize, read_keep(keep)),
            Policy.of(on_error=on_error, timeout=timeout, retries=retries, retry_on=retry_on, seed=seed),
        )  # fmt: skip
        check_room(evaluator.items.size, evaluator.keep.count, 1, lambda: Machine.probe(interval=0).memory_available)
        title = Title("optimize", name or _name(objective_function))
        with session_for(self.session, self.config) as session:
            return _optimize(session.run(evaluator, title, observers_for(progress), journal), evaluator)

    def to_delayed(
        self,
        parameter_space: Any,
        objective_function: Callable[..., Any],
        constraints: Iterable[Constraint] | Constraint | None = None,
        *,
        data: Any = None,
        npartitions: int | None = None,
    ) -> list[Delayed]:
        """The same sweep as `dask.delayed` chunks, for people who compose graphs.

        Each chunk computes to a DataFrame: index `combination` (the position in the space), a column per parameter, a
        column per score. Combinations that fail are rows with the error in column `error`. The pieces can go through
        `dask.dataframe.from_delayed`, or further delayed calls; nothing runs until computed.
        """
        from admf_dask.runtime.graph import delayed_chunks

        evaluator = self._evaluator(parameter_space, objective_function, constraints, data, Keep(), Policy())
        return delayed_chunks(evaluator, npartitions)

    def _evaluator(
        self,
        parameter_space: Any,
        objective: Callable[..., Any],
        constraints: Any,
        data: Any,
        keep: Keep,
        policy: Policy,
    ) -> ScoreEvaluator:
        check_objective(objective, parameter_space)
        check_seed(objective, policy)
        space = as_space(parameter_space)
        if constraints is not None:
            space = space.with_constraints(*as_many(constraints))
        extra = () if data is None else (data,)
        check_signature(objective, space.names, len(extra), policy)
        if isinstance(objective, BatchObjective):
            return BatchEvaluator(objective, space, extra, policy, keep=keep)
        return ScoreEvaluator(objective, space, extra, policy, keep=keep)


def check_objective(objective: Any, parameter_space: Any) -> None:
    """Raise TypeError, with the line that was probably meant, unless `objective` is a function."""
    if not callable(objective):
        if inspect.isroutine(parameter_space) or isinstance(parameter_space, BatchObjective):
            raise TypeError(f"the space comes first: write `optimize(space, {_name(parameter_space)})`")
        raise TypeError(
            f"expected a function, but got {objective!r:.60} ({type(objective).__name__}). You probably wrote "
            "`optimize(space, sharpe(data))`; write `optimize(space, sharpe)`, and `data=...` for its data"
        )


def check_signature(objective: Any, names: Sequence[str], data: int, policy: Policy) -> None:
    """Raise TypeError, with the line to write, for an objective that cannot be called with one dict, or is a coroutine."""
    name = _name(objective)
    inner = objective.function if type(objective) is BatchObjective else objective
    if inspect.iscoroutinefunction(inner):
        raise TypeError(f"an objective must return its number, but {name} is `async def`; write `def {name}(params)`")
    chance = "seeds" if type(objective) is BatchObjective else "rng"
    seeded = {chance: None} if policy.seed is not None and takes(inner, chance) else {}
    why = misfit(inner, {}, *range(data), **seeded)
    if why is None:
        return
    call = f"{name}(params, data)" if data else f"{name}(params)"
    what = "arrays by name" if type(objective) is BatchObjective else "a dict of one combination"
    own = next((own for own in inspect.signature(inner, follow_wrapped=False).parameters if own in names), None)
    used = f" and `params[{own!r}]` in it" if own else ""
    given = "" if data else "; a second argument needs data="
    raise TypeError(
        f"an objective is called as {call}, params being {what}, but: {why}; write `def {call}`{used}{given}"
    )


def check_maximize(maximize: Any) -> None:
    """Raise ConfigError for a word: "min" is true, and would maximise."""
    if maximize not in (True, False):
        raise ConfigError(
            f"maximize must be True or False, but is {maximize!r}; write maximize=False where lower is better"
        )


def check_seed(objective: Any, policy: Policy) -> None:
    """Raise TypeError for a batch objective that could not see its seeds."""
    if policy.seed is None or type(objective) is not BatchObjective or takes(objective.function, "seeds"):
        return
    raise TypeError(
        "with seed= a batch objective must take a parameter `seeds` (a uint64 array, one for each combination), because how a "
        f"grid is cut into batches is not its business; write `def {_name(objective)}(columns, ..., seeds)`, or leave seed= out"
    )


def _optimize(run: Run, evaluator: ScoreEvaluator) -> OptimizationResult:
    # Where constraints turn most away, places for all would be mostly empty.
    collector = Collector(evaluator.keep, None if evaluator.items.constraints else run.total)
    began = time.perf_counter()
    try:
        with contextlib.closing(run.__iter__()) as blocks:
            for block in blocks:
                collector.add(block)
    except BaseException as error:
        # What was found rides on whatever ended the run. Who pressed Ctrl-C always finds a result, be it an empty one.
        if collector.evaluated or isinstance(error, KeyboardInterrupt):
            error.partial = _result(evaluator, collector, began, "interrupted", run.recalled)  # type: ignore[attr-defined]
        raise
    _check_something_left(evaluator, collector)
    result = _result(evaluator, collector, began, "finished", run.recalled)
    _warn_of_failures(result)
    _warn_if_all_equal(result, evaluator)
    _warn_if_none_ranks(result)
    return result


def _result(
    evaluator: ScoreEvaluator, collector: Collector, began: float, state: str, recalled: int
) -> OptimizationResult:
    table = collector.table()
    return OptimizationResult(
        space=evaluator.items,
        indices=table.indices,
        columns=table.columns,
        seconds=table.seconds,
        failed_items=tuple(sorted(collector.failures, key=lambda failed: failed.index)),
        failed=collector.failed,
        total_evaluations=collector.evaluated,
        rejected=collector.rejected,
        score=collector.score or evaluator.keep.score or "score",
        maximize=evaluator.keep.maximize,
        kept=evaluator.keep.count,
        elapsed=time.perf_counter() - began,
        state=state,
        workers=collector.workers,
        recalled=recalled,
        source=evaluator,
    )


def _check_something_left(evaluator: ScoreEvaluator, collector: Collector) -> None:
    total = evaluator.items.size
    if collector.evaluated == 0:
        if collector.rejected_example is None:
            raise SpaceError("the parameter space holds no combination. Nothing to run.")
        at = collector.rejected_example
        example = _params(evaluator.items[at])
        culprit = evaluator.items.describe_rejection(at)
        raise SpaceError(
            f"The constraints rejected all {format_count(total)} combinations (example: {example}, by {culprit}). Nothing to run."
        )
    if collector.failed == collector.evaluated:
        first = min(collector.failures, key=lambda failed: failed.index)
        item = evaluator.items[first.index]
        raise TaskError(
            failed_words(collector.failed, collector.failed, "evaluation", f"{_params(item)}: {first.failure.summary}"),
            item=item,
        ) from first.failure.exception(item)


def _warn_of_failures(result: OptimizationResult) -> None:
    if not result.failed:
        return
    first = result.first_failure
    words = f"{_params(result.space[first.index])}: {first.failure.summary}"
    others = others_are(result.total_evaluations - result.failed).capitalize()
    warnings.warn(
        f"{failed_words(result.failed, result.total_evaluations, 'evaluation', words)}. {others} in `result`; what failed in "
        "`result.failures`",
        FailedItemsWarning,
        stacklevel=4,
    )


def _warn_if_all_equal(result: OptimizationResult, evaluator: ScoreEvaluator) -> None:
    """Of backtests, and only where all rows were kept: the best n of a large grid may well be equal."""
    telling = getattr(evaluator.function, "telling", ())
    count = len(result.indices)
    if not telling or count < 2 or count + result.failed < result.total_evaluations:
        return
    if all((result.columns[name] == result.columns[name][0]).all() for name in telling):
        warnings.warn(
            f"all {format_count(count)} combinations gave the same result ({join_words(telling)} are equal): what the space "
            f"varies ({join_words(result.space.names)}) has no effect on these bars",
            EqualResultsWarning,
            stacklevel=4,
        )


def _warn_if_none_ranks(result: OptimizationResult) -> None:
    """A best among scores that are all NaN would be the first row, whatever it is."""
    if len(result.indices) and result.best_params is None:
        warnings.warn(
            f"no combination has a score that ranks: {result.score} is NaN in all {format_count(len(result.indices))} that are "
            "kept, so best_params is None; `result.frame` has what else they gave",
            NothingRanksWarning,
            stacklevel=4,
        )


def _params(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={short(value)}" for name, value in params.items())


def _name(objective: Any) -> str:
    return str(getattr(objective, "__name__", type(objective).__name__))
