"""The exports of the package: a change of them is made on purpose, and is in the changelog."""

import ast
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path

import pyro_stitchnet

EXPORTS = {
    "LABELS",
    "PRESETS",
    "SVAE",
    "Answer",
    "Bound",
    "ModelConfig",
    "Objective",
    "Preset",
    "ReadOutOptions",
    "Segmentation",
    "Segmenter",
    "StitchNet",
    "Stitched",
    "bound",
    "load",
    "preset",
    "probabilities",
    "segment",
}


def test_the_package_exports_these_names() -> None:
    assert set(pyro_stitchnet.__all__) == EXPORTS
    for name in EXPORTS:
        assert getattr(pyro_stitchnet, name) is not None, name


def test_every_export_is_public_where_it_is_defined() -> None:
    stub = ast.parse(Path(pyro_stitchnet.__file__).with_suffix(".pyi").read_text("utf-8"))
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(f"pyro_stitchnet.{node.module}")
            assert {alias.name for alias in node.names} <= set(module.__all__), node.module


def test_every_public_constant_is_documented() -> None:
    """Functions and classes by Ruff's rules; here, constants by a string below them."""
    bare = []
    for found in pkgutil.walk_packages(pyro_stitchnet.__path__, "pyro_stitchnet."):
        if "._" in found.name:
            continue
        module = importlib.import_module(found.name)
        body = ast.parse(inspect.getsource(module)).body
        for node, after in itertools.pairwise([*body, ast.Pass()]):
            target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
            named = isinstance(target, ast.Name) and target.id in getattr(module, "__all__", ())
            if named and not isinstance(getattr(after, "value", None), ast.Constant):
                bare.append(f"{found.name}.{target.id}")
    assert not bare
