"""Compiled backtests of whole chunks of a parameter grid: O(bars) a combination, nothing kept between combinations.

Imported only where a backtest runs, because numba takes half a second to load. The compiled code is cached on disk, beside
this file or, where that is not writable, in numba's folder of the user.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from admf_dask.engine import rules

_inline = numba.njit(inline="always", cache=True)
fill_price = _inline(rules.fill_price)
cash_after_close = _inline(rules.cash_after_close)
quantity_to_open = _inline(rules.quantity_to_open)
cash_after_open = _inline(rules.cash_after_open)

METRICS = ("sharpe_ratio", "total_return", "max_drawdown", "final_equity", "n_trades", "n_entries", "n_fills")


@numba.njit(nogil=True, cache=True)
def sma_crossover(  # type: ignore[no-untyped-def]
    sums, opens, closes, fast, slow, low, next_open, commission, slippage, initial_cash, periods_per_year, out
):
    """Fill `out`, shape (7, n), with METRICS for each pair of windows.

    `sums` are the running sums of the closes in whole units (shape (bars + 1,)), so that a tie of the two means is an exact tie:
    `sumA / fast` against `sumB / slow` is compared as `sumA * slow` against `sumB * fast`.
    """
    bars = len(closes)
    for k in range(len(fast)):
        a, b = fast[k], slow[k]
        cash, quantity, held = initial_cash, 0.0, 0.0
        equity = peak = initial_cash
        drawdown = total = squares = 0.0
        trades = entries = fills = 0
        target = 0.0
        for t in range(bars):
            price = opens[t] if next_open else closes[t]
            if not next_open and t < bars - 1:
                target = _target(sums, t, a, b, low)
            if target != held and (next_open or t < bars - 1):
                if held != 0.0:
                    cash = cash_after_close(cash, quantity, fill_price(price, -held, slippage), commission)
                    quantity = 0.0
                    trades += 1
                    fills += 1
                if target != 0.0 and cash > 0.0:
                    paid = fill_price(price, target, slippage)
                    quantity = quantity_to_open(target, cash, paid, commission)
                    cash = cash_after_open(cash, quantity, paid, commission)
                    entries += 1
                    fills += 1
                    held = target
                else:
                    held = 0.0
            before = equity
            equity = cash + quantity * closes[t]
            if t > 0 and equity != before:
                change = equity / before - 1.0
                total += change
                squares += change * change
            if t == 0 or equity > peak:
                peak = equity
            elif 1.0 - equity / peak > drawdown:
                drawdown = 1.0 - equity / peak
            if equity <= 0.0:
                # Ruined: the book is closed where it stands, and nothing more happens.
                break
            if next_open:
                target = _target(sums, t, a, b, low)
        out[0, k] = _sharpe(total, squares, bars - 1, periods_per_year)
        out[1, k] = equity / initial_cash - 1.0
        out[2, k] = drawdown
        out[3, k] = equity
        out[4, k] = trades
        out[5, k] = entries
        out[6, k] = fills


@numba.njit(inline="always", cache=True)
def _target(sums, t, a, b, low):  # type: ignore[no-untyped-def]
    longest = max(a, b)
    if t < longest - 1:
        return 0.0
    left = (sums[t + 1] - sums[t + 1 - a]) * b
    right = (sums[t + 1] - sums[t + 1 - b]) * a
    if left > right:
        return 1.0
    return low if left < right else 0.0


@numba.njit(inline="always", cache=True)
def _sharpe(total, squares, count, periods_per_year):  # type: ignore[no-untyped-def]
    if count < 2:
        return math.nan
    mean = total / count
    variance = (squares - count * mean * mean) / (count - 1)
    # Below the rounding of the sums a deviation cannot be told from none.
    if variance <= 1e-15 * squares or variance <= 0.0:
        return math.nan
    return mean / math.sqrt(variance) * math.sqrt(periods_per_year)


def exact_sums(
    closes: np.ndarray[tuple[int], np.dtype[np.float64]], longest: int
) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """Running sums, shape (bars + 1,): int64 in millionths where the closes have up to six decimals, else float64."""
    scaled = np.round(closes * 1e6)
    exact = bool(np.all(np.abs(scaled / 1e6 - closes) <= np.abs(closes) * 1e-15))
    fits = len(closes) and float(np.abs(scaled).max()) * max(len(closes), longest * longest) < 2**62
    values = scaled.astype(np.int64) if exact and fits else closes
    return np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
