"""Constraints: functions, or expressions such as `"fast < slow"`, parsed against a whitelist and never evaluated as code.

An expression is worked out for whole columns at once. It means what it would mean for one combination at a time, with
numbers by IEEE rules: a division by zero is infinite or NaN, and a comparison with NaN is false. An expression that names
a conditional parameter does not apply where that parameter is absent.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.functions import misfit
from admf_dask.text import did_you_mean

Columns = Mapping[str, NDArray[Any]]
Term = Callable[[Columns], Any]
ALLOWED = "names of parameters, numbers, strings, tuples, + - * / // % **, comparisons, in, and, or, not, abs, min, max, round"

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda left, right: np.power(np.asarray(left, np.float64), right),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "min": lambda *terms: reduce(np.minimum, terms),
    "max": lambda *terms: reduce(np.maximum, terms),
    "round": np.round,
}
_TRUTHS = (ast.Compare, ast.BoolOp)


@dataclass(frozen=True)
class Expression:
    """A parsed expression. Pickles as its text."""

    text: str
    names: tuple[str, ...]
    term: Term

    def holds(self, columns: Columns, size: int) -> NDArray[np.bool_]:
        """Where it holds, shape (size,)."""
        with np.errstate(all="ignore"):
            return np.broadcast_to(_truth(self.term(columns)), (size,))

    def __reduce__(self) -> tuple[Any, ...]:
        return parse, (self.text,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


Constraint = Expression | Callable[[dict[str, Any]], Any]


def make_constraints(constraints: Any, names: Sequence[str]) -> tuple[Constraint, ...]:
    """Check constraints against the parameter names. Raises SpaceError with the rule and the nearest name."""
    made: list[Constraint] = []
    for constraint in as_many(constraints):
        if isinstance(constraint, str):
            constraint = parse(constraint)
        if isinstance(constraint, Expression):
            for name in constraint.names:
                if name not in names:
                    raise SpaceError(
                        f"constraint {constraint.text!r} names {name!r}, which is no parameter{did_you_mean(name, names)}"
                    )
        elif not callable(constraint):
            raise SpaceError(
                f'a constraint must be a function of the parameters or an expression such as "fast < slow", but is {constraint!r}'
            )
        elif why := misfit(constraint, {}):
            raise SpaceError(
                f"a constraint is called with the parameters as one dict, but {describe(constraint)} does not take it: {why}; "
                "write lambda params: params['fast'] < params['slow'], or \"fast < slow\""
            )
        made.append(constraint)
    return tuple(made)


def as_many(constraints: Any) -> tuple[Any, ...]:
    """Constraints as they were given: one, several, or none."""
    if constraints is None:
        return ()
    one = isinstance(constraints, (str, Mapping)) or callable(constraints) or not isinstance(constraints, Iterable)
    return (constraints,) if one else tuple(constraints)


def describe(constraint: Constraint) -> str:
    """The name under which messages speak of a constraint."""
    text = constraint.text if isinstance(constraint, Expression) else getattr(constraint, "__name__", repr(constraint))
    return repr(text)


def parse(text: str) -> Expression:
    """Parse an expression. Raises SpaceError naming what is not allowed in it, and what is."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise SpaceError(f"constraint {text!r} is not an expression: {getattr(error, 'msg', error)}") from error
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - _called(tree))
    return Expression(text, tuple(names), _Builder(text).build(tree.body))


def _called(tree: ast.AST) -> set[str]:
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


@dataclass(frozen=True)
class _Builder:
    """Turns syntax into functions of columns, one small function for each kind of node."""

    text: str

    def build(self, node: ast.expr) -> Term:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self._refused(node)
        term: Term = method(node)
        return term

    def _refused(self, node: ast.AST) -> SpaceError:
        part = ast.get_source_segment(self.text.strip(), node) if isinstance(node, ast.expr) else type(node).__name__
        bits = isinstance(getattr(node, "op", None), (ast.BitAnd, ast.BitOr, ast.Invert))
        hint = "; write and, or, not in place of &, |, ~" if bits else ""
        return SpaceError(f"constraint {self.text!r} holds {part!r}, which is not allowed; allowed are {ALLOWED}{hint}")

    def _number(self, node: ast.expr) -> Term:
        # A truth value in arithmetic would mean something else for a column than for one combination.
        if isinstance(node, _TRUTHS) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            raise self._refused(node)
        return self.build(node)

    def _name(self, node: ast.Name) -> Term:
        return lambda columns: columns[node.id]

    def _constant(self, node: ast.Constant) -> Term:
        if not isinstance(node.value, (int, float, str, bool, type(None))):
            raise self._refused(node)
        return lambda columns: node.value

    def _binop(self, node: ast.BinOp) -> Term:
        function = _BINARY.get(type(node.op))
        if function is None:
            raise self._refused(node)
        left, right = self._number(node.left), self._number(node.right)
        return lambda columns: function(left(columns), right(columns))

    def _unaryop(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not):
            inner = self.build(node.operand)
            return lambda columns: ~_truth(inner(columns))
        function = _UNARY.get(type(node.op))
        if function is None:
            raise self._refused(node)
        operand = self._number(node.operand)
        return lambda columns: function(operand(columns))

    def _boolop(self, node: ast.BoolOp) -> Term:
        terms = [self.build(value) for value in node.values]
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return lambda columns: reduce(join, (_truth(term(columns)) for term in terms))

    def _compare(self, node: ast.Compare) -> Term:
        links: list[Term] = []
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            links.append(self._link(left, op, right))
            left = right
        return lambda columns: reduce(np.logical_and, (link(columns) for link in links))

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Term:
        first = self._number(left)
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
                raise self._refused(right)
            options = [self._number(item) for item in right.elts]

            def member(columns: Columns) -> Any:
                value = first(columns)
                found = _truth(False)
                for option in options:
                    found = found | _truth(np.equal(value, option(columns)))
                return ~found if isinstance(op, ast.NotIn) else found

            return member
        function = _COMPARE.get(type(op))
        if function is None:
            raise self._refused(op)
        second = self._number(right)
        return lambda columns: function(first(columns), second(columns))

    def _call(self, node: ast.Call) -> Term:
        function = _FUNCTIONS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if function is None or node.keywords or not node.args or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self._refused(node)
        terms = [self._number(arg) for arg in node.args]
        return lambda columns: function(*(term(columns) for term in terms))


def _truth(value: Any) -> NDArray[np.bool_]:
    return np.asarray(value).astype(np.bool_)
