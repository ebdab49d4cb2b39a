"""What was called: everything that decides what the results are, as digests that can be compared and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from admf_dask.errors import JournalError
from admf_dask.functions import changed_parts, function_parts
from admf_dask.identity import Keys, content_key, keys_of, keys_of_columns
from admf_dask.space import ABSENT
from admf_dask.space.items import Combinable

SLICE = 65_536


@dataclass(frozen=True)
class Call:
    """A call that a journal can recognise.

    `parts` name what the results depend on, apart from the items: source and closure of the function, content of the data,
    seed, settings. Two calls with equal parts give the same result for the same item.
    """

    kind: str
    name: str
    parts: Mapping[str, str]
    items: Sequence[Any]
    total: int
    items_key: str
    score: str | None = None
    maximize: bool = True

    @classmethod
    def of(
        cls,
        kind: str,
        name: str,
        function: Callable[..., Any],
        data: tuple[Any, ...],
        items: Sequence[Any],
        *,
        total: int,
        settings: Mapping[str, Any],
        score: str | None = None,
        maximize: bool = True,
    ) -> Call:
        """Digest a call. Raises JournalError for a function, data or items whose content cannot be told."""
        try:
            parts = function_parts(function)
            for place, one in enumerate(data):
                parts["the content of data" if place == 0 else f"the content of data[{place}]"] = content_key(one).hex()
            items_key = content_key(items).hex()
        except TypeError as error:
            raise JournalError(
                f"a journal must recognise the call when it comes again, but {error}. Leave journal= out, or make what the "
                "function holds plain data"
            ) from error
        parts.update({name: repr(value) for name, value in settings.items() if value is not None})
        return cls(kind, name, parts, items, total, items_key, score, maximize)

    @property
    def parts_text(self) -> str:
        """The parts as JSON."""
        return json.dumps(dict(sorted(self.parts.items())))

    def differs_from(self, parts_text: str) -> list[str]:
        """What changed since a call was recorded, in words."""
        return changed_parts(json.loads(parts_text), dict(self.parts))

    def packed_items(self) -> bytes:
        """The items, to know later which they were."""
        packed: bytes = cloudpickle.dumps(self.items, protocol=5)
        return packed


def keys_at(items: Sequence[Any], positions: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Keys:
    """The keys of the items at some positions, shape (n, 2)."""
    if not isinstance(items, Combinable):
        return keys_of(items[position] for position in positions.tolist())
    pieces = [np.empty((0, 2), np.uint64)]
    for start in range(0, len(positions), SLICE):
        places = positions[start : start + SLICE]
        pieces.append(keys_of_columns(items.take(places), len(places), ABSENT))
    return np.concatenate(pieces)
