"""Whether a dataset was prepared like the slices that a model was trained on."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.data.datasets.dataset import Dataset

__all__ = ["check_preparation", "note_size"]


def check_preparation(dataset: Dataset, model: Path, info: Mapping[str, Any]) -> None:
    """Refuse slices whose grey values mean something else than those that a model was trained on.

    The window matters for scans in Hounsfield units, and the black outside the lung field where
    both have a lung method. What one of both does not record is not compared.

    Args:
        dataset: the slices.
        model: the checkpoint, for messages.
        info: its record.

    Raises:
        ValueError: the window or ``zero_outside`` differs.
    """
    ours, theirs = dataset.about["preprocessing"], _recorded(info)
    matters = {
        "window": dataset.manifest["hounsfield"].any(),
        "zero_outside": "none" not in (ours.get("lungs"), theirs.get("lungs")),
    }
    if differ := [name for name in matters if matters[name] and _differs(name, ours, theirs)]:
        here, there = (
            " ".join(_option(name, each[name]) for name in differ) for each in (ours, theirs)
        )
        raise ValueError(
            f"{dataset.folder}: was prepared with {here}, but {model} was trained on slices "
            f"prepared with {there}; prepare the data again with {there}"
        )


def note_size(dataset: Dataset, model: Path, info: Mapping[str, Any]) -> None:
    """Print a note if slices have another size than those that a model was trained on."""
    trained = _recorded(info)
    if _differs("size", dataset.about["preprocessing"], trained):
        print(
            f"note: {dataset.folder}: slices of size {dataset.size}; {model} was trained on size "
            f"{trained['size']}",
            file=sys.stderr,
        )


def _recorded(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the preprocessing that a model's record has; empty if it has none."""
    return info.get("dataset", {}).get("preprocessing") or {}


def _differs(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether both have a setting, with different values."""
    if name not in ours or name not in theirs:
        return False
    one, other = (tuple(v) if isinstance(v, list) else v for v in (ours[name], theirs[name]))
    return bool(one != other)


def _option(name: str, value: Any) -> str:
    """Return a setting as an option of `stitchnet prepare`."""
    if name == "window":
        return "--window {:g} {:g}".format(*value)
    return "--zero-outside" if value else "--no-zero-outside"
