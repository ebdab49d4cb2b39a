"""Make `docs/page.png` again: the page of an optimisation on real prices while it runs, in a real browser.

    python docs/page.py [FILE]

6,720 combinations of a moving-average crossover with a stop on Apple's daily closes, each a plain pandas evaluation of about
a millisecond. Needs the extra `test` and Chromium.
"""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from admf_dask import ParallelOptimizer, ParameterSpace, Session, datasets

SPACE = ParameterSpace(
    {"fast": range(4, 60, 2), "slow": range(20, 260, 8), "stop": [0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15]},
    constraints=["fast < slow"],
)


def sharpe(params: dict[str, Any], closes: pd.Series) -> dict[str, float]:
    """Long while the fast mean is above the slow one, out for the day after a fall of `stop` from the month's high."""
    fast, slow = closes.rolling(params["fast"]).mean(), closes.rolling(params["slow"]).mean()
    held = (fast > slow) & (closes > closes.rolling(21).max() * (1 - params["stop"]))
    if params["fast"] == 36 and params["slow"] == 60:
        raise ValueError(f"the fast mean of {params['fast']} bars has a gap")
    returns = closes.pct_change().to_numpy() * held.shift(1, fill_value=False).to_numpy()
    returns = returns[params["slow"] :]
    return {"sharpe_ratio": float(np.sqrt(252) * returns.mean() / returns.std()), "days": float(held.sum())}


def main(target: Path) -> None:
    """Run, wait until more than half is done, take the picture, stop."""
    closes = datasets.load_prices("AAPL")["close"]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with Session(mode="process", workers=2, dashboard="127.0.0.1:0") as session, sync_playwright() as playwright:

        def run() -> None:
            optimizer = ParallelOptimizer(session=session)
            optimizer.optimize(
                SPACE, sharpe, data=closes, score="sharpe_ratio", name="AAPL moving averages", progress=False
            )

        thread = threading.Thread(target=run)
        thread.start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(str(session.dashboard_link))
        page.get_by_text("Leaderboard").filter(visible=True).first.wait_for()
        page.wait_for_function(
            "Bokeh.documents[0].get_model_by_name('tiles').text.match(/>(6[0-9]|[789][0-9])[.][0-9] %/)",
            timeout=300_000,
        )
        page.screenshot(path=str(target), full_page=True)
        browser.close()
        thread.join()
    # A page has few colours, and a third of the bytes with a table of them.
    Image.open(target).convert("RGB").quantize(192).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
