"""Who killed the worker: a state machine fed with deaths, answering with what to run again, and how.

Dask blames every task that was waiting on a dead worker. Here only what was executing is suspect:

- If the worker's black box says which items were executing, the rest of their chunks is run again without blame and those
  items become suspects. A chunk that was only queued there is run again without blame.
- If nobody knows (a remote worker), the whole chunk is suspect.
- If the process was ended because an item was overdue, that is guilty at once (several rows of one call are halved first),
  and all the rest is run again without blame. If other threads of the process were at work too, the overdue items are only
  suspects: who holds the interpreter makes its neighbours late.
- Suspects run at the end, one at a time with nothing else in flight, of other runs neither. A suspect of several items that
  kills its worker alone is halved; one item that was executing at `LIMIT` deaths, the last of them alone, is guilty.
- A process that was ended on purpose for another run says nothing: its chunks are not brought before this machine.

So an innocent neighbour is never blamed, and an item whose worker was killed from outside passes when run again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

Range = tuple[int, int]
LIMIT = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a death."""

    again: tuple[Range, ...] = ()
    """Run these without blame."""
    guilty: int | None = None
    """This item is the cause; record it as failed."""


@dataclass(slots=True)
class Suspects:
    """Ranges that may hold a killer."""

    waiting: deque[Range] = field(default_factory=deque)
    deaths: dict[int, int] = field(default_factory=dict)

    def worker_overdue(self, chunk: Range, overdue: tuple[Range, ...], *, shared: bool) -> Verdict:
        """`chunk` was on a worker that was ended because `overdue` took too long there; `shared` with other threads."""
        hits = [common for span in overdue if (common := _overlap(chunk, span))]
        if not hits:
            return Verdict(again=(chunk,))
        start, stop = hits[0]
        again = _without(chunk, hits[0])
        if shared:
            self.waiting.append(hits[0])
            return Verdict(again=again)
        if stop - start > 1:
            return Verdict(again=(*again, *_halves(hits[0])))
        self.deaths[start] = self.deaths.get(start, 0) + 1
        return Verdict(again=again, guilty=start)

    def worker_died(
        self, chunk: Range, executing: tuple[Range, ...] | None, *, alone: bool, others: int = 0
    ) -> Verdict:
        """`chunk` was on a worker that died; `executing` is what its black box said, None without one.

        `alone` says that nothing else of the run was in flight, `others` how many items of other runs were executing there: if
        there were none, the chunk itself must be to blame.
        """
        if alone and others and not executing:
            return self.spared(chunk, alone=True)
        alone = alone and not others
        if executing is None:
            return self._accuse(chunk, known=False, alone=alone)
        hits = [common for span in executing if (common := _overlap(chunk, span))]
        if not hits:
            return self._accuse(chunk, known=True, alone=True) if alone and not executing else Verdict(again=(chunk,))
        accused = hits[0]
        verdict = self._accuse(accused, known=True, alone=alone)
        return Verdict(again=_without(chunk, accused), guilty=verdict.guilty)

    def spared(self, chunk: Range, *, alone: bool) -> Verdict:
        """`chunk` was where something else ended the process. A suspect, which was `alone`, remains one."""
        if not alone:
            return Verdict(again=(chunk,))
        self.waiting.append(chunk)
        return Verdict()

    def next(self) -> Range | None:
        """The next suspect to run alone, or None."""
        return self.waiting.popleft() if self.waiting else None

    def _accuse(self, span: Range, *, known: bool, alone: bool) -> Verdict:
        start, stop = span
        if stop - start > 1:
            self.waiting.extend(_halves(span) if alone else (span,))
            return Verdict()
        if known or alone:
            self.deaths[start] = self.deaths.get(start, 0) + 1
        if alone and self.deaths[start] >= LIMIT:
            return Verdict(guilty=start)
        self.waiting.append(span)
        return Verdict()


def _overlap(left: Range, right: Range) -> Range | None:
    start, stop = max(left[0], right[0]), min(left[1], right[1])
    return (start, stop) if start < stop else None


def _without(chunk: Range, part: Range) -> tuple[Range, ...]:
    return tuple(span for span in ((chunk[0], part[0]), (part[1], chunk[1])) if span[0] < span[1])


def _halves(span: Range) -> tuple[Range, Range]:
    middle = (span[0] + span[1]) // 2
    return (span[0], middle), (middle, span[1])
