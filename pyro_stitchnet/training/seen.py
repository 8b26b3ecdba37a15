"""Which slices a model has seen: by their patients, and by copies of their images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.leakage import copied

__all__ = ["SEEN", "TRAINED", "seen", "seen_hashes", "seen_patients", "summary_of_seen"]

TRAINED = ("labelled", "unlabelled", "start")
"""The parts of a record of the slices that a model, or the one it started from, was trained on."""

SEEN = (*TRAINED, "validation")
"""The same, and the slices that chose its weights."""


def summary_of_seen(manifests: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Return what the record of a run keeps of its slices.

    Args:
        manifests: a row for each slice of a part.

    Returns:
        ``patients``: the names of each part. ``hashes``: the perceptual hashes of the slices of
        each part in :data:`SEEN`, joined. They find a slice again whose patient has another name.
    """
    return {
        "patients": {part: sorted(set(rows["patient"])) for part, rows in manifests.items()},
        "hashes": {part: "".join(rows["hash"]) for part, rows in manifests.items() if part in SEEN},
    }


def seen_patients(info: Mapping[str, Any], parts: Sequence[str] = SEEN) -> set[str]:
    """Return the patients of some parts of a checkpoint's record."""
    patients = info.get("patients", {})
    return {name for part in parts for name in patients.get(part, ())}


def seen_hashes(info: Mapping[str, Any], parts: Sequence[str] = SEEN) -> str:
    """Return the hashes of some parts of a checkpoint's record, joined."""
    return "".join(info.get("hashes", {}).get(part, "") for part in parts)


def seen(
    manifest: pd.DataFrame, info: Mapping[str, Any], parts: Sequence[str] = SEEN
) -> np.ndarray:
    """Return which slices a model has seen, bool (N,).

    Args:
        manifest: a row for each slice.
        info: the record of the checkpoint. One of an older version has no hashes.
        parts: of the record.
    """
    same = manifest["patient"].isin(seen_patients(info, parts)).to_numpy()
    return same | copied(manifest["hash"], seen_hashes(info, parts))
