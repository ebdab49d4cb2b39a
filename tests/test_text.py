"""Bytes, seconds, rates and counts in words: at each border between two units."""

from __future__ import annotations

from typing import Any

import pytest

from admf_dask.text import format_bytes, format_rate, format_seconds, join_words, parse_bytes


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0004, "400 µs"), (0.0005, "500 µs"), (0.000_999_4, "999 µs"), (0.001, "1 ms"), (0.0994, "99 ms"), (0.0995, "0.1 s"),
        (59.94, "59.9 s"), (59.96, "1 m 00 s"),
        (160.4, "2 m 40 s"), (3_599.4, "59 m 59 s"), (3_599.6, "1 h 00 m"), (11_100, "3 h 05 m"), (187_200, "2 d 04 h"),
    ],
)  # fmt: skip
def test_a_duration(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"), [(12_345.4, "12,345/s"), (100.0, "100/s"), (99.9, "99.9/s"), (1.0, "1.0/s"), (0.05, "3.0/min")]
)
def test_a_rate(rate: float, words: str) -> None:
    assert format_rate(rate) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1_000, "0.977 KiB"), (1_536, "1.5 KiB"), (2**30, "1 GiB"), (3 * 2**50, "3072 TiB")],
)
def test_a_size(size: int, words: str) -> None:
    assert format_bytes(size) == words


@pytest.mark.parametrize(
    ("text", "size"), [("1.5GB", 1_500_000_000), ("512 MiB", 2**29), ("7", 7), (7, 7), ("1_000b", 1000)]
)
def test_a_size_that_is_read(text: Any, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "5 parsecs", "", True, "1e400GB", "-1GB", -5])
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(ValueError, match="a size such as '2GB'"):
        parse_bytes(text)


def test_words_in_a_row() -> None:
    assert [join_words(words) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
