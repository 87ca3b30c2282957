"""The strict frozen model that every spec class derives from, and the small value types.

Unknown keys are refused, values are never coerced (``"3"`` is not 3), instances are frozen and
hashable by their JSON. The loader (``spec.load``) adds file, line and nearest names to errors; who makes
a spec in Python gets the same words, and signatures without pydantic's annotations.
"""

from __future__ import annotations

import re
from functools import lru_cache, reduce
from inspect import Parameter, Signature
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from daskml_scale.errors import SpecError

_DURATION = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(ms|s|min|m|h|d)\s*", re.ASCII)
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*", re.ASCII)
_FACTOR = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_LONGEST = 9e9  # seconds; 64-bit nanoseconds end at 9.2e9


class Spec(BaseModel):
    """Base of all spec models: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        kind = type(self)
        if unnamed:
            raise SpecError(f"{kind.__name__} takes its settings by name: {kind.__name__}{kind.__signature__}")
        try:
            super().__init__(**settings)
        except ValidationError as error:
            from .explain import explain

            problems = sorted(explain(error, kind, settings), key=lambda problem: "is missing" in problem.message)
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise SpecError(problems[0].message + more, path=f"{kind.__name__}.{problems[0].path}".strip(".")) from None

    # Models inside others are then validated as ever, without a call of this: errors keep their whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **settings: Any) -> None:
        super().__pydantic_init_subclass__(**settings)
        cls.__signature__ = Signature(
            [
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
                    annotation=_plain(field.annotation),
                )
                for name, field in cls.model_fields.items()
            ]
        )

    def params(self) -> dict[str, Any]:
        """Return the JSON form used in fingerprints: defaults included, aliases not used."""
        return self.model_dump(mode="json")


def _plain(annotation: Any) -> Any:
    """Return a type without what pydantic knows of it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain(arguments[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(_plain, arguments))
    return origin[tuple(map(_plain, arguments))] if origin in (list, dict) else annotation


def seconds(text: str) -> float:
    """Return the seconds of a duration such as ``"90s"``, ``"15m"``, ``"3h"``, ``"2d"``.

    Raises
    ------
    ValueError
        If ``text`` is not a number followed by ms, s, m (or min), h or d.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 90s, 15m, 3h, 2d")
    return float(match[1]) * _SECONDS[match[2]]


@lru_cache(maxsize=256)
def nanoseconds(duration: str) -> int:
    """Return a duration in whole ns."""
    return round(seconds(duration) * 1e9)


def byte_count(text: str) -> int:
    """Return the bytes of a size such as ``"16GiB"`` or ``"500MB"``.

    Raises
    ------
    ValueError
        If ``text`` is not a number followed by B, kB, MB, GB, TB, KiB, MiB, GiB or TiB.
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number and a unit: 500MB, 16GiB")
    return int(float(match[1]) * _FACTOR[match[2]])


def _check_duration(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 90s, 15m, 3h, 2d")
    if not 0 < seconds(text) <= _LONGEST:
        raise ValueError(f"{text!r}: a duration must be longer than zero and shorter than 285 years")
    return text


def _check_bytes(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a size; write a number and a unit: 500MB, 16GiB")
    if byte_count(text) <= 0:
        raise ValueError(f"{text!r}: a size must be larger than zero")
    return text


def _check_version(value: Any) -> Any:
    if value != 1 or type(value) is not int:  # True == 1 == 1.0
        found = str(value).lower() if isinstance(value, bool) else repr(value)[:60]
        raise PydanticCustomError("version", "expected 1, found {found}; write version: 1", {"found": found})
    return value


def _check_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise PydanticCustomError(
            "not_a_word",
            "{found} is not a plain word; use letters, digits, '_' and '-', starting with a letter, at most 63",
            {"found": repr(text)},
        )
    return text


Duration = Annotated[str, BeforeValidator(_check_duration)]
"""A validated duration text; ``seconds()`` gives its value."""
ByteSize = Annotated[str, BeforeValidator(_check_bytes)]
"""A validated size text; ``byte_count()`` gives its value."""
Word = Annotated[str, AfterValidator(_check_word)]
"""A plain word: a stage, workflow, class or artifact name."""
Version = Annotated[Literal[1], BeforeValidator(_check_version)]
"""The version of the file format."""
Column = Annotated[str, Field(min_length=1)]
"""The name of a column or feature."""


def as_list(value: Any) -> Any:
    """Return one text as a list of it."""
    return [value] if isinstance(value, str) else value


def with_parameters(value: Any) -> Any:
    """Return ``module.Class`` as ``{module.Class: {}}``, as which it may be written, too, with its parameters."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        return {next(iter(value)): {}}
    if hasattr(value, "get_params"):
        raise PydanticCustomError(
            "import_path", "a {found} that was made cannot be told by name; write {example}",
            {"found": type(value).__name__, "example": repr({import_path(value): value.get_params(deep=False)})},
        )  # fmt: skip
    return value


def import_path(value: Any) -> str:
    """Return what one imports the class of an object by: without private modules."""
    public = [part for part in type(value).__module__.split(".") if not part.startswith("_")]
    return ".".join([*public, type(value).__name__])


def check_import_path(value: dict[str, dict[str, Any]], example: str) -> dict[str, dict[str, Any]]:
    """Refuse what :func:`with_parameters` gave for no import path; ``example`` is one."""
    path = next(iter(value))
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        raise PydanticCustomError(
            "import_path", "{found} is not an import path; write module.Class, such as {example}",
            {"found": repr(path), "example": example},
        )  # fmt: skip
    return value
