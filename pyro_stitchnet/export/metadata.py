"""What an exported file says of itself: how to prepare its input and to read its output."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.export.traceable import TraceableSegmenter
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.runtime.provenance import provenance

__all__ = ["INTENDED_USE", "describe", "steps"]

INTENDED_USE = "Research. Not a medical device, not to be used for diagnosis or treatment."
"""What every exported file says of its use."""

READ_OUTS = {
    "guide": "q(y | x), the guide's segmentation network",
    "prior": "p(y | z), z at the mean of each level of q(z | x)",
    "posterior": "p(y | x, z), Bayes' rule through the styles, z at the mean of each level",
}


def describe(
    segmenter: TraceableSegmenter, info: Mapping[str, Any], checkpoint: str | Path, size: int | None
) -> dict[str, Any]:
    """Everything a user of the exported file has to know, as plain data.

    Of a checkpoint's records only the preprocessing and the version that trained it are kept, so
    no patient's and no folder's name leaves with it.

    Args:
        segmenter: what is exported.
        info: the checkpoint's.
        checkpoint: its path, of which the name is kept.
        size: rows and columns that the file takes; None where they are free.
    """
    preprocessing = info.get("dataset", {}).get("preprocessing")
    side: int | str = size or f"a multiple of {segmenter.stride}, at least {2 * segmenter.stride}"
    return {
        "task": "label probabilities of every pixel of axial lung CT slices",
        "intended_use": INTENDED_USE,
        "read_out": segmenter.read_out,
        "read_out_meaning": READ_OUTS[segmenter.read_out],
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
        "preprocessing_steps": steps(preprocessing),
        "checkpoint": Path(checkpoint).name,
        "trained_with": {k: info[k] for k in ("pyro-stitchnet", "commit") if k in info},
        "exported_with": {k: v for k, v in provenance().items() if k not in ("command", "machine")},
    }


def steps(preprocessing: Mapping[str, Any] | None) -> list[str]:
    """The way from a scan to the input, in words.

    Args:
        preprocessing: the numbers of :class:`~pyro_stitchnet.data.preprocessing.steps.Preprocessing` that
            the training data were prepared with; None where the checkpoint does not say.
    """
    if preprocessing is None:
        return ["not recorded in the checkpoint: prepare slices as its training data were"]
    p = preprocessing
    low, high = p["window"]
    said = [
        "axial slices, rows from front to back, columns from the patient's right to left",
        f"Hounsfield units from {low:g} to {high:g} become 0 to 1 and are clipped beyond; of other "
        "grey values, black is 0 and white 1",
    ]
    if p["lungs"] != "none":
        said += [
            f"the lung field by pyro_stitchnet's segmenter {p['lungs']!r}, slice by slice opened "
            f"with a disc of radius {p['opening']:g} mm, then closed with {p['closing']:g} mm",
            f"slices whose lung field covers at most {p['least_lung']:g} of them are left out",
            f"cut to the box around the lung field and {p['margin']:g} mm more",
        ]
        if p["zero_outside"]:
            said.append("black outside the lung field")
    return [
        *said,
        "the shorter side padded with black on both ends, to a square",
        f"resized to {p['size']} x {p['size']}, bilinear and anti-aliased (Pillow's BILINEAR)",
    ]
