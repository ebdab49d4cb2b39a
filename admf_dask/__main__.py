"""`python -m admf_dask` is the command `admf-dask`."""

from __future__ import annotations

import sys

from admf_dask.cli import command

if __name__ == "__main__":
    sys.exit(command())
