"""Read a YAML file and say clearly what is wrong with it: not there, not YAML, a key written twice."""

from __future__ import annotations

import os
from typing import Any

from admf_dask.errors import ConfigError


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file (safe loader). Raises ConfigError with file and line; a key written twice is an error."""
    import yaml

    name = os.path.basename(os.fspath(path))
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, Loader=_strict_loader())
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not a text file in UTF-8: {error}") from error
    except ValueError as error:
        # What looks like a date is made one.
        raise ConfigError(f"{name} holds a date that is none ({error}); put quotes around what is no date") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{where}: {getattr(error, 'problem', None) or error}") from error


def _strict_loader() -> Any:
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self.checked: set[Any] = set()

        def flatten_mapping(self, node: Any) -> None:
            # Every mapping passes here before the keys of its `<<` are merged into it; those may be given again.
            if node not in self.checked:
                self.checked.add(node)
                self.refuse_twins(node)
            super().flatten_mapping(node)

        def refuse_twins(self, node: Any) -> None:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                    continue  # a key that is no plain value is refused by the loader itself
                key = self.construct_object(key_node)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is written twice; keep one of them", key_node.start_mark
                    )
                seen.add(key)

    return StrictLoader
