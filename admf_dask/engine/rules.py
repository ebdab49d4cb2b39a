"""How an order fills, what it costs and how large it is: the one copy of these rules.

Plain functions of numbers, so that compiled loops can inline them and the rest of Python can call them. `side` is +1 for buying
and -1 for selling; `commission` and `slippage` are fractions of traded value and of price.
"""

from __future__ import annotations

import math


def fill_price(price: float, side: float, slippage: float) -> float:
    """Buying pays `price * (1 + slippage)`, selling gets `price * (1 - slippage)`."""
    return price * (1.0 + side * slippage)


def cash_after_close(cash: float, quantity: float, price: float, commission: float) -> float:
    """Cash after a position of `quantity` (negative when short) was closed whole at the fill price."""
    return cash + quantity * price - abs(quantity) * price * commission


def quantity_to_open(target: float, cash: float, price: float, commission: float) -> float:
    """A long spends all the cash, commission included; a short has the size that a long would have."""
    return target * cash / (price * (1.0 + commission))


def rounded(quantity: float, lot: float) -> float:
    """Towards zero to whole lots; 0 is no rounding."""
    if lot <= 0.0:
        return quantity
    return math.copysign(math.floor(abs(quantity) / lot) * lot, quantity) if abs(quantity) >= lot else 0.0


def cash_after_open(cash: float, quantity: float, price: float, commission: float) -> float:
    """Cash after a position of `quantity` was opened at the fill price."""
    return cash - (quantity * price + abs(quantity) * price * commission)
