"""The layers of the package, read from its import graph; imports inside functions count too."""

import ast
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

import pyro_stitchnet

PACKAGE = Path(pyro_stitchnet.__file__).parent
NAME = PACKAGE.name
MOST_LINES = 400
MOST_PACKAGES, MOST_MODULES = 12, 3

LAYERS = (
    ("labels", "runtime"),
    ("data", "model", "metrics"),
    ("presets",),
    ("posterior",),
    ("training",),
    ("figures",),
    ("evaluation", "prediction", "export"),
    ("viewer",),
    ("cli",),
    ("__main__",),
)
"""What may import what: each layer the ones above it in this list, and itself within a package."""

Graph = Mapping[str, set[str]]


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {
    _module(path): path
    for path in PACKAGE.rglob("*.py")
    if path.parent / path.name != PACKAGE / "__init__.py"
}


def _imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if _known(name) else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix(f"{NAME}.") for name in found if _known(name)}


def _known(name: str) -> bool:
    return name.startswith(f"{NAME}.") and name.removeprefix(f"{NAME}.") in MODULES


GRAPH: Graph = {module: _imports(path) - {module} for module, path in MODULES.items()}


def _folder(module: str) -> str:
    """The package of a module; a module at the top, and a package's __init__, are their own."""
    is_package = MODULES[module].name == "__init__.py"
    return module if is_package or "." not in module else module.rpartition(".")[0]


def _cycle(graph: Graph) -> list[str] | None:
    """Some cycle of a graph, or None: depth-first search."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for after in sorted(graph.get(node, ())):
            if cycle := visit(after, [*path, node]):
                return cycle
        done.add(node)
        return None

    return next(filter(None, (visit(node, []) for node in sorted(graph))), None)


def _room(module: str) -> str:
    """The package or module in the top folder that a module belongs to."""
    return module.split(".")[0]


def _merged(graph: Graph, group: Callable[[str], str]) -> Graph:
    """The graph of groups of modules."""
    merged: dict[str, set[str]] = {}
    for module, imported in graph.items():
        here = merged.setdefault(group(module), set())
        here |= {group(other) for other in imported} - {group(module)}
    return merged


def _layer(module: str) -> int:
    """The layer of the longest listed name that the module lies under."""
    ranks = {name: rank for rank, names in enumerate(LAYERS) for name in names}
    names = [name for name in ranks if f"{module}.".startswith(f"{name}.")]
    assert names, f"{module} belongs to no layer; add its package to LAYERS"
    return ranks[max(names, key=len)]


def test_the_search_finds_cycles() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_no_cycle_between_files() -> None:
    assert _cycle(GRAPH) is None


@pytest.mark.parametrize("group", [_folder, _room])
def test_no_cycle_between_packages(group: Callable[[str], str]) -> None:
    assert _cycle(_merged(GRAPH, group)) is None


def test_no_package_imports_upwards() -> None:
    upwards = [
        f"{module} imports {other}"
        for module, imported in GRAPH.items()
        for other in imported
        if _layer(other) >= _layer(module) and _room(module) != _room(other)
    ]
    assert not upwards


def test_private_modules_stay_in_their_folder() -> None:
    foreign = [
        f"{module} imports {other}"
        for module, imported in GRAPH.items()
        for other in imported
        if other.rpartition(".")[2].startswith("_")
        and MODULES[module].parent != MODULES[other].parent
    ]
    assert not foreign


def test_the_top_folder_fits_on_a_screen() -> None:
    packages = [p for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()]
    modules = [p for p in PACKAGE.glob("*.py") if not p.name.startswith("__")]
    assert len(packages) <= MOST_PACKAGES
    assert len(modules) <= MOST_MODULES


def _sources() -> Iterable[Path]:
    root = PACKAGE.parent
    yield from MODULES.values()
    for folder in ("tests", "examples", "benchmarks", "docs"):
        yield from (root / folder).rglob("*.py")


def test_no_file_is_too_long() -> None:
    long = [str(p) for p in _sources() if len(p.read_text("utf-8").splitlines()) > MOST_LINES]
    assert not long
