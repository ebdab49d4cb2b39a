"""`RankedResults`: all results of an optimisation as the original document gives them, best first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from admf_dask.space import Combinable


class RankedResults(Sequence[tuple[dict[str, Any], float]]):
    """Pairs (parameters, score), best first, each made when it is asked for; a slice is a list."""

    def __init__(
        self, space: Combinable, indices: NDArray[np.int64], scores: NDArray[np.float64], order: NDArray[np.int64]
    ) -> None:
        """Rows `order` of `indices` and `scores`, each of shape (n,): views, nothing is copied."""
        self._space, self._indices, self._scores, self._order = space, indices, scores, order

    def __len__(self) -> int:
        """Number of scored combinations."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> tuple[dict[str, Any], float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[dict[str, Any], float]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One pair, or a list of them."""
        rows = self._order[index]
        if isinstance(index, slice):
            params = self._space.pick(self._indices[rows])
            return list(zip(params, self._scores[rows].tolist(), strict=True))
        return self._space[int(self._indices[rows])], float(self._scores[rows])

    def __iter__(self) -> Iterator[tuple[dict[str, Any], float]]:
        """All pairs, a thousand made at a time."""
        for start in range(0, len(self), 1000):
            yield from self[start : start + 1000]

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of equal pairs."""
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The first three."""
        more = ", ..." if len(self) > 3 else ""
        return f"[{', '.join(map(repr, self[:3]))}{more}]"
