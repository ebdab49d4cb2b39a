"""Crossovers as compiled loops by hand, the plain one of an afternoon and a tuned one: what a toolkit has to be measured by.

Both fill `out`, shape (n, 3), with final equity, maximum drawdown and Sharpe ratio of each pair of windows.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def plain_loop(opens, closes, fast, slow, fees, out):  # type: ignore[no-untyped-def]
    """One pass a pair, with running sums."""
    for k in range(len(fast)):
        a, b, cash, quantity, target = fast[k], slow[k], 1e6, 0.0, 0
        sum_a = sum_b = total = squares = worst = 0.0
        equity = peak = 1e6
        for t in range(len(closes)):
            if target == 1 and quantity == 0.0:
                quantity = cash / (opens[t] * (1 + fees))
                cash = 0.0
            elif target == 0 and quantity > 0.0:
                cash += quantity * opens[t] * (1 - fees)
                quantity = 0.0
            sum_a += closes[t] - (closes[t - a] if t >= a else 0.0)
            sum_b += closes[t] - (closes[t - b] if t >= b else 0.0)
            target = 1 if t >= max(a, b) - 1 and sum_a / a > sum_b / b else 0
            before, equity = equity, cash + quantity * closes[t]
            change = equity / before - 1
            total += change
            squares += change * change
            peak = max(peak, equity)
            worst = max(worst, 1 - equity / peak)
        out[k] = equity, worst, _sharpe(total, squares, len(closes) - 1)


@numba.njit(nogil=True, cache=True)
def tuned_loop(opens, closes, fast, slow, fees, out):  # type: ignore[no-untyped-def]
    """One pass a pair, over sums made once, with no work on flat bars and a division for each new low only."""
    bars = len(closes)
    sums, moves = np.zeros(bars + 1), np.zeros(bars)
    for t in range(bars):
        sums[t + 1] = sums[t] + closes[t]
        moves[t] = closes[t] / closes[t - 1] - 1 if t else 0.0
    for k in range(len(fast)):
        a, b, cash, quantity = fast[k], slow[k], 1e6, 0.0
        total = squares = worst = 0.0
        equity = peak = floor = 1e6
        held = False
        for t in range(max(a, b), bars):
            wanted = (sums[t] - sums[t - a]) * b > (sums[t] - sums[t - b]) * a
            if not (held or wanted):
                continue
            if wanted and held:
                change = moves[t]
                equity = quantity * closes[t]
            else:
                before = equity
                if wanted:
                    quantity = cash / (opens[t] * (1 + fees))
                    equity = quantity * closes[t]
                else:
                    equity = cash = quantity * opens[t] * (1 - fees)
                change, held = equity / before - 1, wanted
            total += change
            squares += change * change
            if equity > peak:
                peak, floor = equity, equity * (1 - worst)
            elif equity < floor:
                worst, floor = 1 - equity / peak, equity
        out[k] = equity, worst, _sharpe(total, squares, bars - 1)


@numba.njit(inline="always", cache=True)
def _sharpe(total, squares, count):  # type: ignore[no-untyped-def]
    mean = total / count
    deviation = np.sqrt(max(0.0, (squares - count * mean * mean) / (count - 1)))
    return mean / deviation * np.sqrt(252.0) if deviation > 0 else np.nan
