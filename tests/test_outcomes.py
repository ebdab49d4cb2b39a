"""Blocks on the wire: small where rows follow each other, and the same when they arrive."""

from __future__ import annotations

import numpy as np
import pytest

from admf_dask.outcomes import Block


def block(indices: list[int], seconds: list[float]) -> Block:
    return Block(
        start=5, stop=900_000, indices=np.array(indices, np.int64), columns={"score": np.sqrt(np.array(indices, float))},
        payload=None, seconds=np.array(seconds, np.float32), failures=(), evaluated=len(indices), rejected=2, busy=1.0,
        worker="w", rejected_example=7, attempts={9: 2},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("indices", "seconds"),
    [
        ([], []),
        ([7], [0.5]),
        (list(range(5, 505)), [1e-5] * 300 + [2e-5] * 200),
        (list(range(5, 505)), list(np.linspace(0, 1, 500))),
        ([5, 6, 8, 9], [1e-5] * 4),
        ([5, 7, 6, 8], [1e-5] * 4),
        ([5, 6, 7, 8, 9], [np.nan, np.nan, 1.0, 1.0, 1.0]),
    ],
)
def test_what_arrives_is_what_was_sent(indices: list[int], seconds: list[float]) -> None:
    sent = block(indices, seconds)
    came = Block.unpack(sent.pack())
    for name in Block.__dataclass_fields__:
        np.testing.assert_equal(getattr(came, name), getattr(sent, name))
    assert (came.indices.dtype, came.seconds.dtype) == (np.int64, np.float32)


def test_rows_of_a_grid_cost_eight_bytes_each() -> None:
    assert len(block(list(range(100_000)), [1e-5] * 100_000).pack()) < 801_000
