"""`ParallelConfig`: every key is checked, and the message says file, key path, rule and what was probably meant."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
PERCENT = st.integers(1, 100) | st.floats(0, 100, exclude_min=True)
CONFIGS = st.builds(
    ParallelConfig,
    enabled=st.booleans(),
    mode=st.sampled_from(["process", "thread", "hybrid"]),
    max_workers=st.integers(0, 10**6),
    threads_per_process=st.integers(0, 64),
    scheduler=st.none() | WORDS.map("tcp://{}:8786".format) | WORDS.map("tls://{}:8786".format),
    dashboard=st.none() | st.just("auto") | st.integers(0, 65535).map("127.0.0.1:{}".format),
    security=st.sampled_from(["auto", "none"])
    | st.fixed_dictionaries(dict.fromkeys(("ca_file", "cert", "key"), WORDS)),
    max_memory_percent=PERCENT,
    max_cpu_percent=PERCENT,
)
PATHS = {"ca_file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@pytest.fixture
def yaml_file(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


@given(CONFIGS)
def test_there_and_back(config: ParallelConfig) -> None:
    plain = config.to_mapping()
    assert ParallelConfig.from_mapping(plain) == config
    assert ParallelConfig.from_mapping(plain["parallel"]) == config
    assert ParallelConfig.from_mapping(yaml.safe_load(yaml.safe_dump(plain))) == config
    assert eval(repr(config)) == config
    assert hash(eval(repr(config))) == hash(config)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == replace(config) == config


@given(CONFIGS, CONFIGS)
def test_equal_means_the_same_settings(one: ParallelConfig, other: ParallelConfig) -> None:
    assert (one == other) == (one.to_mapping() == other.to_mapping())


def test_the_defaults_are_the_documented_ones(yaml_file: Any) -> None:
    text = """
    parallel:
      enabled: true
      mode: process
      max_workers: 0
      threads_per_process: 0
      scheduler: null
      dashboard: auto
      security: auto
      resources: {max_memory_percent: 80, max_cpu_percent: 90}
    """
    assert ParallelConfig.from_yaml(yaml_file(text)) == ParallelConfig()


@pytest.mark.parametrize("text", ["parallel:", "parallel: {}", "parallel:\n  resources:\n"])
def test_an_empty_block_is_the_defaults(yaml_file: Any, text: str) -> None:
    assert ParallelConfig.from_yaml(yaml_file(text)) == ParallelConfig()


def test_other_blocks_are_left_to_others(yaml_file: Any) -> None:
    text = "mode: backtest\nstrategy: {name: sma}\nparallel: {max_workers: 3}"
    assert ParallelConfig.from_yaml(yaml_file(text)).max_workers == 3
    assert ParallelConfig.from_mapping(yaml.safe_load(text)).max_workers == 3


def test_a_config_is_frozen_through_and_through() -> None:
    paths = dict(PATHS)
    config = ParallelConfig(security=paths)
    paths["cert"] = "other.pem"
    assert config.security == PATHS
    with pytest.raises(FrozenInstanceError):
        config.mode = "thread"  # type: ignore[misc]
    with pytest.raises(TypeError, match="frozen"):
        config.security["cert"] = "other.pem"  # type: ignore[index]
    with pytest.raises(TypeError, match="frozen"):
        config.security |= {"cert": "other.pem"}  # type: ignore[operator]
    assert config.security == PATHS


FILES = [
    (
        "parallel: {resources: {max_memory_precent: 70}}",
        "`parallel.resources.max_memory_precent` in run.yaml is not an option; did you mean `max_memory_percent`?",
    ),
    ("parallel: {max_worker: 2}", "`parallel.max_worker` in run.yaml is not an option; did you mean `max_workers`?"),
    (
        "parallel: {max_cpu_percent: 50}",
        "`parallel.max_cpu_percent` in run.yaml is not an option; it belongs under `parallel.resources`",
    ),
    (
        "parallel: {zzz: 1}",
        "`parallel.zzz` in run.yaml is not an option; known: dashboard, enabled, max_workers, mode,",
    ),
    ("parallel: {on: 1}", "`parallel` in run.yaml has a key that YAML reads as the boolean True"),
    (
        "parallel: {mode: proces}",
        "`parallel.mode` in run.yaml must be one of process, thread or hybrid, but is 'proces'; did you mean 'process'?",
    ),
    ("parallel: {mode: on}", "but is True; YAML reads an unquoted on, off, yes or no as a boolean"),
    ("parallel: {dashboard: off}", "as a boolean, and none is written null"),
    ("parallel: {security: no}", "as a boolean, and none is written `none`"),
    ("parallel: {enabled: 1}", "`parallel.enabled` in run.yaml must be true or false, but is 1"),
    ("parallel: {max_workers: true}", "must be a whole number, 0 for automatic, but is True"),
    ("parallel: {max_workers: 2.0}", "must be a whole number"),
    ("parallel: {threads_per_process: -1}", "must be a whole number"),
    (
        "parallel: {resources: {max_cpu_percent: 101}}",
        "`parallel.resources.max_cpu_percent` in run.yaml must be a number above 0 and up to 100, but is 101",
    ),
    ("parallel: {resources: {max_memory_percent: .nan}}", "up to 100, but is nan"),
    ("parallel: {resources: 80}", "`parallel.resources` in run.yaml must be a mapping, but is 80"),
    ("parallel: {scheduler: 'host:8786'}", "must be an address such as tcp://host:8786, or null, but is 'host:8786'"),
    ("parallel: {dashboard: ':8787'}", "must be 'auto', 'host:port' such as 127.0.0.1:8787, or null, but is ':8787'"),
    ("parallel: {dashboard: '127.0.0.1:99999'}", "host:port"),
    (
        "parallel: {security: {ca_flie: a, cert: b, key: c}}",
        "`parallel.security.ca_flie` in run.yaml is not an option; did you mean `ca_file`?",
    ),
    ("parallel: {security: {ca_file: a}}", "or the paths {ca_file, cert, key}, but is {'ca_file': 'a'}"),
    ("parallel: {security: {ca_file: a, cert: 3, key: c}}", "or the paths {ca_file, cert, key}"),
    ("parallel: [mode, process]", "`parallel` in run.yaml must be a mapping of options"),
    ("parallel: {mode: thread, mode: process}", "run.yaml, line 1: the key 'mode' is written twice"),
    ("parallel: {scheduler: 2020-13-45}", "run.yaml holds a date that is none (month must be in 1..12); put quotes"),
    ("parallel: {}\nparallel: {}", "run.yaml, line 2: the key 'parallel' is written twice"),
    ("paralel: {mode: thread}", "run.yaml has no block `parallel:` (found: paralel)"),
    ("", "the file holds no mapping"),
    ("- parallel", "the file holds no mapping"),
    ("parallel: {mode: [", "run.yaml, line"),
    ("parallel: {? [mode] : thread}", "run.yaml, line 1: found unhashable key"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_wrong_file_is_answered_with_file_path_rule_and_cure(yaml_file: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ParallelConfig.from_yaml(yaml_file(text))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        ParallelConfig.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml is not a text file in UTF-8"):
        ParallelConfig.from_yaml(tmp_path / "binary.yaml")


def test_merge_keys_may_be_overridden_as_yaml_says(yaml_file: Any) -> None:
    text = """
    deep: {first: &first {mode: hybrid}, base: &base {<<: *first, mode: thread, max_workers: 2}}
    parallel: {<<: *base, max_workers: 3}
    """
    assert ParallelConfig.from_yaml(yaml_file(text)) == ParallelConfig(mode="thread", max_workers=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enabled", "yes"),
        ("mode", "Process"),
        ("max_workers", True),
        ("threads_per_process", 1.0),
        ("scheduler", "host:8786"),
        ("dashboard", 8787),
        ("security", None),
        ("max_memory_percent", 0),
        ("max_cpu_percent", "90"),
    ],
)
def test_a_keyword_is_refused_in_the_words_of_the_file(name: str, value: Any, yaml_file: Any) -> None:
    nested = {"resources": {name: value}} if name.startswith("max_") and name.endswith("percent") else {name: value}
    with pytest.raises(ConfigError) as in_file:
        ParallelConfig.from_yaml(yaml_file(yaml.safe_dump({"parallel": nested})))
    with pytest.raises(ValueError, match=f"^`{name}` must be ") as by_keyword:
        ParallelConfig(**{name: value})
    assert str(by_keyword.value).partition(" must ")[2] == str(in_file.value).partition(" must ")[2]


def test_a_mapping_is_wanted() -> None:
    with pytest.raises(ConfigError, match="must be a mapping, but got 'thread'"):
        ParallelConfig.from_mapping("thread")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`parallel.max_worker` is not an option"):
        ParallelConfig.from_mapping({"max_worker": 1})


def test_settings_are_keywords_only() -> None:
    with pytest.raises(TypeError):
        ParallelConfig(True)  # type: ignore[misc]
