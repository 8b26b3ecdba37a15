"""Metadata of an exported file: how to prepare its input and to interpret its output."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.preparation import recorded_preprocessing

__all__ = ["INTENDED_USE", "describe", "preprocessing_steps"]

INTENDED_USE = "Research. Not a medical device, not to be used for diagnosis or treatment."
"""The intended use stated in every exported file."""

READ_OUTS = {
    "guide": "q(y | x), the classifier's probabilities",
    "prior": "p(y | z), z at the mean of each level of q(z | x)",
    "posterior": "the labels given the slice, by Bayes' rule; z, where it matters, at its mean",
}


def describe(
    model: TraceableModel, info: Mapping[str, Any], checkpoint: str | Path, size: int | None
) -> dict[str, Any]:
    """Collect the metadata of an exported file, as plain data.

    From the checkpoint's record only the preprocessing and the version of the training are
    included, so no name of a patient or folder is exported.

    Args:
        model: the exported model.
        info: the checkpoint's record.
        checkpoint: its path, of which the name is included.
        size: rows and columns of the input; None if they are dynamic.
    """
    preprocessing = recorded_preprocessing(info) or None
    side: int | str = size or f"a multiple of {model.stride}, at least {2 * model.stride}"
    return {
        "task": "label probabilities of every pixel of axial lung CT slices",
        "intended_use": INTENDED_USE,
        "read_out": model.read_out,
        "read_out_meaning": READ_OUTS[model.read_out],
        "input": {
            "name": "image",
            "dtype": "float32",
            "shape": ["any number of slices", 1, side, side],
            "value_range": [0, 1],
        },
        "output": {
            "name": "probabilities",
            "dtype": "float32",
            "shape": ["as the input", len(LABELS), "as the input", "as the input"],
            "labels": list(LABELS),
        },
        "preprocessing": preprocessing,
        "preprocessing_steps": preprocessing_steps(preprocessing),
        "checkpoint": Path(checkpoint).name,
        "trained_with": {k: info[k] for k in ("pyro-stitchnet", "commit") if k in info},
        "exported_with": {k: v for k, v in provenance().items() if k not in ("command", "machine")},
    }


def preprocessing_steps(preprocessing: Mapping[str, Any] | None) -> list[str]:
    """Describe the preprocessing from a scan to the input, in words.

    Args:
        preprocessing: fields of
            :class:`~pyro_stitchnet.data.preprocessing.steps.Preprocessing`; None if the checkpoint
            does not record them.
    """
    if preprocessing is None:
        return ["not recorded in the checkpoint: prepare slices as the training data were"]
    p = preprocessing
    low, high = p["window"]
    steps = [
        "axial slices, rows from front to back, columns from the patient's right to left",
        "what lies outside the field of view set to the grey value of air",
        f"Hounsfield units from {low:g} to {high:g} scaled to 0 to 1 and clipped; other grey "
        "values scaled so that black is 0 and white is 1",
    ]
    if p["lungs"] != "none":
        steps += [
            f"lung field by pyro_stitchnet's method {p['lungs']!r}, in each slice opened with "
            f"a disc of radius {p['opening']:g} mm, then closed with {p['closing']:g} mm",
            f"slices dropped if the lung field covers at most {p['least_lung']:g} of their area",
            f"cropped to the box around the lung field and a margin of {p['margin']:g} mm",
        ]
        if p["zero_outside"]:
            steps.append("black outside the lung field")
    return [
        *steps,
        "shorter side padded with black on both ends, to a square",
        f"resized to {p['size']} x {p['size']}, bilinear and anti-aliased (Pillow's BILINEAR)",
        "rounded to the 256 grey values k / 255",
    ]
