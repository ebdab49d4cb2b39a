"""`ParallelConfig`: the `parallel:` block as a small frozen value, every key checked where it is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from admf_dask.errors import ConfigError
from admf_dask.text import closest, did_you_mean, join_words, whole

MODES = ("process", "thread", "hybrid")
_NESTED = {"max_memory_percent": "resources", "max_cpu_percent": "resources"}
_SECURITY_KEYS = ("ca_file", "cert", "key")
_WORD_FOR_NONE = {"mode": "", "dashboard": "null", "scheduler": "null", "security": "`none`"}
"""Options whose value is a word, and how "none" is written there."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How work is run in parallel. Frozen; equal when the settings are equal; the repr can be pasted.

    Parameters
    ----------
    enabled
        False runs everything in the calling thread, with the same results: for a debugger.
    mode
        `process` (N processes x 1 thread), `thread` (this process x N threads), `hybrid` (P processes x T threads).
    max_workers
        Slots (processes x threads); 0 is automatic.
    threads_per_process
        For `hybrid`; 0 is automatic.
    scheduler
        Address of a running Dask scheduler such as `tcp://host:8786`, or None for a local cluster.
    dashboard
        `auto` (loopback, port 8787 or the next free one), `host:port`, or None for none.
    security
        `auto` (a temporary certificate wherever there are worker processes), `none`, or paths `{ca_file, cert, key}`.
    max_memory_percent
        Share of the machine's memory that all worker limits and this process may take together, in percent.
    max_cpu_percent
        CPU load up to which workers are added, in percent.

    Raises ConfigError (a ValueError) for a value outside its rule.
    """

    enabled: bool = True
    mode: str = "process"
    max_workers: int = 0
    threads_per_process: int = 0
    scheduler: str | None = None
    dashboard: str | None = "auto"
    security: str | Mapping[str, str] = "auto"
    max_memory_percent: float = 80
    max_cpu_percent: float = 90

    def __post_init__(self) -> None:
        """Check every value; whole numbers of NumPy become Python's."""
        for name in ("max_workers", "threads_per_process"):
            object.__setattr__(self, name, whole(getattr(self, name)))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), "")
        if isinstance(self.security, Mapping):
            object.__setattr__(self, "security", _FrozenPaths(self.security))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """Read the `parallel:` block of a YAML file; other blocks are left to others.

        Raises ConfigError naming file, key path, rule and nearest known key.
        """
        from admf_dask.yamlfile import read_yaml

        content = read_yaml(path)
        if not isinstance(content, Mapping) or "parallel" not in content:
            known = list(map(str, content)) if isinstance(content, Mapping) else []
            found = f"found: {', '.join(known)}" if known else "the file holds no mapping"
            raise ConfigError(
                f"{_name(path)} has no block `parallel:` ({found}); write `parallel:` with the options below it"
            )
        return cls(**_flatten(content["parallel"], _name(path)))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """From `{"parallel": {...}}`, where other blocks are left to others, or from the block itself.

        Raises ConfigError as `from_yaml` does, without a file.
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"the parallel block must be a mapping, but got {mapping!r:.80}")
        return cls(**_flatten(mapping.get("parallel", mapping), ""))

    def to_mapping(self) -> dict[str, Any]:
        """The block as plain data, nested as in YAML; `from_mapping` gives an equal config."""
        block: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            value = dict(value) if isinstance(value, Mapping) else value
            home = block.setdefault(_NESTED[field.name], {}) if field.name in _NESTED else block
            home[field.name] = value
        return {"parallel": block}


class _FrozenPaths(dict[str, str]):
    """The three paths of a user's own certificates; hashable, so that a config is."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a ParallelConfig is frozen; make another with dataclasses.replace(config, security=...)")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _FrozenPaths, (dict(self),)


def _flatten(block: Any, source: str) -> dict[str, Any]:
    """The block's values by field name, each key checked with its full path."""
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise ConfigError(f"`parallel`{_in(source)} must be a mapping of options, but is {block!r:.80}")
    flat: dict[str, Any] = {}
    top = [field.name for field in fields(ParallelConfig) if field.name not in _NESTED]
    for key, value in block.items():
        if key == "resources":
            if not isinstance(value, Mapping | None):
                raise ConfigError(f"`parallel.resources`{_in(source)} must be a mapping, but is {value!r:.80}")
            for inner, number in (value or {}).items():
                flat[_known(inner, list(_NESTED), "parallel.resources", source)] = number
        else:
            flat[_known(key, [*top, "resources"], "parallel", source)] = value
    for name, value in flat.items():
        path = f"parallel.{_NESTED[name]}.{name}" if name in _NESTED else f"parallel.{name}"
        _check(name, value, source, path)
    return flat


def _known(key: Any, known: list[str], path: str, source: str) -> str:
    if isinstance(key, bool):
        raise ConfigError(
            f"`{path}`{_in(source)} has a key that YAML reads as the boolean {key}; on, off, yes and no need quotes"
        )
    if key not in known:
        hint = did_you_mean(key, known).replace("'", "`")
        where = f"; it belongs under `parallel.{_NESTED[key]}`" if key in _NESTED else hint
        raise ConfigError(f"`{path}.{key}`{_in(source)} is not an option{where}")
    return str(key)


def _check(name: str, value: Any, source: str, path: str | None = None) -> None:
    rule, holds = _RULES[name]
    path = path or name
    if name == "security" and isinstance(value, Mapping):
        for key in value:
            _known(key, list(_SECURITY_KEYS), path, source)
    if not holds(value):
        raise ConfigError(f"`{path}`{_in(source)} must be {rule}, but is {value!r}{_hint(name, value)}")


def _hint(name: str, value: Any) -> str:
    """What was probably meant by a value of the wrong kind."""
    if isinstance(value, bool) and name in _WORD_FOR_NONE:
        none = f", and none is written {_WORD_FOR_NONE[name]}" if _WORD_FOR_NONE[name] else ""
        return f"; YAML reads an unquoted on, off, yes or no as a boolean{none}"
    near = closest(value, MODES) if name == "mode" and isinstance(value, str) else None
    return f"; did you mean {near!r}?" if near else ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _percent(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 < value <= 100


def _address(value: Any) -> bool:
    return value is None or (
        isinstance(value, str) and re.fullmatch(r"(tcp|tls|ucx|ws|wss|inproc)://\S+", value) is not None
    )


def _dashboard(value: Any) -> bool:
    if value is None or value == "auto":
        return True
    match = re.fullmatch(r"[^\s:/]+:(\d{1,5})", value) if isinstance(value, str) else None
    return match is not None and int(match[1]) <= 65535


def _security(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) == set(_SECURITY_KEYS) and all(isinstance(path, str) and path for path in value.values())
    return value in ("auto", "none")


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "enabled": ("true or false", lambda value: isinstance(value, bool)),
    "mode": (f"one of {join_words(MODES, 'or')}", lambda value: isinstance(value, str) and value in MODES),
    "max_workers": ("a whole number, 0 for automatic", _whole),
    "threads_per_process": ("a whole number, 0 for automatic", _whole),
    "scheduler": ("an address such as tcp://host:8786, or null", _address),
    "dashboard": ("'auto', 'host:port' such as 127.0.0.1:8787, or null", _dashboard),
    "security": (f"'auto', 'none', or the paths {{{', '.join(_SECURITY_KEYS)}}}", _security),
    "max_memory_percent": ("a number above 0 and up to 100", _percent),
    "max_cpu_percent": ("a number above 0 and up to 100", _percent),
}


def _in(source: str) -> str:
    return f" in {source}" if source else ""


def _name(path: str | os.PathLike[str]) -> str:
    return os.path.basename(os.fspath(path))
