"""Whether a dataset was prepared like the slices that a model was trained on."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_stitchnet.data.datasets.dataset import Dataset

__all__ = ["check_preparation", "note_preparation", "recorded_preprocessing"]


def recorded_preprocessing(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the preprocessing that a checkpoint's record has; empty if it has none."""
    return info.get("dataset", {}).get("preprocessing") or {}


def check_preparation(dataset: Dataset, model: Path, info: Mapping[str, Any]) -> None:
    """Refuse slices whose grey values mean something else than those that a model was trained on.

    The window is compared if there are scans in Hounsfield units, and ``zero_outside`` if both have
    a lung method. A setting that one of them does not record is not compared.

    Args:
        dataset: the slices.
        model: the checkpoint, for messages.
        info: its record.

    Raises:
        ValueError: the window or ``zero_outside`` differs.
    """
    ours, theirs = dataset.about["preprocessing"], recorded_preprocessing(info)
    matters = {
        "window": dataset.manifest["hounsfield"].any(),
        "zero_outside": _both_have_lungs(ours, theirs),
    }
    if differ := [name for name in matters if matters[name] and _differs(name, ours, theirs)]:
        here, there = _options(differ, ours), _options(differ, theirs)
        raise ValueError(
            f"{dataset.folder}: was prepared with {here}, but {model} was trained on slices "
            f"prepared with {there}; prepare the data again with {there}"
        )


def note_preparation(dataset: Dataset, model: Path, info: Mapping[str, Any]) -> None:
    """Print a note if slices have another size or crop than those that a model was trained on."""
    ours, theirs = dataset.about["preprocessing"], recorded_preprocessing(info)
    compared = ("size", "lungs", "margin") if _both_have_lungs(ours, theirs) else ("size", "lungs")
    if differ := [name for name in compared if _differs(name, ours, theirs)]:
        print(
            f"note: {dataset.folder}: slices prepared with {_options(differ, ours)}; {model} was "
            f"trained on slices prepared with {_options(differ, theirs)}",
            file=sys.stderr,
        )


def _differs(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether both have a setting, with different values."""
    if name not in ours or name not in theirs:
        return False
    one, other = (tuple(v) if isinstance(v, list) else v for v in (ours[name], theirs[name]))
    return bool(one != other)


def _both_have_lungs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether both were cropped to a lung field."""
    return "none" not in (ours.get("lungs"), theirs.get("lungs"))


def _options(names: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return settings as options of `stitchnet prepare`."""
    return " ".join(_option(name, settings[name]) for name in names)


def _option(name: str, value: Any) -> str:
    if name == "window":
        return "--window {:g} {:g}".format(*value)
    if name == "zero_outside":
        return "--zero-outside" if value else "--no-zero-outside"
    return f"--{name} {value}"
