"""Compiled backtests of whole chunks of a parameter grid: O(bars) a combination, nothing kept between combinations.

A kernel of a strategy writes the targets of one combination into a buffer of one byte a bar; `walk` does the book over them.
While a long position stays open, the equity is a multiple of the close, so what those bars add to the figures is read from a
`tape` of the prices that all combinations of a chunk share (sums of returns, extremes of blocks of bars): a held run costs
O(bars / 16), a flat one a scan for the next target. Other books, and those that note their equity, are done bar by bar.

Loops are over slices that begin where they should, because an index that could be negative keeps a loop from being vectorised.
Compiled functions make no array, for the sake of `compiled`; what they work in is made by the functions around them.
Imported only where a backtest runs, because numba takes half a second to load. The compiled code is cached on disk, beside
this file or, where that is not writable, in numba's folder of the user.

One module, and longer than others: its functions become part of each other, and all of them must be known before one is called.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine import rules
from admf_dask.engine.compiled import compiled, inlined

fill_price = inlined(rules.fill_price)
cash_after_close = inlined(rules.cash_after_close)
quantity_to_open = inlined(rules.quantity_to_open)
rounded = inlined(rules.rounded)
cash_after_open = inlined(rules.cash_after_open)

BLOCK = 16
"""Bars of a block of a tape."""
LONG = 50_000
"""Bars from which a tape has a sum for each block only: it would be larger than the prices, and than a cache."""
NO_TAPE = (np.empty((0, 4)), np.empty((0, 3)), 0.0, 1)
NO_NOTES = (np.empty(0), np.empty((0, 4)))


def tape_of(closes: NDArray[np.float64]) -> Any:
    """What books over these closes share: `returns`, `blocks`, the lowest close and the step of `returns`.

    `returns`, shape ((bars - 1) // step + 1, 4): running sums of the returns and of their squares up to each `step`-th bar, each
    as a sum and what rounding took from it, so that a difference of two is as exact as a sum over the bars between. `blocks`,
    shape (bars // 16, 3): the highest and the lowest close of each 16 bars and the lowest ratio of a close to one before it.
    """
    bars = len(closes)
    step = 1 if bars < LONG else BLOCK
    returns, blocks = np.zeros(((bars - 1) // step + 1, 4)), np.empty((bars // BLOCK, 3))
    return returns, blocks, _fill_tape(closes, returns, blocks, step), step


@compiled
def _fill_tape(closes, returns, blocks, step):  # type: ignore[no-untyped-def]
    lowest = closes[0]
    total = lost = squares = squares_lost = 0.0
    for t in range(1, len(closes)):
        change = closes[t] / closes[t - 1] - 1.0
        total, lost = _added(total, lost, change)
        squares, squares_lost = _added(squares, squares_lost, change * change)
        lowest = min(lowest, closes[t])
        if t % step == 0:
            k = t // step
            returns[k, 0], returns[k, 1], returns[k, 2], returns[k, 3] = total, lost, squares, squares_lost
    for k in range(len(blocks)):
        part = closes[k * BLOCK : k * BLOCK + BLOCK]
        top, low, kept = part[0], part[0], 1.0
        for t in range(1, BLOCK):
            top, low, kept = max(top, part[t]), min(low, part[t]), min(kept, part[t] / top)
        blocks[k, 0], blocks[k, 1], blocks[k, 2] = top, low, kept
    return lowest


@inlined
def _added(total, lost, value):  # type: ignore[no-untyped-def]
    """`value` added to a sum, and to what rounding took from it (Knuth's two-sum)."""
    after = total + value
    part = after - total
    return after, lost + ((total - (after - part)) + (value - part))


@compiled
def _summed(closes, returns, step, first, last):  # type: ignore[no-untyped-def]
    """The returns of the bars after `first` to `last`, and their squares, added up."""
    total, squares, low, high = 0.0, 0.0, -(-first // step), last // step
    if low > high:
        low = high = -1
    else:
        total = (returns[high, 0] - returns[low, 0]) + (returns[high, 1] - returns[low, 1])
        squares = (returns[high, 2] - returns[low, 2]) + (returns[high, 3] - returns[low, 3])
    if step > 1:
        # The ends, which fill no block.
        for t in range(first + 1, last + 1 if low < 0 else low * step + 1):
            change = closes[t] / closes[t - 1] - 1.0
            total, squares = total + change, squares + change * change
        for t in range(last + 1 if high < 0 else high * step + 1, last + 1):
            change = closes[t] / closes[t - 1] - 1.0
            total, squares = total + change, squares + change * change
    return total, squares


@compiled
def _extremes(closes, blocks, start, stop, top, kept):  # type: ignore[no-untyped-def]
    """Over the closes from `start` to before `stop`: the highest, and the lowest ratio of one to the highest before it.

    `top` and `kept` are what both were before `start`.
    """
    t = start
    while t < stop:
        if t % BLOCK == 0 and t + BLOCK <= stop:
            high, low, inside = blocks[t // BLOCK, 0], blocks[t // BLOCK, 1], blocks[t // BLOCK, 2]
            t += BLOCK
            kept = min(kept, inside)
        else:
            high = low = closes[t]
            t += 1
        if low < top * kept:
            kept = low / top
        top = max(top, high)
    return top, kept


@compiled
def _same_until(targets, bar, next_open, held):  # type: ignore[no-untyped-def]
    """The first bar from `bar` on that acts on another target than `held`; the number of bars if there is none."""
    bars, value = len(targets), np.int8(held)
    if bar >= bars:
        return bars
    acted_on = targets[bar - 1 if next_open else bar : bars - 1]
    left, at = len(acted_on), 0
    while at + 32 <= left:
        part, differ = acted_on[at : at + 32], np.int8(0)
        for i in range(32):
            differ |= part[i] ^ value
        if differ != 0:
            break
        at += 32
    while at < left and acted_on[at] == value:
        at += 1
    return bars if at == left else bar + at


@inlined
def _turned(cash, quantity, held, target, price, costs, fills_out, row, t, note):  # type: ignore[no-untyped-def]
    """Close what is `held`, then open `target`. Returns cash, quantity, what is held, and whether it closed and opened (0, 1)."""
    commission, slippage, lot = costs
    closed = opened = 0
    if held != 0:
        got = fill_price(price, -float(held), slippage)
        if note:
            _note(fills_out, row, t, -quantity, got, commission)
        cash, quantity, held, closed = cash_after_close(cash, quantity, got, commission), 0.0, 0, 1
    if target != 0 and cash > 0.0:
        paid = fill_price(price, float(target), slippage)
        quantity = rounded(quantity_to_open(float(target), cash, paid, commission), lot)
        if quantity != 0.0:
            if note:
                _note(fills_out, row + closed, t, quantity, paid, commission)
            cash, held, opened = cash_after_open(cash, quantity, paid, commission), target, 1
    return cash, quantity, held, closed, opened


def _walk(opens, closes, targets, book, tape, out, notes):  # type: ignore[no-untyped-def]
    """Do the book over `targets`, int8 of shape (bars,), and fill `out`, shape (7,), with `metrics.METRICS`.

    `book`: next_open, commission, slippage, initial_cash, lot, periods_per_year. `tape`: `tape_of(closes)`, or NO_TAPE for bar by
    bar. `notes`: two arrays; if the second, shape (m, 4), has room, it takes the fills (bar, quantity, price, commission paid),
    of which there are `out[6]`, and the first, shape (bars,), the equity after each bar. Returns whether the book was ruined.
    """
    next_open, commission, slippage, initial_cash, lot, periods_per_year = book
    costs = commission, slippage, lot
    returns, blocks, lowest, step = tape
    equities, fills_out = notes
    bars, note = len(closes), len(fills_out) > 0
    cash, quantity, held = initial_cash, 0.0, 0
    equity = peak = floor = initial_cash
    drawdown = total = squares = 0.0
    trades = entries = fills = t = 0
    while t < bars and equity > 0.0:
        target = (targets[t - 1] if t > 0 else 0) if next_open else (targets[t] if t < bars - 1 else held)
        if target != held:
            price = opens[t] if next_open else closes[t]
            cash, quantity, held, closed, opened = _turned(
                cash, quantity, held, target, price, costs, fills_out, fills, t, note
            )
            trades, entries, fills = trades + closed, entries + opened, fills + closed + opened
        # This bar, and all that follow with the same target.
        stop = _same_until(targets, t + 1, next_open, held)
        multiple = held == 1 and not note and lowest > 0.0 and abs(cash) <= 1e-12 * quantity * lowest
        for bar in range(t, t + 1 if held == 0 or multiple else stop):
            before, equity = equity, cash + quantity * closes[bar]
            if note:
                equities[bar] = equity
            if bar > 0:
                change = equity / before - 1.0
                total, squares = total + change, squares + change * change
            if equity > peak or bar == 0:
                peak = equity
                floor = peak * (1.0 - drawdown)
            elif equity < floor:
                drawdown, floor = 1.0 - equity / peak, equity
            if equity <= 0.0:
                # Ruined: the book is closed where it stands, and nothing more happens.
                stop = bar + 1
                if note:
                    equities[bar:] = equity
                break
        if held == 0 and note and equity > 0.0:
            equities[t + 1 : stop] = equity
        if multiple and stop > t + 1:
            more, more_squares = _summed(closes, returns, step, t, stop - 1)
            total, squares = total + more, squares + more_squares
            top, kept = _extremes(closes, blocks, t + 1, stop, peak / quantity, 1.0 - drawdown)
            peak, drawdown = max(peak, top * quantity), max(drawdown, 1.0 - kept)
            floor = peak * (1.0 - drawdown)
            equity = cash + quantity * closes[stop - 1]
        t = stop
    out[0], out[1], out[2] = _sharpe(total, squares, bars - 1, periods_per_year), equity / initial_cash - 1.0, drawdown
    out[3], out[4], out[5], out[6] = equity, trades, entries, fills
    return equity <= 0.0


walk = compiled(_walk)


@inlined
def _note(fills_out, row, bar, quantity, price, commission):  # type: ignore[no-untyped-def]
    fills_out[row, 0], fills_out[row, 1], fills_out[row, 2] = bar, quantity, price
    fills_out[row, 3] = abs(quantity) * price * commission


@inlined
def _sharpe(total, squares, count, periods_per_year):  # type: ignore[no-untyped-def]
    if count < 2:
        return math.nan
    mean = total / count
    variance = (squares - count * mean * mean) / (count - 1)
    # Below the rounding of the sums a deviation cannot be told from none.
    if variance <= 1e-15 * squares or variance <= 0.0:
        return math.nan
    return mean / math.sqrt(variance) * math.sqrt(periods_per_year)


@compiled
def sma_targets(sums, fast, slow, low, targets):  # type: ignore[no-untyped-def]
    """`sums`: running sums of the closes in whole units, shape (bars + 1,), so that a tie of the two means is an exact tie.

    `sumA / fast` against `sumB / slow` is compared as `sumA * slow` against `sumB * fast`.
    """
    first, bars = max(fast, slow) - 1, len(targets)
    up, down, flat = np.int8(1), np.int8(low), np.int8(0)
    targets[: min(first, bars)] = 0
    if first >= bars:
        return
    now, before_fast, before_slow, out = (
        sums[first + 1 :],
        sums[first + 1 - fast :],
        sums[first + 1 - slow :],
        targets[first:],
    )
    for t in range(len(out)):
        left = (now[t] - before_fast[t]) * slow
        right = (now[t] - before_slow[t]) * fast
        out[t] = up if left > right else (down if left < right else flat)


@compiled
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


@compiled
def rsi_targets(rsi, lower, upper, low, targets):  # type: ignore[no-untyped-def]
    """+1 below `lower`, `low` above `upper`, else as before."""
    target = 0
    for t in range(len(targets)):
        if rsi[t] < lower:
            target = 1
        elif rsi[t] > upper:
            target = low
        targets[t] = target


@compiled
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


@compiled
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
    largest, exact = _in_millionths(closes)
    product = largest * max(len(closes), longest * longest)
    sums = np.empty(len(closes) + 1, np.int64 if exact and 2**53 <= product < 2**62 else np.float64)
    if sums.dtype == np.int64:
        _add_up_whole(closes, sums)
    else:
        _add_up(closes, sums)
    return sums


@compiled
def _in_millionths(closes):  # type: ignore[no-untyped-def]
    """The largest close in millionths, and whether all closes have at most six decimals."""
    largest, exact = 0.0, True
    for t in range(len(closes)):
        close = closes[t]
        scaled = np.rint(close * 1e6)
        largest, exact = max(largest, abs(scaled)), exact and abs(scaled / 1e6 - close) <= abs(close) * 1e-15
    return largest, exact


@compiled
def _add_up(closes, sums):  # type: ignore[no-untyped-def]
    sums[0] = 0.0
    for t in range(len(closes)):
        scaled = np.rint(closes[t] * 1e6)
        exact = abs(scaled / 1e6 - closes[t]) <= abs(closes[t]) * 1e-15
        sums[t + 1] = sums[t] + (scaled if exact else closes[t] * 1e6)


@compiled
def _add_up_whole(closes, sums):  # type: ignore[no-untyped-def]
    sums[0] = 0
    for t in range(len(closes)):
        sums[t + 1] = sums[t] + np.int64(np.rint(closes[t] * 1e6))


@compiled
def sma_chunk(sums, opens, closes, fast, slow, low, book, shared, out):  # type: ignore[no-untyped-def]
    """A chunk of crossovers in one call that holds no interpreter; `out` has shape (n, 7), `shared` is of `shared_by`."""
    targets, tape, notes = shared
    for k in range(len(fast)):
        sma_targets(sums, fast[k], slow[k], low, targets)
        walk(opens, closes, targets, book, tape, out[k], notes)


@compiled
def rsi_chunk(opens, closes, order, period, lower, upper, low, book, shared, rsi, out):  # type: ignore[no-untyped-def]
    """A chunk of RSI reversions, in the `order` of their periods: each period's RSI is computed once, into `rsi`."""
    targets, tape, notes = shared
    last = -1
    for i in range(len(order)):
        k = order[i]
        if period[k] != last:
            wilder_rsi(closes, period[k], rsi)
            last = period[k]
        rsi_targets(rsi, lower[k], upper[k], low, targets)
        walk(opens, closes, targets, book, tape, out[k], notes)


@compiled
def donchian_chunk(bars, order, entry, leave, low, book, shared, channels, out):  # type: ignore[no-untyped-def]
    """A chunk of breakouts, in the `order` of their entry windows: each upper channel is computed once.

    `bars`: opens, highs, lows, closes. `channels`: two float arrays and one of int64, shape (bars,), to work in.
    """
    (opens, highs, lows, closes), (above, below, queue), (targets, tape, notes) = bars, channels, shared
    last_entry = last_leave = -1
    for i in range(len(order)):
        k = order[i]
        if entry[k] != last_entry:
            rolling_extreme(highs, entry[k], 1.0, queue, above)
            last_entry = entry[k]
        if leave[k] != last_leave:
            rolling_extreme(lows, leave[k], -1.0, queue, below)
            last_leave = leave[k]
        donchian_targets(closes, above, below, max(entry[k], leave[k]), low, targets)
        walk(opens, closes, targets, book, tape, out[k], notes)


def shared_by(closes: NDArray[np.float64]) -> Any:
    """What all combinations of a chunk work in: a buffer of targets, the tape, and no notes."""
    return np.empty(len(closes), np.int8), tape_of(closes), NO_NOTES
