"""What a number may be: named ranges for annotations, and their check.

``steps: Count`` is an int from 1 to a hundred million. Pydantic reads the same annotations where
values come from a file.
"""

import inspect
import reprlib
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

__all__ = [
    "NO_BOOL",
    "Count",
    "CountOrZero",
    "Decay",
    "Few",
    "FewOrZero",
    "GreyValue",
    "LabelBudget",
    "Millimetres",
    "Positive",
    "Processes",
    "Seed",
    "Share",
    "Side",
    "Weight",
    "Workers",
    "check_ranges",
    "checked",
    "checked_arguments",
    "describe_error",
]


def _no_bool(value: Any) -> Any:
    """Refuse what pydantic would take for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value}")
    return value


NO_BOOL = BeforeValidator(_no_bool)
"""The part of an annotation that refuses True and False where a number is meant."""

Count = Annotated[int, NO_BOOL, Field(ge=1, le=100_000_000)]
"""A number of steps or slices."""

CountOrZero = Annotated[int, NO_BOOL, Field(ge=0, le=100_000_000)]
"""A number of steps or slices, or none."""

LabelBudget = Annotated[int, NO_BOOL, Field(ge=-1, le=100_000_000)]
"""A number of labelled slices; -1 for all."""

Few = Annotated[int, NO_BOOL, Field(ge=1, le=1024)]
"""A number of things that are in memory together, such as the slices of a batch."""

FewOrZero = Annotated[int, NO_BOOL, Field(ge=0, le=1024)]
"""A number of things that are in memory together, or none."""

Processes = Annotated[int, NO_BOOL, Field(ge=1, le=128)]
"""A number of processes."""

Workers = Annotated[int, NO_BOOL, Field(ge=0, le=128)]
"""A number of processes beside this one, or none."""

Seed = Annotated[int, NO_BOOL, Field(ge=0, le=2**32 - 1)]
"""A seed that NumPy and torch take."""

Side = Annotated[int, NO_BOOL, Field(ge=32, le=2048)]
"""Rows and columns of a slice: one of 2048 x 2048 pixels takes gigabytes in a network."""

Share = Annotated[float, NO_BOOL, Field(ge=0, le=1)]
"""A share of a whole."""

Decay = Annotated[float, NO_BOOL, Field(ge=0, lt=1)]
"""Decay of a moving average."""

Weight = Annotated[float, NO_BOOL, Field(ge=0, le=1_000_000)]
"""A factor or an exponent that may be 0."""

Positive = Annotated[float, NO_BOOL, Field(gt=0, le=1_000_000)]
"""A factor or a time above 0."""

Millimetres = Annotated[float, NO_BOOL, Field(ge=0, le=100)]
"""A length in the body."""

GreyValue = Annotated[float, NO_BOOL, Field(ge=-100_000, le=100_000)]
"""A grey value of a scan, such as Hounsfield units."""

WORDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
"""Pydantic's errors of range: words, and the key of the bound."""

P = ParamSpec("P")
R = TypeVar("R")


def check_ranges(config: Any) -> None:
    """Check the fields of a dataclass whose annotations have a range.

    Raises:
        ValueError: a field is out of its range; the message has its name, range and value.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Walk:
        ...     steps: Count
        >>> check_ranges(Walk(0))
        Traceback (most recent call last):
        ValueError: steps must be at least 1, got 0
    """
    kind: Any = type(config)
    for name, adapter in _adapters(kind).items():
        _check(name, adapter, getattr(config, name))


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a command that checks the options whose annotations have a range.

    It raises ValueError for an option out of its range, which the message names as ``--option``.
    """
    return _checked(function, lambda name: f"--{name.replace('_', '-')}")


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that checks the arguments whose annotations have a range.

    It raises ValueError for an argument out of its range.
    """
    return _checked(function, str)


def _checked(function: Callable[P, R], shown: Callable[[str], str]) -> Callable[P, R]:
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        for name, adapter in _adapters(function).items():
            if name in given:
                _check(shown(name), adapter, given[name])
        return function(*args, **kwargs)

    return call


def describe_error(name: str, error: Mapping[str, Any]) -> str:
    """Describe an error of pydantic in the words of this package.

    Args:
        name: of the value; may be empty.
        error: an item of ``ValidationError.errors()``.
    """
    given = reprlib.repr(error["input"])
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "finite_number":
        text = f"must be a finite number, got {given}"
    elif error["type"] in WORDS:
        words, key = WORDS[error["type"]]
        text = f"must be {words} {error['ctx'][key]:,.12g}, got {given}"
    if not name:
        return text
    return f"{name} {text}" if text.startswith("must be ") else f"{name}: {text}"


@cache
def _adapters(annotated: Any) -> Mapping[str, TypeAdapter[Any]]:
    hints = get_type_hints(annotated, include_extras=True)
    return {name: TypeAdapter(hint) for name, hint in hints.items() if _has_range(hint)}


def _has_range(hint: Any) -> bool:
    return any(isinstance(part, FieldInfo) or _has_range(part) for part in get_args(hint))


def _check(name: str, adapter: TypeAdapter[Any], value: Any) -> None:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(describe_error(name, error.errors()[0])) from None
