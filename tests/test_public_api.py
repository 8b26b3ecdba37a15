"""The public names are those written down: a change is made on purpose, and told in the changelog.

python tests/test_public_api.py    # writes them down anew
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro_stitchnet

WRITTEN = Path(__file__).parent / "public_api.txt"


def modules() -> list[str]:
    found = pkgutil.walk_packages(pyro_stitchnet.__path__, "pyro_stitchnet.")
    return ["pyro_stitchnet", *(m.name for m in found if "._" not in m.name)]


def exported() -> Iterator[tuple[str, Any]]:
    """Every exported name with what it names."""
    for name in modules():
        if name == "pyro_stitchnet.__main__":
            continue
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            yield f"{name}.{public}", getattr(module, public)


def said() -> str:
    """A line a name, with the parameters of what can be called and the fields of dataclasses."""
    return "\n".join(f"{name}{_parameters(thing)}" for name, thing in sorted_names()) + "\n"


def sorted_names() -> list[tuple[str, Any]]:
    return sorted(exported(), key=lambda pair: pair[0])


def _parameters(thing: Any) -> str:
    if dataclasses.is_dataclass(thing):
        return f"({', '.join(field.name for field in dataclasses.fields(thing))})"
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return ""
    try:
        return f"({', '.join(inspect.signature(thing).parameters)})"
    except ValueError:  # of a class in C
        return ""


def test_public_names_are_those_written_down() -> None:
    assert said() == WRITTEN.read_text(encoding="utf-8"), (
        f"public names changed; if that is meant, run `python {__file__}` and tell the changelog"
    )


def test_every_public_name_is_documented() -> None:
    """Functions and classes by Ruff's rules; here, that constants are too, by a string below."""
    bare = []
    for name in modules():
        module = importlib.import_module(name)
        body = ast.parse(inspect.getsource(module)).body
        for node, after in itertools.pairwise([*body, ast.Pass()]):
            target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
            named = isinstance(target, ast.Name) and target.id in getattr(module, "__all__", ())
            if named and not isinstance(getattr(after, "value", None), ast.Constant):
                bare.append(f"{name}.{target.id}")
    assert not bare


if __name__ == "__main__":
    WRITTEN.write_text(said(), encoding="utf-8")
