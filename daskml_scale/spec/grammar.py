"""What may be written in an expression: Python's own parser, and a walk that refuses what is not listed here.

``sched + minutes(dep_delay)``, ``arr_delay > 15``, ```my column` < time('2024-05-01')``. Anything outside the
grammar is refused when the spec is read. Nothing is evaluated here.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import re
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from daskml_scale.errors import SpecError

_ONE = "seconds minutes hours days abs sqrt exp log log1p sin cos floor round missing"
ARGUMENTS: dict[str, int] = {**dict.fromkeys(_ONE.split(), 1), "minimum": 2, "maximum": 2, "where": 3}
"""Function -> number of its arguments; ``time('2013-10-01')`` is the only other call."""
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARE = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?P<column>[^`]+)`""")
"""Text, and columns in backticks."""
_DATE = re.compile(
    r"(?<![\w.])(1[6-9]|2[0-2])\d\d-(0?[1-9]|1[0-2])-(0?[1-9]|[12]\d|3[01])([T ]\d\d:\d\d(:\d\d)?)?(?![\w.])"
)
_TWO_WORDS = re.compile(r"(?!(?:and|or|not|in|if|is)\b)\b[A-Za-z_]\w* +(?!(?:and|or|not|in|if|is)\b)[A-Za-z_]")
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
    plain, quoted = _plain(text)
    try:
        tree = ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = str(getattr(error, "msg", error))
        odd = said.startswith(("invalid character", "invalid non-printable", "invalid decimal literal"))
        hint = "; write a name of several words in backticks: `my column`" if _TWO_WORDS.search(plain) else ""
        hint = "; write a name that is no plain word in backticks: `Price €`, `2m temperature`" if odd else hint
        raise SpecError(f"{text!r} is not an expression: {said}{hint}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = quoted.get(node.id, node.id)
    nodes = sum(1 for _ in ast.walk(tree))
    if nodes > _MAX_NODES:
        raise SpecError(f"expression of {nodes} parts; at most {_MAX_NODES}")
    _check(tree)
    return tree


def _plain(text: str) -> tuple[str, dict[str, str]]:
    """Return the text as Python can read it, and the columns that its new names stand for.

    Raises
    ------
    SpecError
        For an instant without ``time()``, which Python would take for a subtraction.
    """
    outside = _QUOTED.sub(lambda found: " " * len(found[0]), text)
    if found := _DATE.search(outside):
        raise SpecError(f"{text!r}: write an instant as time('{found[0].strip()}')")
    quoted: dict[str, str] = {}

    def stand_in(found: re.Match[str]) -> str:
        if found["column"] is None:
            return found[0]
        name = f"_column{len(quoted)}_"
        while name in text:
            name += "_"
        quoted[name] = found["column"]
        return name

    return _QUOTED.sub(stand_in, text), quoted


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
        case ast.BinOp(op=op) if isinstance(op, _BINARY):
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
        case ast.Compare(ops=[op], comparators=[right]) if isinstance(op, _COMPARE):
            _check(node.left)
            _check(right)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            raise SpecError("'is' is not known here; for missing values write missing(x) or not missing(x)")
        case ast.Compare(ops=[_]):
            raise SpecError("'in' takes a list of constants: origin in ['JFK', 'LGA']")
        case ast.Compare():
            raise SpecError("write one comparison at a time and join them by 'and': a < b and b < c")
        case ast.Call(func=ast.Name(id="time"), args=[ast.Constant(value=str() as text)], keywords=[]):
            instant(text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in ARGUMENTS:
            wanted = ARGUMENTS[name]
            if len(args) != wanted:
                raise SpecError(f"{name}() takes {wanted} argument{'s'[: wanted != 1]}, not {len(args)}")
            for argument in args:
                _check(argument)
        case ast.Call(func=ast.Name(id=name)):
            close = difflib.get_close_matches(name[:80], [*ARGUMENTS, "time"], n=1)
            guess = f"did you mean {close[0]}()? " if close else ""
            raise SpecError(f"unknown function {name}(); {guess}known: time('...'), {', '.join(sorted(ARGUMENTS))}")
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
            raise SpecError(f"{ast.unparse(node)!r}: write and, or, not instead of &, |, ~")
        case _:
            raise SpecError(
                f"{ast.unparse(node)!r} is not allowed here; use column names, numbers, text, + - * / // % **, "
                "comparisons, and/or/not, in [...], and the known functions"
            )


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant)


def column(name: str) -> str:
    """Return a column's name as expressions write it: in backticks where it is no plain word."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"`{name}`"


def names(text: str) -> tuple[str, ...]:
    """Return the columns an expression reads, sorted."""
    tree = parse(text)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return tuple(sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions}))


def instant(text: str) -> np.datetime64:
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


def _checked(text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        raise PydanticCustomError("bad_expression", "{reason}", {"reason": str(error)}) from None
    return text


Expression = Annotated[str, AfterValidator(_checked)]
"""Expression text whose syntax was checked."""
