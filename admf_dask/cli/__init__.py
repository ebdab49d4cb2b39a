"""The command `admf-dask`. Exit codes: 0 all good, 1 some items failed, 2 bad usage or input, 130 interrupted."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from admf_dask import __version__
from admf_dask.cli.codes import BAD_INPUT, INTERRUPTED
from admf_dask.errors import AdmfError

STUDY = """\
strategy: sma_crossover
parameters: {fast: {low: 2, high: 50}, slow: {low: 10, high: 200, step: 5}}
constraints: ["fast < slow"]
data: {symbol: AAPL}          # installed; or {symbol: X, file: x.csv, start: 2005-01-31}
backtest: {commission: 0.001} # 0.1 % of what is traded
"""
CONFIGS = """\
- {class: sma_crossover, parameters: {fast: 10, slow: 50}, symbol: AAPL, commission: 0.001}
- {class: buy_and_hold, symbols: [AAPL, IBM]}
"""
_STRATEGIES = "Strategies: buy_and_hold, donchian_breakout, rsi_reversion, sma_crossover, or package.module:Class."
_FUNCTION = """\
features.py:
    def add(symbol, frame, window=20):
        return frame.assign(average=frame["close"].rolling(window).mean())

admf-dask process --function features:add --data prices --out features --option window=50
reads prices/AAPL.csv and so on, and writes features/AAPL.parquet and so on.
"""


def command() -> int:
    """`main` for a process that is there for nothing else: workers are forked from it."""
    parsed = _parser().parse_args()
    module = {_optimize: "optimize", _backtest: "backtest", _process: "process"}.get(parsed.run)
    if module and parsed.mode != "thread" and parsed.scheduler is None:
        from admf_dask.runtime.forkserver import begin_as_parent, fork_server

        if begin_as_parent("admf-dask"):
            fork_server(f"{__name__}.{module}")
    return _run(parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. What a user did wrong is one message on stderr, without a traceback."""
    return _run(_parser().parse_args(arguments))


def _run(parsed: argparse.Namespace) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = parsed.run(parsed)
    except AdmfError as error:
        print(f"admf-dask: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("admf-dask: interrupted before anything new was done", file=sys.stderr)
        return INTERRUPTED
    return code


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as a sentence, without the line of code that it came from."""
    print(f"admf-dask: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="admf-dask", description="Parameter grids over real prices on a Dask cluster that fits the machine."
    )
    parser.add_argument("--version", action="version", version=f"admf-dask {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_optimize, _add_backtest, _add_process):
        _common(add(commands))
    resources = commands.add_parser("resources", help="show the machine as seen, and the layout of each mode")
    resources.set_defaults(run=_resources)
    _common(resources)
    status = commands.add_parser("status", help="how far a run is, or how it ended, from the journal in its folder")
    status.add_argument("directory", metavar="DIR", help="the --out of the run, or the folder of its journal")
    status.set_defaults(run=_status)
    dashboard = commands.add_parser(
        "dashboard", help="the page over a journal, in a browser: a run under way, or one that ended"
    )
    dashboard.add_argument("directory", metavar="DIR", help="the --out of the run, or the folder of its journal")
    dashboard.add_argument(
        "--dashboard", metavar="HOST:PORT", help="where to serve it (default: loopback, a free port)"
    )
    dashboard.set_defaults(run=_dashboard)
    return parser


def _add_optimize(commands: Commands) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "optimize", help="evaluate a parameter space; without a file the built-in study",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"A study:\n\n{STUDY}\n{_STRATEGIES}",
    )  # fmt: skip
    command.add_argument(
        "study", nargs="?", metavar="STUDY.yaml", help="a study file; the built-in study on real prices if left out"
    )
    command.add_argument(
        "--out", metavar="DIR", help="where to save the tables and the heatmap (default: admf-dask-results/NAME-TIME)"
    )
    command.add_argument(
        "--changed", choices=("refuse", "anew", "keep"), default="refuse",
        help="with an --out that holds results of another study or other prices: refuse (default), drop them, or keep both",
    )  # fmt: skip
    command.add_argument(
        "--retry-failed", action="store_true", help="evaluate again what an earlier run recorded as failed"
    )
    command.set_defaults(run=_optimize)
    return command


def _add_backtest(commands: Commands) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "backtest", help="run the backtests of a file of strategy configs",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"A file of configs:\n\n{CONFIGS}\n{_STRATEGIES}",
    )  # fmt: skip
    command.add_argument(
        "configs", metavar="CONFIGS.yaml", help="a list of configs, or `configs:`, `data:`, `parallel:`"
    )
    command.add_argument(
        "--out", metavar="DIR", help="where to save the tables (default: admf-dask-results/backtests-TIME)"
    )
    command.set_defaults(run=_backtest)
    return command


def _add_process(commands: Commands) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "process", help="apply a function to many symbols, and write what it returns to files",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_FUNCTION,
    )  # fmt: skip
    command.add_argument(
        "--symbols", metavar="FILE_OR_LIST", help="a file (text, CSV, JSON) or A,B,C; all of --data if left out"
    )
    command.add_argument(
        "--function", required=True, metavar="package.module:function", help="function(symbol[, frame], **options)"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="each returned frame goes to DIR/SYMBOL.parquet")
    command.add_argument("--data", metavar="DIR", help="a folder, or a pattern such as prices/{symbol}.parquet")
    command.add_argument(
        "--option", action="append", default=[], metavar="key=value", help="an option of the function; repeatable"
    )
    _reading(command)
    command.add_argument("--force", action="store_true", help="do all again, also what is unchanged")
    command.add_argument("--timeout", type=float, metavar="SECONDS", help="for one symbol")
    command.set_defaults(run=_process)
    return command


def _reading(parser: argparse.ArgumentParser) -> None:
    """How price files are read; without any of these they are read as they are."""
    parser.add_argument("--date-column", metavar="NAME", help="the column of --data files that becomes the index")
    parser.add_argument(
        "--date-format", metavar="FORMAT", help="such as %%d.%%m.%%Y, or s, ms, us, ns; ISO 8601 if left out"
    )
    parser.add_argument("--timezone", metavar="NAME", help="dates without a timezone are in this one, others converted")
    parser.add_argument("--separator", metavar="CHARACTER", help="between the columns of CSV, if not a comma")
    parser.add_argument("--decimal", metavar="CHARACTER", help="before the decimals of numbers in CSV, if not a point")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="new=old",
        help="a new name for a column of the files; repeatable",
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mode", choices=("process", "thread", "hybrid"), help="how workers are laid out")
    parser.add_argument("--workers", type=int, metavar="N", help="slots (processes x threads); 0 is automatic")
    parser.add_argument(
        "--threads-per-process", type=int, metavar="T", help="threads of each process, for --mode hybrid"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler such as tcp://host:8786")
    parser.add_argument("--dashboard", metavar="HOST:PORT", help="'auto' (default), host:port, or 'none'")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors and where the results are")


def _optimize(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.optimize import run

    return run(parsed)


def _backtest(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.backtest import run

    return run(parsed)


def _process(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.process import run

    return run(parsed)


def _status(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.status import run

    return run(parsed)


def _dashboard(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.dashboard import run

    return run(parsed)


def _resources(parsed: argparse.Namespace) -> int:
    from admf_dask.cli.resources import run

    return run(parsed)
