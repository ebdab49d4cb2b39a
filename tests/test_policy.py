"""What `on_error`, `timeout`, `retries` and `seed` may be, and when there were too many failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from admf_dask import ConfigError
from admf_dask.policy import Policy, pause_after


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on_error": "ignore"}, "on_error must be"),
        ({"on_error": "stop_after:0"}, "on_error must be"),
        ({"on_error": "stop_after:150%"}, "on_error must be"),
        ({"on_error": "stop_after:many"}, "on_error must be"),
        ({"timeout": 0}, "at least 0.05, but is 0"),
        ({"timeout": float("inf")}, "leave it out for no limit"),
        ({"timeout": "5"}, "timeout counts seconds"),
        ({"retries": -1}, "retries must be"),
        ({"retries": True}, "retries must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_each_wrong_value_is_answered_with_its_rule(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy.of(**given)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    policy = Policy.of(timeout=np.int64(5), retries=np.int64(3), seed=np.uint32(7))  # type: ignore[arg-type]
    assert policy == Policy.of(timeout=5, retries=3, seed=7)
    assert {type(value) for value in (policy.timeout, policy.retries, policy.seed)} == {int}


def test_only_exception_classes_can_be_retried_on() -> None:
    assert Policy.of(retry_on=OSError).retry_on == (OSError,)
    assert Policy.of(retry_on=[OSError, ValueError]).retry_on == (OSError, ValueError)
    with pytest.raises(TypeError, match="exception classes"):
        Policy.of(retry_on="OSError")


def test_pauses_double_up_to_the_longest_however_many_there_were() -> None:
    assert [pause_after(calls) for calls in (1, 2, 3, 6, 7, 5000)] == [0.1, 0.2, 0.4, 3.2, 5.0, 5.0]


@pytest.mark.parametrize(
    ("on_error", "failed", "evaluated", "reached"),
    [
        ("record", 10**6, 10**6, False),
        ("raise", 0, 5, False),
        ("raise", 1, 5, True),
        ("stop_after:3", 2, 3, False),
        ("stop_after:3", 3, 300, True),
        ("stop_after:5%", 19, 19, False),  # too early to speak of a share
        ("stop_after:5%", 1, 20, True),
        ("stop_after:5%", 1, 21, False),
    ],
)
def test_when_there_were_too_many(on_error: str, failed: int, evaluated: int, reached: bool) -> None:
    assert Policy.of(on_error=on_error).limit.reached(failed, evaluated) is reached
