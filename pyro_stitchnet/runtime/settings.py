"""Settings: reading them from YAML, comparing them, and errors that name the key and the remedy."""

import difflib
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from pyro_stitchnet.runtime.ranges import describe_error

__all__ = ["check_keys", "differences", "read_mapping", "validated"]

Config = TypeVar("Config")

SHOWN = 3  # errors of a file
MOST_BYTES = 1_000_000  # of a file


def validated(kind: type[Config], values: Mapping[str, Any], path: Path | None = None) -> Config:
    """Make a dataclass of values with their types checked.

    Raises:
        ValueError: a value is wrong; the message has the file and the key.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        wrong = [
            describe_error(".".join(map(str, one["loc"])), one) for one in error.errors()[:SHOWN]
        ]
        message = "; ".join(wrong)
        raise ValueError(f"{path}: {message}" if path else message) from None


def differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    """Describe the settings that differ, such as "optimiser.ema was 0.9 and is 0.5"."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{above}{key}.")
        elif one != other:
            found.append(f"{above}{key} was {reprlib.repr(one)} and is {reprlib.repr(other)}")
    return found


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does, and refuses a key that occurs twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("+-0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping of a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or not a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: larger than a megabyte; give a configuration")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from None
    except RecursionError:
        raise ValueError(f"{path}: too deep for a configuration") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping, one line per field, such as `steps: 1000`")
    return values


def check_keys(
    values: Mapping[Any, Any], known: Mapping[str, Any], path: Path | None, above: str = ""
) -> None:
    """Refuse unknown fields; the message names the nearest known one, on any level."""
    places = _places(known, above)
    for key, value in values.items():
        if not isinstance(key, str) or key not in known:
            near = difflib.get_close_matches(str(key), places, 1)
            hint = (
                f"did you mean {places[near[0]]!r}?" if near else f"choose from {', '.join(known)}"
            )
            raise ValueError(f"{path}: unknown key {above + str(key)!r}; {hint}")
        if isinstance(known[key], dict):
            if not isinstance(value, dict):
                raise ValueError(f"{path}: {above + key!r} must be a mapping of its fields")
            check_keys(value, known[key], path, f"{above}{key}.")


def _places(known: Mapping[str, Any], above: str) -> dict[str, str]:
    """The dotted place of every field, on all levels; the highest level comes first."""
    places = {name: above + name for name in known}
    for key, inside in known.items():
        if isinstance(inside, dict):
            places = {**_places(inside, f"{above}{key}."), **places}
    return places
