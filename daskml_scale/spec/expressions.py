"""Whitelisted expressions over columns: ``sched + minutes(dep_delay)``, ``arr_delay > 15``.

The text is parsed by Python's own parser and walked node by node; anything outside the grammar is
refused when the spec is read. Nothing is ever passed to ``eval``. Values are NumPy arrays:

* numbers: any numeric dtype; a missing number is NaN;
* times: ``datetime64``, spans: ``timedelta64``; missing is NaT;
* categories: :class:`Coded`, comparable with text by ``==``, ``!=`` and ``in``.

A comparison or logical operation is float64 1.0 / 0.0, and NaN where an operand is missing (missing
stays missing); :func:`mask` turns that into a boolean mask in which missing is False.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from daskml_scale.errors import SpecError

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


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "seconds": (1, _span(1)),
    "minutes": (1, _span(60)),
    "hours": (1, _span(3600)),
    "days": (1, _span(86400)),
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log1p": (1, np.log1p),
    "sin": (1, np.sin),
    "cos": (1, np.cos),
    "floor": (1, np.floor),
    "round": (1, np.round),
    "minimum": (2, _pick(np.minimum)),
    "maximum": (2, _pick(np.maximum)),
    "missing": (1, lambda value: missing(value).astype("float64")),
    "where": (3, _where),
}
"""Name -> (number of arguments, implementation); ``time('2013-10-01')`` is the only other call."""

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
_MAX_LENGTH, _MAX_NODES = 2000, 500


@lru_cache(maxsize=512)
def parse(text: str) -> ast.expr:
    """Parse and check an expression; return its syntax tree.

    Raises
    ------
    SpecError
        Naming the part that the grammar does not know, and what it knows.
    """
    if len(text) > _MAX_LENGTH:
        raise SpecError(f"expression of {len(text)} characters; at most {_MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    nodes = sum(1 for _ in ast.walk(tree))
    if nodes > _MAX_NODES:
        raise SpecError(f"expression of {nodes} parts; at most {_MAX_NODES}")
    _check(tree)
    return tree


def _check(node: ast.expr) -> None:
    match node:
        case ast.Name():
            return
        case ast.Constant(value=int() as number) if not -(2**63) <= number < 2**63:
            raise SpecError(f"{ast.unparse(node)[:40]} does not fit into 64 bits")
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            _check(node.operand)
        case ast.BinOp(op=op) if type(op) in _BINARY:
            _check(node.left)
            _check(node.right)
        case ast.BoolOp():
            for value in node.values:
                _check(value)
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.List() | ast.Tuple() as items]):
            _check(node.left)
            if not items.elts or not all(_is_literal(item) for item in items.elts):
                raise SpecError("'in' takes a list of constants: origin in ['JFK', 'LGA']")
            for item in items.elts:
                _check(item)
        case ast.Compare(ops=[op], comparators=[right]) if type(op) in _COMPARE:
            _check(node.left)
            _check(right)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            raise SpecError("'is' is not known here; for missing values write missing(x) or not missing(x)")
        case ast.Compare(ops=[_]):
            raise SpecError("'in' takes a list of constants: origin in ['JFK', 'LGA']")
        case ast.Compare():
            raise SpecError("write one comparison at a time and join them by 'and': a < b and b < c")
        case ast.Call(func=ast.Name(id="time"), args=[ast.Constant(value=str() as text)], keywords=[]):
            _time(text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            wanted = FUNCTIONS[name][0]
            if len(args) != wanted:
                raise SpecError(f"{name}() takes {wanted} argument{'s'[: wanted != 1]}, not {len(args)}")
            for argument in args:
                _check(argument)
        case ast.Call(func=ast.Name(id=name)):
            close = difflib.get_close_matches(name[:80], [*FUNCTIONS, "time"], n=1)
            guess = f"did you mean {close[0]}()? " if close else ""
            raise SpecError(f"unknown function {name}(); {guess}known: time('...'), {', '.join(sorted(FUNCTIONS))}")
        case _:
            raise SpecError(
                f"{ast.unparse(node)!r} is not allowed here; use column names, numbers, text, + - * / // % **, "
                "comparisons, and/or/not, in [...], and the known functions"
            )


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant)


def names(text: str) -> tuple[str, ...]:
    """Return the columns an expression reads, sorted."""
    tree = parse(text)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return tuple(sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions}))


def _time(text: str) -> np.datetime64:
    """Parse an ISO 8601 instant; without an offset it is UTC."""
    from datetime import UTC, datetime

    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError(
            f"time({text!r}): write an ISO 8601 instant such as '2013-10-01' or '2013-10-01T06:00'"
        ) from None
    if not 1678 <= instant.year <= 2261:
        raise SpecError(f"time({text!r}): times lie between the years 1678 and 2261")
    if instant.tzinfo is not None:
        instant = instant.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(instant, "ns")


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
            f"{text!r} gives text; compare it with something, or name the column where a column is asked for"
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
                return value.astype(f"{value.dtype.kind}8[ns]")
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
            return _time(text)
        case ast.Call(func=ast.Name(id=name), args=args):
            given = [_evaluate(argument, columns) for argument in args]
            if any(isinstance(value, str) or (isinstance(value, Coded) and name != "missing") for value in given):
                raise TypeError(f"{name}() takes numbers or times, not text")
            return FUNCTIONS[name][1](*given)
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


def _checked(text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        raise PydanticCustomError("bad_expression", "{reason}", {"reason": str(error)}) from None
    return text


Expression = Annotated[str, AfterValidator(_checked)]
"""Expression text whose syntax was checked."""
