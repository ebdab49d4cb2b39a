"""Which symbols there are, and in which files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from admf_dask.errors import DataError
from admf_dask.text import did_you_mean

SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")
"""Price files, the one to take first first where a symbol has several."""


def find_symbols(folder_or_pattern: str | os.PathLike[str]) -> dict[str, str]:
    """Symbol -> path of its file, sorted by symbol.

    Takes a folder, whose files are named by symbol (`prices/AAPL.csv`; .parquet, .pq, .csv or .csv.gz, of several of one
    symbol the first in this order), or a pattern with `{symbol}`, which may stand in a folder too
    (`prices/{symbol}/daily.csv`). Names that begin with a dot are left out. Raises DataError for a folder that does not
    exist, a pattern without `{symbol}`, and where nothing is found. Cost: one listing.
    """
    pattern = as_pattern(folder_or_pattern)
    head, piece, below = _pieces(pattern)
    try:
        names = sorted(name for name in os.listdir(head) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {head} of {pattern} cannot be listed: {error.strerror or error}") from error
    found = {}
    for suffix in _endings(pattern):
        like = re.compile(_as_regex(piece if below else piece + suffix))
        for name in names:
            match = like.fullmatch(name)
            if match and match[1] not in found and os.path.isfile(path := f"{_filled(pattern, match[1])}{suffix}"):
                found[match[1]] = path
    if not found:
        endings = ", ".join(SUFFIXES)
        raise DataError(
            f"there is no file of any symbol in {head}: none is like {piece}{'' if _ends(pattern) else f' ({endings})'}"
        )
    return dict(sorted(found.items()))


def find_file(pattern: str, symbol: str) -> str:
    """The file of a symbol, for a pattern of `as_pattern`. Raises DataError when there is none."""
    paths = candidates(pattern, symbol)
    for path in paths:
        if os.path.isfile(path):
            return path
    raise DataError(f"there is no file of {symbol}: {' or '.join(os.path.basename(one) for one in paths)} is missing")


def candidates(pattern: str, symbol: str) -> list[str]:
    """Where the file of a symbol may be, for a pattern of `as_pattern`, the one to take first first."""
    return [f"{_filled(pattern, symbol)}{suffix}" for suffix in _endings(pattern)]


def as_pattern(folder_or_pattern: str | os.PathLike[str]) -> str:
    """An absolute pattern; that of a folder ends in `{symbol}`. Raises DataError for a folder that does not exist."""
    text = os.fspath(folder_or_pattern)
    if "{symbol}" in text:
        return os.path.abspath(text)
    if os.path.isfile(text):
        folder, name = os.path.split(text)
        raise DataError(
            f"data must be a folder or a pattern, but {text} is a file; write data={folder or '.'!r} and symbols=["
            f"{name.split('.')[0]!r}]"
        )
    if not os.path.isdir(text):
        raise DataError(
            f"the data folder {text} does not exist; a pattern needs {{symbol}}, as in 'prices/{{symbol}}.parquet'"
        )
    return os.path.join(os.path.abspath(text), "{symbol}")


def read_symbols(path: str | os.PathLike[str]) -> list[str]:
    """The names in a file, in its order.

    A .json holds a list, or a mapping with a list `symbols`; a .csv has a column `symbol`, whatever its case; any other is text
    with one name a line, blank lines and what follows # left out. Names are text: the tickers NA and TRUE stay. Raises
    DataError for a file that cannot be read, has no names, or something else than names.
    """
    text = os.fspath(path)
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
        found = (
            _in_json(content, text)
            if text.endswith(".json")
            else _in_csv(content, text)
            if text.endswith(".csv")
            else _in_text(content)
        )
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"the symbols in {text} cannot be read: {error}") from error
    if not found:
        raise DataError(f"{text} must hold names, but is empty")
    for name in found:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{text} must hold a list of names, but has {name!r:.60}")
    return found


def _in_text(content: str) -> list[Any]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in content.splitlines())
    return [line for line in lines if line]


def _in_csv(content: str, path: str) -> list[Any]:
    import csv

    rows = [row for row in csv.reader(content.splitlines()) if row]
    header = [name.strip() for name in rows[0]] if rows else []
    places = [place for place, name in enumerate(header) if name.lower() == "symbol"]
    if not places:
        raise DataError(f"{path} must have a column 'symbol'{did_you_mean('symbol', header)}")
    return [row[places[0]].strip() if places[0] < len(row) else "" for row in rows[1:]]


def _in_json(content: str, path: str) -> list[Any]:
    found = json.loads(content)
    if isinstance(found, dict):
        if "symbols" not in found:
            raise DataError(
                f"{path} must hold a list of names or a key 'symbols'{did_you_mean('symbols', map(str, found))}"
            )
        found = found["symbols"]
    if not isinstance(found, list):
        raise DataError(f"{path} must hold a list of names, but has {found!r:.60}")
    return found


def _ends(pattern: str) -> bool:
    """Whether a pattern says how the file ends, or leaves that open."""
    return not pattern.endswith("{symbol}")


def _endings(pattern: str) -> tuple[str, ...]:
    return ("",) if _ends(pattern) else SUFFIXES


def _filled(pattern: str, symbol: str) -> str:
    return pattern.replace("{symbol}", symbol)


def _pieces(pattern: str) -> tuple[str, str, str]:
    """What is above the first part of the path with `{symbol}`, that part, and the rest."""
    parts = pattern.split(os.sep)
    place = next(place for place, part in enumerate(parts) if "{symbol}" in part)
    return os.sep.join(parts[:place]) or os.sep, parts[place], os.sep.join(parts[place + 1 :])


def _as_regex(piece: str) -> str:
    first, *rest = (re.escape(part) for part in piece.split("{symbol}"))
    return f"{first}(.+)" + r"\1".join(rest)
