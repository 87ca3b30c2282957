"""Whitelisted expressions over columns: ``sched + minutes(dep_delay)``, ``arr_delay > 15``.

What may be written is the matter of `grammar`; here a parsed text is evaluated, node by node, and nothing
is ever passed to ``eval``. Values are NumPy arrays:

* numbers: any numeric dtype; a missing number is NaN;
* times: ``datetime64``, spans: ``timedelta64``; missing is NaT;
* categories: :class:`Coded`, comparable with text by ``==``, ``!=`` and ``in``.

A comparison or logical operation is float64 1.0 / 0.0, and NaN where an operand is missing (missing
stays missing); :func:`mask` turns that into a boolean mask in which missing is False.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from daskml_scale.errors import SpecError

from .grammar import Expression as Expression
from .grammar import column as column
from .grammar import instant, parse
from .grammar import names as names

NS = np.timedelta64(1, "ns")


@dataclass(frozen=True, eq=False)
class Coded:
    """A category column: integer codes into labels; a negative code is missing.

    Attributes
    ----------
    codes : ndarray of int, shape (rows,)
    labels : tuple of str
    """

    codes: np.ndarray
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, key: Any) -> Coded:
        return Coded(self.codes[key], self.labels)


Values: TypeAlias = "np.ndarray | Coded"
"""One column in memory."""


def _span(unit_seconds: int) -> Callable[[Any], Any]:
    def make(value: Any) -> Any:
        if np.asarray(value).dtype.kind not in "iuf":
            raise TypeError("seconds(), minutes(), hours() and days() take numbers")
        numbers = np.asarray(value, dtype="float64")
        missing = ~np.isfinite(numbers)
        ns = np.where(missing, 0.0, numbers * (unit_seconds * 1e9)).round().astype("int64")
        return np.where(missing, np.timedelta64("NaT", "ns"), ns.astype("timedelta64[ns]"))

    return make


def _is_time(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "M"


def _is_span(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "m"


def missing(value: Values) -> np.ndarray:
    """Return where a column is missing, bool of shape (rows,)."""
    if isinstance(value, Coded):
        return np.asarray(value.codes < 0)
    if value.dtype.kind in "mM":
        return np.asarray(np.isnat(value))
    if value.dtype.kind == "f":
        return np.asarray(np.isnan(value))
    return np.zeros(value.shape, dtype=bool)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    _same_kind(yes, no)
    return np.where(np.nan_to_num(_truth(condition)) != 0, yes, no)


def _pick(choose: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def make(left: Any, right: Any) -> Any:
        _same_kind(left, right)
        return choose(left, right)

    return make


def _same_kind(left: Any, right: Any) -> None:
    if _is_time(left) != _is_time(right) or _is_span(left) != _is_span(right):
        raise TypeError("times go with times, spans with spans, numbers with numbers")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "seconds": _span(1),
    "minutes": _span(60),
    "hours": _span(3600),
    "days": _span(86400),
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "round": np.round,
    "minimum": _pick(np.minimum),
    "maximum": _pick(np.maximum),
    "missing": lambda value: missing(value).astype("float64"),
    "where": _where,
}
"""Implementations of the functions that the grammar knows."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def evaluate(text: str, columns: Mapping[str, Values]) -> np.ndarray:
    """Evaluate an expression over columns of equal length.

    Parameters
    ----------
    text : str
    columns : mapping of column name to array of shape (rows,)

    Returns
    -------
    ndarray, shape (rows,) or () for a constant
        float64 for logic, datetime64[ns] / timedelta64[ns] for times, a number otherwise.

    Raises
    ------
    SpecError
        If a column is unknown, or an operation does not fit its operands' kinds.
    """
    try:
        with np.errstate(all="ignore"):
            value = _evaluate(parse(text), columns)
    except (TypeError, np.exceptions.DTypePromotionError) as error:
        kinds = {name: _kind(columns[name]) for name in names(text) if name in columns}
        raise SpecError(f"{text!r} does not fit its columns {kinds}: {error}") from None
    if isinstance(value, (Coded, str)):
        raise SpecError(
            f"{text!r} gives text; compare it with something, or name the column where a column is asked for; "
            "where a time is meant, the file writes it otherwise than 2024-12-31 or 2024-12-31 23:59:00"
        )
    return np.asarray(value)


def mask(text: str, columns: Mapping[str, Values]) -> np.ndarray:
    """Evaluate a condition as a boolean mask of shape (rows,); missing is False."""
    value = evaluate(text, columns)
    if value.dtype.kind in "mM":
        raise SpecError(f"{text!r} is a time, not a condition; compare it with something")
    rows = max((len(column) for column in columns.values()), default=0)
    return np.broadcast_to(np.nan_to_num(value.astype("float64")) != 0, value.shape or (rows,))


def _kind(value: Values) -> str:
    if isinstance(value, Coded):
        return "category"
    return {"M": "time", "m": "span", "f": "number", "i": "number", "u": "number", "b": "number"}.get(
        value.dtype.kind, str(value.dtype)
    )


def _evaluate(node: ast.expr, columns: Mapping[str, Values]) -> Any:
    match node:
        case ast.Name(id=name):
            if name not in columns:
                raise SpecError(f"unknown column {name!r}; known: {', '.join(sorted(columns))}")
            value = columns[name]
            if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
                return value.astype(f"{value.dtype.kind}8[ns]", copy=False)
            if isinstance(value, np.ndarray) and value.dtype.kind == "b":
                return value.astype("float64")
            return value
        case ast.Constant(value=str() as constant):
            return constant
        case ast.Constant(value=constant):
            # NumPy scalars: 1/0 is inf, 9**9**9 wraps; Python's would raise, or run for ever
            return np.int64(constant) if type(constant) is int else np.float64(constant)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(_evaluate(operand, columns))
            return 1.0 - truth
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, columns)
        case ast.UnaryOp(operand=operand):
            return +_evaluate(operand, columns)
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _evaluate(left, columns), _evaluate(right, columns))
        case ast.BoolOp(op=op, values=values):
            return _logic([_truth(_evaluate(value, columns)) for value in values], isinstance(op, ast.And))
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[items]):
            value = _evaluate(left, columns)
            found = [_compare(value, _evaluate(item, columns), operator.eq) for item in items.elts]  # type: ignore[attr-defined]
            truth = _logic(found, all_of=False)
            return 1.0 - truth if isinstance(op, ast.NotIn) else truth
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _compare(_evaluate(left, columns), _evaluate(right, columns), _COMPARE[type(op)])
        case ast.Call(func=ast.Name(id="time"), args=[ast.Constant(value=str() as text)]):
            return instant(text)
        case ast.Call(func=ast.Name(id=name), args=args):
            given = [_evaluate(argument, columns) for argument in args]
            if any(isinstance(value, str) or (isinstance(value, Coded) and name != "missing") for value in given):
                raise TypeError(f"{name}() takes numbers or times, not text")
            return FUNCTIONS[name](*given)
    raise AssertionError(ast.dump(node))  # parse() refuses everything else


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if any(isinstance(value, (str, Coded)) for value in (left, right)):
        raise TypeError("text has no arithmetic")
    if isinstance(op, (ast.Add, ast.Sub)) and (_is_time(left) or _is_span(left)) != (
        _is_time(right) or _is_span(right)
    ):
        raise TypeError("a time and a number; write seconds(n), minutes(n), hours(n) or days(n)")
    if isinstance(op, ast.Pow) and np.asarray(left).dtype.kind in "iu":
        left = left.astype("float64")  # whole powers would wrap, and negative ones raise
    if isinstance(op, (ast.FloorDiv, ast.Mod)):
        if _is_span(left) and _is_span(right) and isinstance(op, ast.FloorDiv):
            return np.floor(left / right)  # whole numbers have no missing value
        if (np.ndim(right) or not right) and np.asarray(left).dtype.kind in "iu" and right.dtype.kind in "iu":
            right = right.astype("float64")  # a zero among the divisors is inf or NaN, not 0
    return _BINARY[type(op)](left, right)


def _truth(value: Any) -> Any:
    if _is_time(value) or _is_span(value) or isinstance(value, (Coded, str)):
        raise TypeError("and, or, not take conditions, not times or text")
    numbers = np.asarray(value, dtype="float64")
    return np.where(np.isnan(numbers), np.nan, (numbers != 0).astype("float64"))


def _logic(values: list[Any], all_of: bool) -> Any:
    """Three-valued and / or (Kleene): a decided operand decides, else missing stays missing."""
    stacked = np.broadcast_arrays(*values)
    decided = 0.0 if all_of else 1.0
    result = np.minimum.reduce(stacked) if all_of else np.maximum.reduce(stacked)
    return np.where(np.logical_or.reduce([part == decided for part in stacked]), decided, result)


def _compare(left: Any, right: Any, compare: Callable[[Any, Any], Any]) -> Any:
    if isinstance(left, str) and isinstance(right, Coded):
        left, right = right, left
        compare = {operator.lt: operator.gt, operator.le: operator.ge, operator.gt: operator.lt,
                   operator.ge: operator.le}.get(compare, compare)  # fmt: skip
    if isinstance(left, Coded):
        if compare not in (operator.eq, operator.ne):
            raise TypeError("categories compare by == and != only")
        if isinstance(right, str):
            code = left.labels.index(right) if right in left.labels else -2
            truth = compare(left.codes, code)
        elif isinstance(right, Coded):
            lookup = {label: code for code, label in enumerate(left.labels)}
            codes = np.array([lookup.get(label, -2) for label in right.labels] + [-1])[right.codes]
            truth = compare(left.codes, codes)
            return np.where((left.codes < 0) | (right.codes < 0), np.nan, truth.astype("float64"))
        else:
            raise TypeError("a category compares with text: origin == 'JFK'")
        return np.where(left.codes < 0, np.nan, truth.astype("float64"))
    if isinstance(left, str) or isinstance(right, str):
        raise TypeError("text compares with categories only; for an instant write time('...')")
    if _is_time(left) != _is_time(right) or _is_span(left) != _is_span(right):
        raise TypeError("a time compares with a time, a span with a span")
    truth = np.asarray(compare(left, right)).astype("float64")
    return np.where(missing(np.asarray(left)) | missing(np.asarray(right)), np.nan, truth)
