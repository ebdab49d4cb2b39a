"""Going on where an earlier run ended: what is unchanged, what was only touched, what is gone, and what a kill left behind."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from admf_dask.errors import JournalError
from admf_dask.events import BlockRecalled, Event, RunStarted
from admf_dask.journal import Journal
from admf_dask.symbols.source import Item, Source
from admf_dask.symbols.task import Written, digest_of

_PARTIAL = re.compile(r"\..*\.\d+\.partial")


def as_recorded(items: Sequence[Item], journal: Journal, source: Source, *, force: bool, written: bool) -> list[Item]:
    """The items as the journal knows them, so that it recalls what need not be done again; new ones for the rest.

    A file is the same when its size and time are (nothing is read then), or else when size and content are (that costs
    reading it). With `written` its result must be there too.
    """
    recorded = {} if force else _recorded(journal)
    again = os.urandom(8).hex()
    found = []
    for item in items:
        known = recorded.get(item.symbol)
        if known is None:
            found.append(replace(item, turn=again) if force else item)
        elif not _is_same(item, *known, source):
            found.append(item)
        elif written and not (isinstance(known[1], Written) and known[1].is_there):
            found.append(replace(item, turn=again))
        else:
            found.append(known[0])
    return found


def _recorded(journal: Journal) -> dict[str, tuple[Item, Any]]:
    """Symbol -> what was recorded of it last."""
    try:
        table = journal.frame
    except JournalError:
        return {}
    if "item" not in table or "value" not in table:
        return {}
    pairs = zip(table["item"], table["value"], strict=True)
    return {item.symbol: (item, value) for item, value in pairs if isinstance(item, Item)}


def _is_same(item: Item, before: Item, value: Any, source: Source) -> bool:
    if item.stamp == before.stamp:
        return True
    if item.size != before.size or not isinstance(value, Written) or not value.digest:
        return False
    path = source.file(item.symbol)
    return path is not None and digest_of(path) == value.digest


@dataclass
class Sitting:
    """An observer that learns which items an earlier run had done, and sweeps up what it left half written."""

    out: str | None
    recalled: set[int] = field(default_factory=set)

    def on_event(self, event: Event) -> None:
        """When a run starts it holds the lock of its journal: nobody else writes in the folder."""
        if isinstance(event, RunStarted) and self.out is not None:
            sweep(Path(self.out))
        elif isinstance(event, BlockRecalled):
            self.recalled.update(event.block.indices.tolist())


def sweep(folder: Path) -> None:
    """Remove the partial files of earlier runs. Whether their processes are gone is not asked: numbers are given out again."""
    for path in folder.glob(".*.partial"):
        if _PARTIAL.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
