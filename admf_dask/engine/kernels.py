"""Compiled backtests of whole chunks of a parameter grid: O(bars) a combination, nothing kept between combinations.

A kernel of a strategy writes the targets of one combination into a buffer of one byte a bar; `walk` does the book over them.
Imported only where a backtest runs, because numba takes half a second to load. The compiled code is cached on disk, beside
this file or, where that is not writable, in numba's folder of the user.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from admf_dask.engine import rules

_inline = numba.njit(inline="always", cache=True)
fill_price = _inline(rules.fill_price)
cash_after_close = _inline(rules.cash_after_close)
quantity_to_open = _inline(rules.quantity_to_open)
cash_after_open = _inline(rules.cash_after_open)

METRICS = ("sharpe_ratio", "total_return", "max_drawdown", "final_equity", "n_trades", "n_entries", "n_fills")
FILL_FIELDS = 4
"""Bar, quantity, price, commission paid."""


def _walk(  # type: ignore[no-untyped-def]
    opens,
    closes,
    targets,
    next_open,
    commission,
    slippage,
    initial_cash,
    lot,
    periods_per_year,
    out,
    equities,
    fills_out,
):
    """Do the book over `targets`, int8 of shape (bars,), and fill `out`, shape (7,), with METRICS.

    Where it is compiled to note, `equities`, shape (bars,), takes the equity after each bar, and `fills_out`, shape (m, 4), the
    fills, of which there are `out[6]`. Returns whether the book was ruined.
    """
    bars = len(closes)
    cash, quantity, held = initial_cash, 0.0, 0
    equity = peak = initial_cash
    drawdown = total = squares = 0.0
    trades = entries = fills = 0
    note = len(fills_out) > 0
    ruined = False
    floor = peak
    t = 0
    while t < bars and not ruined:
        target = (targets[t - 1] if t > 0 else 0) if next_open else (targets[t] if t < bars - 1 else held)
        if target != held:
            price = opens[t] if next_open else closes[t]
            if held != 0:
                got = fill_price(price, -float(held), slippage)
                cash = cash_after_close(cash, quantity, got, commission)
                if note:
                    fills_out[fills, 0], fills_out[fills, 1], fills_out[fills, 2] = t, -quantity, got
                    fills_out[fills, 3] = abs(quantity) * got * commission
                quantity = 0.0
                trades += 1
                fills += 1
            held = 0
            if target != 0 and cash > 0.0:
                paid = fill_price(price, float(target), slippage)
                quantity = rounded(quantity_to_open(float(target), cash, paid, commission), lot)
                if quantity != 0.0:
                    cash = cash_after_open(cash, quantity, paid, commission)
                    if note:
                        fills_out[fills, 0], fills_out[fills, 1], fills_out[fills, 2] = t, quantity, paid
                        fills_out[fills, 3] = abs(quantity) * paid * commission
                    entries += 1
                    fills += 1
                    held = target
        # This bar, and all that follow with the same target: one short loop.
        while True:
            before = equity
            equity = cash + quantity * closes[t]
            if note:
                equities[t] = equity
            if t > 0:
                change = equity / before - 1.0
                total += change
                squares += change * change
            if equity > peak or t == 0:
                peak = equity
                floor = peak * (1.0 - drawdown)
            elif equity < floor:
                drawdown = 1.0 - equity / peak
                floor = equity
            if equity <= 0.0:
                # Ruined: the book is closed where it stands, and nothing more happens.
                ruined = True
                if note:
                    equities[t:] = equity
                break
            t += 1
            if t >= bars or (targets[t - 1] if next_open else (targets[t] if t < bars - 1 else held)) != held:
                break
            if held == 0:
                # Flat, and staying so: nothing changes until the next target.
                while t < bars and (targets[t - 1] if next_open else (targets[t] if t < bars - 1 else 0)) == 0:
                    if note:
                        equities[t] = equity
                    t += 1
                break
    out[0] = _sharpe(total, squares, bars - 1, periods_per_year)
    out[1] = equity / initial_cash - 1.0
    out[2] = drawdown
    out[3] = equity
    out[4] = trades
    out[5] = entries
    out[6] = fills
    return ruined


walk = numba.njit(nogil=True, cache=True)(_walk)
"""Notes equities and fills where `fills_out` has room; what a chunk calls below, with constant empty arrays, does not."""


@numba.njit(inline="always", cache=True)
def rounded(quantity, lot):  # type: ignore[no-untyped-def]
    """Towards zero to whole lots; 0 is no rounding."""
    if lot <= 0.0:
        return quantity
    return math.copysign(math.floor(abs(quantity) / lot) * lot, quantity) if abs(quantity) >= lot else 0.0


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


@numba.njit(nogil=True, cache=True)
def sma_targets(sums, fast, slow, low, targets):  # type: ignore[no-untyped-def]
    """`sums`: running sums of the closes in whole units, shape (bars + 1,), so that a tie of the two means is an exact tie.

    `sumA / fast` against `sumB / slow` is compared as `sumA * slow` against `sumB * fast`.
    """
    longest = max(fast, slow)
    up, down, flat = np.int8(1), np.int8(low), np.int8(0)
    targets[: min(longest - 1, len(targets))] = 0
    for t in range(longest - 1, len(targets)):
        left = (sums[t + 1] - sums[t + 1 - fast]) * slow
        right = (sums[t + 1] - sums[t + 1 - slow]) * fast
        targets[t] = up if left > right else (down if left < right else flat)


@numba.njit(nogil=True, cache=True)
def wilder_rsi(closes, period, rsi):  # type: ignore[no-untyped-def]
    """Wilder's RSI, shape (bars,); NaN before bar `period` and where nothing moved."""
    rsi[:] = math.nan
    up = down = 0.0
    for t in range(1, len(closes)):
        change = closes[t] - closes[t - 1]
        gain, loss = max(change, 0.0), max(-change, 0.0)
        if t < period:
            up += gain
            down += loss
            continue
        if t == period:
            up, down = (up + gain) / period, (down + loss) / period
        else:
            up, down = (up * (period - 1) + gain) / period, (down * (period - 1) + loss) / period
        if down > 0.0:
            rsi[t] = 100.0 - 100.0 / (1.0 + up / down)
        elif up > 0.0:
            rsi[t] = 100.0


@numba.njit(nogil=True, cache=True)
def rsi_targets(rsi, lower, upper, low, targets):  # type: ignore[no-untyped-def]
    """+1 below `lower`, `low` above `upper`, else as before."""
    target = 0
    for t in range(len(targets)):
        if rsi[t] < lower:
            target = 1
        elif rsi[t] > upper:
            target = low
        targets[t] = target


@numba.njit(nogil=True, cache=True)
def rolling_extreme(values, window, sign, queue, out):  # type: ignore[no-untyped-def]
    """`out[t] = sign * max(sign * values[t-window .. t-1])` in one pass; NaN while there are fewer bars."""
    head = tail = 0
    for t in range(len(values)):
        if t >= window:
            while queue[head] < t - window:
                head += 1
            out[t] = values[queue[head]]
        else:
            out[t] = math.nan
        while tail > head and sign * values[queue[tail - 1]] <= sign * values[t]:
            tail -= 1
        queue[tail] = t
        tail += 1


@numba.njit(nogil=True, cache=True)
def donchian_targets(closes, above, below, start, low, targets):  # type: ignore[no-untyped-def]
    """+1 above the upper channel, `low` below the lower one, else as before; 0 before `start`."""
    target = 0
    for t in range(len(targets)):
        if t >= start:
            if closes[t] > above[t]:
                target = 1
            elif closes[t] < below[t]:
                target = low
        targets[t] = target


def exact_sums(closes: NDArray[np.float64], longest: int) -> NDArray[Any]:
    """Running sums in millionths, shape (bars + 1,): exact over prices that have up to six decimals.

    As whole numbers in float64, which is faster, where products with the windows stay below 2^53; else in int64 if all fit. A
    price with more decimals is summed as it is, from its bar on, in the order in which the event-driven strategy does it too.
    """
    scaled = np.round(closes * 1e6)
    exact = np.abs(scaled / 1e6 - closes) <= np.abs(closes) * 1e-15
    largest = float(np.abs(scaled).max(initial=0)) * max(len(closes), longest * longest)
    values: NDArray[Any] = np.where(exact, scaled, closes * 1e6)
    if exact.all() and 2**53 <= largest < 2**62:
        values = scaled.astype(np.int64)
    return np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])


@numba.njit(nogil=True, cache=True)
def sma_chunk(  # type: ignore[no-untyped-def]
    sums, opens, closes, fast, slow, low, next_open, commission, slippage, cash, lot, periods_per_year, out
):
    """A chunk of crossovers in one call that holds no interpreter; `out` has shape (n, 7)."""
    targets = np.empty(len(closes), np.int8)
    nothing, no_fills = np.empty(0), np.empty((0, 4))
    for k in range(len(fast)):
        sma_targets(sums, fast[k], slow[k], low, targets)
        walk(
            opens,
            closes,
            targets,
            next_open,
            commission,
            slippage,
            cash,
            lot,
            periods_per_year,
            out[k],
            nothing,
            no_fills,
        )


@numba.njit(nogil=True, cache=True)
def rsi_chunk(  # type: ignore[no-untyped-def]
    opens, closes, order, period, lower, upper, low, next_open, commission, slippage, cash, lot, periods_per_year, out
):
    """A chunk of RSI reversions, in the `order` of their periods: each period's RSI is computed once."""
    targets = np.empty(len(closes), np.int8)
    rsi = np.empty(len(closes))
    nothing, no_fills = np.empty(0), np.empty((0, 4))
    last = -1
    for k in order:
        if period[k] != last:
            wilder_rsi(closes, period[k], rsi)
            last = period[k]
        rsi_targets(rsi, lower[k], upper[k], low, targets)
        walk(
            opens,
            closes,
            targets,
            next_open,
            commission,
            slippage,
            cash,
            lot,
            periods_per_year,
            out[k],
            nothing,
            no_fills,
        )


@numba.njit(nogil=True, cache=True)
def donchian_chunk(  # type: ignore[no-untyped-def]
    opens,
    highs,
    lows,
    closes,
    order,
    entry,
    leave,
    low,
    next_open,
    commission,
    slippage,
    cash,
    lot,
    periods_per_year,
    out,
):
    """A chunk of breakouts, in the `order` of their entry windows: each upper channel is computed once."""
    targets = np.empty(len(closes), np.int8)
    above, below, queue = np.empty(len(closes)), np.empty(len(closes)), np.empty(len(closes), np.int64)
    nothing, no_fills = np.empty(0), np.empty((0, 4))
    last_entry = last_leave = -1
    for k in order:
        if entry[k] != last_entry:
            rolling_extreme(highs, entry[k], 1.0, queue, above)
            last_entry = entry[k]
        if leave[k] != last_leave:
            rolling_extreme(lows, leave[k], -1.0, queue, below)
            last_leave = leave[k]
        donchian_targets(closes, above, below, max(entry[k], leave[k]), low, targets)
        walk(
            opens,
            closes,
            targets,
            next_open,
            commission,
            slippage,
            cash,
            lot,
            periods_per_year,
            out[k],
            nothing,
            no_fills,
        )
