"""The commands as a user types them, on real prices."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pytest

from admf_dask import ConfigError, DataError, EngineError, Machine, datasets
from admf_dask.cli import CONFIGS, STUDY, main
from admf_dask.study import builtin_study, load_study

OURS = """
strategy: sma_crossover
parameters: {fast: {low: 2, high: 12}, slow: [10, 20, 30]}
constraints: ["fast < slow"]
data: {symbol: FB}
backtest: {commission: 0.001}
parallel: {mode: thread, max_workers: 2, dashboard: null}
"""
ADMF = """
mode: optimize
strategy: {name: sma_crossover}
parameter_space:
  - {name: fast_window, type: integer, min: 2, max: 10, step: 2}
  - {name: slow_window, type: categorical, options: [20, 40]}
optimization: {method: grid, objective: total_return, jobs: 4}
backtest: {initial_capital: 50000, symbols: [X], timeframe: 1d, start_date: "2012-06-01"}
broker: {slippage: 0.05, commission: {type: percentage, rate: 0.1}}
data: {sources: [{symbol: X, file: x.csv, date_column: day, date_format: "%d.%m.%Y"}]}
rename: {fast_window: fast, slow_window: slow}
parallel: {mode: thread, max_workers: 1, dashboard: null}
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def write(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


def test_a_study_runs_prints_the_best_and_saves_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["optimize", write(tmp_path, OURS), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "sma_crossover on FB, 196 bars" in printed.out
    assert re.search(r"fast +slow +Sharpe ratio +final equity +max drawdown +trades", printed.out)
    assert "of 33 combinations evaluated" in printed.out
    assert "33/33" in printed.err
    saved = pd.read_parquet(out / "results.parquet")
    assert saved["sharpe_ratio"].is_monotonic_decreasing
    assert len(saved) == len(pd.read_csv(out / "results.csv")) == 30
    assert "<script src" not in (out / "heatmap.html").read_text(), "the page must open without a network"
    assert sorted(path.name for path in out.iterdir()) == [
        "heatmap.html",
        "journal",
        "results.csv",
        "results.parquet",
    ]


def test_an_admf_file_runs_with_a_word_on_every_key_that_means_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = datasets.load_prices("AAPL").loc["2012":]
    prices.assign(day=prices.index.strftime("%d.%m.%Y")).to_csv(tmp_path / "x.csv", index=False)
    path = write(tmp_path, ADMF)
    study = load_study(path)
    assert study.backtest == pytest.approx({"initial_cash": 50000, "slippage": 0.0005, "commission": 0.001})
    assert main(["optimize", path, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for note in ("`optimization.jobs` has no meaning", "`backtest.timeframe` has no meaning"):
        assert note in printed
    saved = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert saved["total_return"].is_monotonic_decreasing
    assert len(saved) == 10


def test_quiet_prints_only_where_the_results_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", write(tmp_path, OURS), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split()[0] for line in printed.out.splitlines()] == ["parquet", "csv", "heatmap"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("strategy:", "stratgy:"), "`stratgy` in study.yaml is not a key of a study; did you mean 'strategy'"),
        (("sma_crossover", "sma_crosover"), "did you mean 'sma_crossover'"),
        (("symbol: FB", "symbol: FBB"), "there are no prices for 'FBB'; did you mean 'FB'"),
        (("fast: {", "fats: {"), "did you mean 'fast'"),
        (("mode: thread", "mode: threads"), "did you mean 'thread'"),
        (("fast < slow", "fast < slo"), "did you mean 'slow'"),
        (("low: 2, high: 12", "low: 200, high: 12"), "`low <= high` must hold for axis 'fast'"),
        (("commission: 0.001", "comission: 0.001"), "did you mean 'commission'"),
        (("data: {symbol: FB}", "data: {symbol: FB, file: none.csv}"), "none.csv cannot be read: "),
        (("data: {symbol: FB}", "data: {symbol: FB, start: '2030-01-01'}"), "there are no prices of FB between"),
        (("data: {symbol: FB}", "data: {symbol: FB}\nobjective: sharp"), "did you mean 'sharpe_ratio'"),
        (("data: {symbol: FB}", "data: {symbol: FB, start: 01.02.2013}"), "but one is '01.02.2013'"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: str
) -> None:
    old, new = change
    assert old in OURS
    text = OURS.replace(old, new)
    text = text.replace("fast <", "fats <") if old == "fast: {" else text
    assert main(["optimize", write(tmp_path, text), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("method: grid", "method: bayesian", ConfigError, "only grid and random"),
        ("total_return", "win_rate", ConfigError, "'win_rate', which is not available"),
        ("type: percentage, rate", "type: fixed, rate", ConfigError, "only percentage is supported"),
        ("file: x.csv", "file: x.csv, fil: y", ConfigError, "did you mean 'file'"),
        ("rename:", "renamed:", EngineError, "'fast_window' is no parameter of sma_crossover"),
        (
            "rate: 0.1",
            "rate: a tenth",
            ConfigError,
            r"`broker.commission` in .* must be a number \(per cent\), but is 'a tenth'",
        ),
    ],
)
def test_what_an_admf_file_cannot_ask_for(
    tmp_path: Path, old: str, new: str, error: type[Exception], words: str
) -> None:
    prices = datasets.load_prices("FB")
    prices.assign(day=prices.index.strftime("%d.%m.%Y")).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(error, match=words):
        load_study(write(tmp_path, ADMF.replace(old, new))).make_objective()


def test_what_help_shows_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, example in (("optimize", STUDY), ("backtest", CONFIGS)):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert example in capsys.readouterr().out
    study = load_study(write(tmp_path, STUDY))
    assert len(study.space) == 49 * 39
    study.make_objective()
    common = ["--mode", "thread", "--workers", "1", "--dashboard", "none", "--out", str(tmp_path / "out")]
    assert main(["backtest", write(tmp_path, CONFIGS), *common]) == 0
    assert pd.read_parquet(tmp_path / "out" / "backtests.parquet")["symbol"].tolist() == ["AAPL", "AAPL", "IBM"]


def test_a_setting_of_another_kind_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", write(tmp_path, OURS + "keep: five\n"), "--out", str(tmp_path / "out")]) == 2
    assert (
        capsys.readouterr().err == "admf-dask: keep must be \"all\" or a whole number of at least 1, but got 'five'\n"
    )


@pytest.mark.parametrize("command", ["optimize", "backtest"])
def test_tables_that_cannot_be_saved_are_said_below_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = tmp_path / "out"
    path = write(tmp_path, OURS if command == "optimize" else CONFIGS)
    settings = ["--mode", "thread", "--workers", "1", "--dashboard", "none", "--out", str(out)]
    # Something in the way of a file, as a full disk is.
    table = out / ("results.parquet" if command == "optimize" else "backtests.parquet")
    table.mkdir(parents=True)
    assert main([command, path, *settings]) == 2
    printed = capsys.readouterr()
    assert re.search("Sharpe ratio" if command == "optimize" else "sharpe_ratio", printed.out)
    assert re.search(rf"admf-dask: the tables cannot be saved in {out}: .*; make room .* --out {out}: ", printed.err)
    table.rmdir()
    assert main([command, path, *settings]) == 0


def test_random_search_takes_a_sample(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, ADMF.replace("method: grid", "method: random, num_trials: 4, seed: 2")))
    assert len(study.space) == 4


def test_a_csv_with_one_price_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"date": ["2020-01-02", "2020-01-01"], "close": [2.0, 1.0]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    text = OURS.replace("{symbol: FB}", "{symbol: X, file: x.csv, sort: true}")
    prices = load_study(write(tmp_path, text)).data.load()
    assert prices["open"].tolist() == [1.0, 2.0]
    frame.drop(columns="close").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=r"x\.csv has no column 'open'"):
        load_study(write(tmp_path, text)).data.load()


def test_the_builtin_study_is_about_ten_thousand_backtests_on_real_prices() -> None:
    study = builtin_study()
    evaluated = len(study.space.get_combinations())
    assert 9_000 < evaluated < 11_000
    assert len(study.data.load()) == 3_270
    assert study.backtest == {"commission": 0.001}


def test_resources_shows_the_machine_and_every_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resources", "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["machine", "rule", "process", "thread", "hybrid"]
    assert "2 processes x 1 thread" in lines[2]


def test_bad_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["optimise"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("admf-dask 0.")


def test_a_reader_that_leaves_early_loses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, OURS)
    with subprocess.Popen(
        [sys.executable, "-m", "admf_dask", "optimize", path, "--out", str(tmp_path / "out")],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
    ) as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        said = command.stderr.read()
    assert command.returncode == 0
    assert "Traceback" not in said
    assert (tmp_path / "out" / "results.parquet").exists()


@pytest.mark.cluster
def test_the_command_runs_in_process_mode_from_a_shell(tmp_path: Path) -> None:
    path = write(tmp_path, OURS.replace("mode: thread", "mode: process"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "admf_dask", "optimize", path],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes x 1 thread" in done.stdout
    assert len(list(tmp_path.glob("admf-dask-results/study-*/results.parquet"))) == 1


@pytest.mark.cluster
def test_ctrl_c_saves_what_was_done_and_exits_130(tmp_path: Path) -> None:
    text = OURS.replace("low: 2, high: 12", "low: 2, high: 90000").replace("[10, 20, 30]", "{low: 2, high: 90000}")
    path = write(tmp_path, text.replace("parallel:", "keep: 10\nparallel:").replace("mode: thread", "mode: process"))
    # A terminal for stderr, so that the live line says when something was found.
    terminal, stderr = os.openpty()
    with (
        open(terminal, "rb", buffering=0) as screen,
        subprocess.Popen(
            [sys.executable, "-m", "admf_dask", "optimize", path, "--out", str(tmp_path / "out")],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        ) as command,
    ):  # fmt: skip
        seen = b""
        too_long = threading.Timer(90, command.kill)
        too_long.start()
        while b"best" not in seen:
            seen += screen.read(4096)
        too_long.cancel()
        command.send_signal(signal.SIGINT)
        out, _ = command.communicate(timeout=60)
        os.close(stderr)
        while part := _read(screen):
            seen += part
    assert command.returncode == 130
    assert b"interrupted: what was done until then is saved" in seen
    assert b"Traceback" not in seen, seen.decode()
    assert "interrupted in" in out
    assert len(pd.read_parquet(tmp_path / "out" / "results.parquet")) == 10


def _read(screen: BinaryIO) -> bytes:
    try:
        return screen.read(4096)
    except OSError:
        # What Linux answers when the other end of a terminal is closed.
        return b""


def test_status_tells_how_a_run_ended_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, study = tmp_path / "out", write(tmp_path, OURS)
    assert main(["optimize", study, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^run +study \(optimize\), finished$", printed, re.MULTILINE)
    assert "33 of 33 done (100 %), 3 constrained out, 0 failed" in printed
    assert re.search(r"^best +sharpe_ratio \S+ at {'fast': \d+, 'slow': \d+}$", printed, re.MULTILINE)
    assert main(["optimize", study, "--out", str(out)]) == 0
    assert "33 from the journal" in capsys.readouterr().out


def test_a_folder_of_another_study_is_refused_until_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["optimize", write(tmp_path, OURS), "--out", str(out), "--quiet"]) == 0
    other = write(tmp_path, OURS.replace("0.001", "0.002"))
    assert main(["optimize", other, "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "Changed since: the setting commission. " in said
    assert said.endswith("On the command line: --changed anew, --changed keep, or another --out\n")
    assert main(["optimize", other, "--out", str(out), "--quiet", "--changed", "anew"]) == 0


@pytest.mark.parametrize("address", ["here", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert main(["optimize", write(tmp_path, OURS), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main(["dashboard", str(tmp_path / "out"), "--dashboard", address]) == 2
    assert f"--dashboard must be HOST:PORT, but is {address!r}" in capsys.readouterr().err


def test_status_of_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "there is no journal in" in capsys.readouterr().err


BACKTESTS = """
data: {FB: null, X: {file: x.csv, date_column: day}}
configs:
  - {class: sma_crossover, parameters: {fast: 5, slow: 20}, symbol: FB, commission: 0.001}
  - {class: rsi_reversion, parameters: {period: 5, lower: 30, upper: 70}, symbol: X}
  - {class: sma_crossover, parameters: {fast: 5, slw: 20}, symbol: FB}
parallel: {mode: thread, max_workers: 1, dashboard: null}
"""


def test_a_file_of_backtests_runs_and_names_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets.load_prices("IBM").iloc[-100:].rename_axis("day").to_csv("x.csv")
    path, out = write(tmp_path, BACKTESTS), tmp_path / "out"
    assert main(["backtest", path, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "did you mean 'slow'" in printed.err
    assert re.search(r"sma_crossover +FB", printed.out)
    table = pd.read_parquet(out / "backtests.parquet")
    assert table["symbol"].tolist() == ["FB", "X", "FB"]
    assert table["error"].notna().tolist() == [False, False, True]
    capsys.readouterr()
    # From anywhere: files are looked for beside the one that names them.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["backtest", path, "--out", str(out), "--quiet"]) == 1
    capsys.readouterr()
    for old, new, words in (
        ("configs:", "config:", "must be a list of strategy configs"),
        (
            "{FB: null, X: {file: x.csv, date_column: day}}",
            "[FB, X]",
            "`data` in .* must be a mapping such as .*, but is \\['FB', 'X'\\]",
        ),
        (
            "{file: x.csv, date_column: day}",
            "5",
            "the prices of X must be a file, a mapping with `file`, or null, but are 5",
        ),
    ):
        assert main(["backtest", write(tmp_path, BACKTESTS.replace(old, new)), "--out", str(out)]) == 2
        assert re.search(words, capsys.readouterr().err)
    assert main(["backtest", write(tmp_path, "[{class: buy_and_hold}]"), "--out", str(out)]) == 2
    assert "names no symbol; write `symbol: AAPL` in each config" in capsys.readouterr().err
    assert main(["status", str(out)]) == 1


ADMF_BACKTEST = """
mode: backtest
strategy: {name: sma_crossover, parameters: {fast_window: 5, slow: 20}, risk: high}
backtest: {initial_capital: 50000, symbols: [X, FB], timeframe: 1d}
broker: {commission: {type: percentage, rate: 0.1}, type: simulated}
data: {sources: [{symbol: X, file: x.csv, date_column: day, date_format: "%d.%m.%Y", price_column: px}], cache: true}
risk_management: {max_position: 5}
rename: {fast_window: fast}
parallel: {mode: thread, max_workers: 1, dashboard: null}
"""


def test_an_admf_file_of_a_backtest_runs_with_a_word_on_every_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = datasets.load_prices("IBM").iloc[-100:]
    pd.DataFrame({"day": prices.index.strftime("%d.%m.%Y"), "px": prices["close"]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    path, out = write(tmp_path, ADMF_BACKTEST), tmp_path / "out"
    assert main(["backtest", path, "--out", str(out)]) == 0
    said = capsys.readouterr().err
    for key in ("`risk` of the strategy", "`backtest.timeframe`", "`broker.type`", "`data.cache`", "`risk_management`"):
        assert f"note: {key}" in said
    table = pd.read_parquet(out / "backtests.parquet")
    assert table["symbol"].tolist() == ["X", "FB"]
    assert (abs(table["final_equity"] - 50000) < 30000).all()
    assert (table["n_entries"] > 0).all()
    for broken, words in (("name:", "needs `strategy: {name: ...}`"), ("symbol: X", "must be a mapping with `symbol`")):
        wrong = write(tmp_path, ADMF_BACKTEST.replace(broken, "nme:", 1))
        assert main(["backtest", wrong, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err


def test_symbols_are_processed_from_a_shell_and_failures_are_in_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "prices", tmp_path / "out"
    data.mkdir()
    for name in ("AAA", "BBB", "BAD"):
        pd.DataFrame({"close": [1.0, 2.0, 3.0]}).to_parquet(data / f"{name}.parquet")
    command = ["process", "--function", "symbol_work:features", "--data", str(data), "--out", str(out)]
    settings = ["--mode", "thread", "--workers", "1", "--dashboard", "none", "--option", "window=2"]
    assert main([*command, *settings, "--quiet", "--symbols", "AAA,BBB"]) == 0
    assert capsys.readouterr() == ("", "")
    assert pd.read_parquet(out / "AAA.parquet")["mean"].tolist()[1:] == [1.5, 2.5]
    assert main([*command, *settings]) == 1
    printed = capsys.readouterr()
    assert re.search(
        r"2 symbols \(2 skipped as unchanged\), 1 failed; 6 rows \(.*\) in, 6 rows \(.*\) out, in .*; .* s?",
        printed.out,
    )
    assert "1 failed (first: BAD: ValueError: no volume)" in printed.err
    assert "symbol_work.py" in pd.read_csv(out / "failures.csv").loc[0, "traceback"]
    assert main([*command, *settings, "--symbols", "BAD"]) == 1
    assert "1 failed (first: BAD: ValueError: no volume); all with their tracebacks in" in capsys.readouterr().err
    assert main([*command, *settings, "--quiet", "--symbols", "AAA"]) == 0
    assert not (out / "failures.csv").exists(), "the failures of an earlier run"
    assert main([*command, *settings, "--symbols", "names.txt"]) == 2
    assert "--symbols names.txt does not exist; give a file" in capsys.readouterr().err
    assert main([*command[:-1], str(data / "AAA.parquet"), *settings]) == 2
    assert "cannot be written to: File exists; give another out=" in capsys.readouterr().err


def test_quiet_on_a_busy_machine_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Machine(cpu_count=2, memory_total=8 * 2**30, memory_available=7 * 2**30, cpu_percent=100.0)
    monkeypatch.setattr(Machine, "probe", classmethod(lambda cls, **_: busy))
    pd.DataFrame({"close": [1.0, 2.0, 3.0]}).to_parquet(tmp_path / "AAA.parquet")
    command = ["process", "--function", "symbol_work:features", "--data", str(tmp_path), "--symbols", "AAA"]
    command += ["--mode", "thread", "--dashboard", "none", "--out", str(tmp_path / "out")]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(command) == 0
    assert "no headroom, so one worker is used: the 2 CPUs are 100 % busy" in capsys.readouterr().err


@pytest.mark.cluster
def test_from_cron_the_log_is_sparse_and_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    """No terminal, whole lines; interrupted it exits 130, and the same command goes on."""
    (tmp_path / "names.txt").write_text("\n".join(f"S{n:04d}" for n in range(600)))
    out, here = tmp_path / "out", Path(__file__).parent
    command = [sys.executable, "-W", "error", "-m", "admf_dask", "process", "--symbols", "names.txt", "--out", str(out)]
    command += ["--function", "symbol_work:slow_row", "--workers", "2", "--dashboard", "none"]
    environment = ENVIRONMENT | {
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{here}",
    }
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
        "text": True,
    }
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as driver:
        while len(list(out.glob("S*.parquet"))) < 20:
            assert driver.poll() is None
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert re.search(r"^interrupted: \d+ symbols are done; what was written is in .* goes on$", said, re.MULTILINE)
    assert "Traceback" not in said
    assert "\r" not in said
    assert "\x1b" not in said
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=120, **{**pipes, "stdin": subprocess.DEVNULL})
    assert done.returncode == 0, done.stderr
    assert re.match(r"600 symbols \(\d+ skipped as unchanged\); 600 rows", done.stdout)
    assert len(done.stderr.splitlines()) <= 12, "at most a line a tenth"
    quiet = subprocess.run([*command, "--quiet"], cwd=tmp_path, env=environment, timeout=120, **pipes)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--function", "symbol_work"], "must be package.module:function"),
        (["--function", "symbol_work:nothing"], "cannot be loaded"),
        (["--function", "symbol_work:features", "--option", "window"], "must be key=value"),
        (["--function", "symbol_work:features", "--data", "none"], "does not exist"),
        (
            ["--function", "symbol_work:features", "--option", "window={"],
            "the value of --option window={ cannot be read as YAML",
        ),
        (["--function", "symbol_work:features", "--symbols", ""], "--symbols names none"),
        (
            ["--function", "symbol_work:features", "--symbols", "A", "--timeout", "-1"],
            "timeout counts seconds for one item",
        ),
        (["--function", "breaks_at_import:f"], "cannot be loaded: ZeroDivisionError: division by zero ("),
        (["--function", "is_no_python:f"], "cannot be loaded: SyntaxError: "),
    ],
)
def test_wrong_use_of_process_is_exit_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "breaks_at_import.py").write_text("print(1 / 0)")
    (tmp_path / "is_no_python.py").write_text("def f(:")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["process", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_one_name_as_symbols_says_which_prices_are_meant(tmp_path: Path) -> None:
    path = write(tmp_path, "- {class: buy_and_hold, symbols: IBM}\n")
    common = ["--mode", "thread", "--workers", "1", "--dashboard", "none", "--out", str(tmp_path / "out")]
    assert main(["backtest", path, *common]) == 0
    assert pd.read_parquet(tmp_path / "out" / "backtests.parquet")["symbol"].tolist() == ["IBM"]
