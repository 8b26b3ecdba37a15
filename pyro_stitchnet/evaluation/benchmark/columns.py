"""The scores of a tested model as columns of its row."""

import json
from typing import Any

import pandas as pd

from pyro_stitchnet.metrics.scores import LESION_GROUPS

__all__ = [
    "by_patient",
    "by_run",
    "dice_by_patient",
    "dice_columns",
    "line_name",
    "line_names",
    "variant_name",
]


def variant_name(predictor: str, decision: str) -> str:
    """Return the variant of a row: "" for the usual predictor with the likeliest label."""
    return ", ".join(filter(None, (predictor, "" if decision == "likeliest" else decision)))


def line_name(entry: str, variant: str) -> str:
    """Return the name of a line of the tables."""
    return f"{entry} ({variant})" if variant else entry


def line_names(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's line."""
    names = map(line_name, table["name"], table["variant"])
    return pd.Series(list(names), table.index, dtype=str)


def dice_by_patient(scores: pd.DataFrame) -> pd.Series:
    """Return the mean Dice of GGO and consolidation over the slices with the lesion, by patient.

    For each patient, Dice of a lesion is averaged over slices, then over the lesions.

    Args:
        scores: of the slices of the test patients.
    """
    present = scores[(scores["truth_pixels"] > 0) & scores["lesion"].isin(LESION_GROUPS)]
    by_lesion = present.groupby(["patient", "lesion"])["f1"].mean()
    return by_lesion.groupby(level="patient").mean()


def dice_columns(scores: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of Dice, false alarms and distances.

    Args:
        scores: of the slices of the test patients.

    Returns:
        The columns of each lesion, here GGO, and ``dice_by_patient``, the result of
        :func:`dice_by_patient` as JSON:

        - ``dice_ggo``, over the slices where it is defined: 0 for a false alarm
        - ``dice_ggo_present``, over the slices with the lesion
        - ``pooled_ggo``, over the pixels of all slices together
        - ``hd95_ggo``, the mean 95th percentile of the Hausdorff distance, in pixels
        - ``absent_ggo``, the slices without the lesion
        - ``false_alarms_ggo``, the slices without the lesion where it is predicted
    """
    columns: dict[str, Any] = {}
    for lesion in LESION_GROUPS:
        own, short = scores[scores["lesion"] == lesion], lesion.lower()
        present = own["truth_pixels"] > 0
        pixels = own["truth_pixels"].sum() + own["predicted_pixels"].sum()
        columns |= {
            f"dice_{short}": own["f1"].mean(),
            f"dice_{short}_present": own["f1"][present].mean(),
            f"pooled_{short}": 2 * own["common_pixels"].sum() / pixels if pixels else float("nan"),
            f"hd95_{short}": own["hd95"].mean(),
            f"absent_{short}": int((~present).sum()),
            f"false_alarms_{short}": int((~present & (own["predicted_pixels"] > 0)).sum()),
        }
    columns["dice_by_patient"] = json.dumps(dice_by_patient(scores).round(4).to_dict())
    return columns


def by_run(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the lesion Dice of each patient in the rows of several runs.

    Returns:
        A row per run, indexed by ``folds``, ``fold`` and ``seed``, and a column per patient; NaN
        where the run does not test the patient. Rows of an early version lack these scores and are
        left out.
    """
    rows = rows[rows["dice_by_patient"].notna()]
    runs = pd.MultiIndex.from_frame(rows[["folds", "fold", "seed"]])
    scores = pd.DataFrame([json.loads(cell) for cell in rows["dice_by_patient"]], index=runs)
    return scores.sort_index(axis=0).sort_index(axis=1)  # resampling depends on the order


def by_patient(rows: pd.DataFrame) -> pd.Series:
    """Return the lesion Dice of each patient, averaged over the rows of several runs."""
    return by_run(rows).mean()
