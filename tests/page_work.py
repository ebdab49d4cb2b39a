"""Objectives that the page's tests watch."""

from __future__ import annotations

import os
import time
from typing import Any

from cluster_work import wait_for_file


def score(params: dict[str, Any]) -> dict[str, float]:
    time.sleep(0.004)
    if params["fast"] == 5 and params["slow"] == 40:
        raise ValueError(f"<script>window.stolen = 1</script> bars of {params['fast']}")
    return {"sharpe": 1.0 - (params["fast"] - 8) ** 2 / 100 - (params["slow"] - 60) ** 2 / 9000, "trades": 3.0}


def waits_at_the_end(params: dict[str, Any]) -> dict[str, float]:
    """As `score`, but the last combination waits for a file.

    The one before takes so long that a worker tells what it has before it begins the last.
    """
    if params["fast"] == 15 and params["slow"] == 100:
        if params["stop"] == 0.1:
            wait_for_file(os.environ["ADMF_TEST_GATE"])
        else:
            time.sleep(0.6)
    return score(params)
