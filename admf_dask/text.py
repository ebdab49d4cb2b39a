"""Bytes, seconds and counts as words: the one place for errors, progress, commands and pages."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def format_bytes(size: float) -> str:
    """`format_bytes(1536)` is `'1.5 KiB'`: binary units, three significant digits at the most."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.3g} {unit}"


def parse_bytes(text: str | int) -> int:
    """`parse_bytes("1.5GB")` is `1500000000`. Units: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024).

    Raises ValueError for anything else, naming what was found.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    compact = str(text).strip().lower().replace(" ", "").replace("_", "")
    number = compact.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = compact[len(number) :] or "b"
    try:
        size = int(float(number) * _UNITS[unit])
        if size < 0:
            raise ValueError
        return size
    except (KeyError, ValueError, OverflowError):
        raise ValueError(
            f"a size such as '2GB', '512MiB' or a whole number of bytes is expected, but got {text!r}"
        ) from None


def whole(value: Any) -> Any:
    """A whole number of another library, such as NumPy's, as an int; anything else as it is."""
    # An array of one number has __index__ too.
    plain = isinstance(value, bool) or not hasattr(value, "__index__") or getattr(value, "ndim", 0) > 0
    return value if plain else operator.index(value)


def short(value: Any, limit: int = 60) -> str:
    """A value for a line of a message: its repr, cut; of frames and arrays what they are, not what they hold."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"<{type(value).__name__} {' x '.join(map(str, shape))}>"
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def failed_words(failed: int, total: int, noun: str, first: str) -> str:
    """`3 of 5 items failed (first: ...)`, or all of them; of one item there is no first."""
    if total == 1:
        return f"the only {noun} failed ({first})"
    many = f"all {format_count(total)}" if failed == total else f"{format_count(failed)} of {format_count(total)}"
    return f"{many} {noun}s failed (first: {first})"


def others_are(count: int) -> str:
    """`the other 3 are`, or `the other one is`."""
    return "the other one is" if count == 1 else f"the other {format_count(count)} are"


def format_seconds(seconds: float) -> str:
    """A duration as a person says it: `'45 ms'`, `'12.3 s'`, `'2 m 40 s'`, `'3 h 05 m'`, `'2 d 04 h'`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0009995 else f"{seconds * 1e6:.0f} µs"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def format_count(count: float) -> str:
    """`format_count(1234567)` is `'1,234,567'`."""
    return f"{count:,}" if isinstance(count, int) else f"{count:,.0f}"


def format_rate(per_second: float) -> str:
    """Evaluations per second: `'12,345/s'`, `'5.1/s'`, and below one in a second `'3.0/min'`."""
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.1f}/min"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`plural(1, "worker")` is `'1 worker'`, `plural(2, "worker")` is `'2 workers'`."""
    return f"{format_count(count)} {noun if count == 1 else nouns or noun + 's'}"


def readable(name: str) -> str:
    """`readable("sharpe_ratio")` is `'Sharpe ratio'`."""
    return name.replace("_", " ").capitalize()


def join_words(words: Iterable[object], last: str = "and") -> str:
    """`join_words("abc")` is `'a, b and c'`."""
    *head, tail = [str(word) for word in words] or [""]
    return f"{', '.join(head)} {last} {tail}" if head else tail


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None if nothing is near."""
    options = list(known)
    matches = difflib.get_close_matches(str(name).lower(), {option.lower() for option in options}, n=1)
    if not matches and len(str(name)) > 2:
        matches = [option.lower() for option in options if option.lower().startswith(str(name).lower())]
    return next(option for option in options if option.lower() == matches[0]) if matches else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or the list of all."""
    known = sorted(known)
    near = closest(name, known)
    return f"; did you mean {near!r}?" if near else f"; known: {', '.join(known)}"
