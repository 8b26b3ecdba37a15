"""Table 1 of the article from the scores of single slices, and its files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_stitchnet.evaluation.metrics.scores import GROUPS, LESIONS, SCORES
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["per_patient", "save", "table_one", "to_markdown"]

HEADINGS = {"iou": "IoU", "f1": "F1", "recall": "Recall", "precision": "Precision"}


def table_one(scores: pd.DataFrame) -> pd.DataFrame:
    """Averages scores over images, in the form of the article's Table 1.

    A score that is undefined on an image (see `slice_scores`) is left out of the mean and of the
    deviation; the counts say how many images remain. The row Overall is the mean of the article's
    three groups' means; as there it has no deviation. It is undefined where one of the three is.

    Args:
        scores: The result of `slice_scores`, or several of them concatenated.

    Returns:
        One row each for GGO, CON, Background, Overall and Infection (the index, called
        ``lesion``), or for Infection alone where nothing else was scored, with

        - ``averaged_over``: "images" (in the result of `per_patient`: "patients");
        - for each of iou, f1, recall and precision: ``iou_mean``, ``iou_std`` (the population's,
            ddof = 0) and ``iou_defined``, the number of images that the two are taken over;
        - ``f1_lesion_present_mean``: mean F1 over the images whose truth has the lesion, the figure
            that work on COVID-SemiSeg reports;
        - ``pooled_dice``: Dice of all pixels of all images taken together;
        - ``images``; ``lesion_images``, whose truth has the lesion; ``false_alarm_images``, where
            the lesion is predicted but absent; ``missed_images``, where it is the other way round.

        Counts are nullable integers, missing for Overall (except ``images``).

    Raises:
        ValueError: If there are no scores, or a column is missing.
    """
    _check(scores)
    return _table(scores, by=None)


def per_patient(scores: pd.DataFrame) -> pd.DataFrame:
    """Averages scores within each patient, then over patients, so that every patient counts alike.

    Args:
        scores: The result of `slice_scores`, given the patients.

    Returns:
        The columns of `table_one`. Means, deviations, ``*_defined`` and
        ``f1_lesion_present_mean`` are over patients; the counts of images stay counts of images,
        and ``pooled_dice`` is of all pixels as there.

    Raises:
        ValueError: If there are no scores, a column is missing or a patient is unknown.
    """
    _check(scores)
    if scores["patient"].isna().any():
        raise ValueError("a score has no patient; give `slice_scores` one patient a slice")
    return _table(scores, by="patient")


def _check(scores: pd.DataFrame) -> None:
    needed = ("patient", "lesion", *SCORES, "truth_pixels", "predicted_pixels", "common_pixels")
    if missing := [column for column in needed if column not in scores]:
        raise ValueError(f"scores lack {', '.join(missing)}; make them with `slice_scores`")
    if not len(scores):
        raise ValueError("no scores; score at least one slice")


def _table(scores: pd.DataFrame, by: str | None) -> pd.DataFrame:
    scored = set(scores["lesion"])
    rows = {g: _row(scores[scores["lesion"] == g], by) for g in GROUPS if g in scored}
    table = pd.DataFrame.from_dict(rows, orient="index")
    if scored >= set(LESIONS):
        means = [c for c in table if c.endswith("_mean") or c == "pooled_dice"]
        overall = table.loc[list(LESIONS), means].mean(skipna=False)
        table.loc["Overall", means] = overall
        table.loc["Overall", "images"] = table["images"].iloc[0]
        order = [*LESIONS, "Overall", *(g for g in rows if g not in LESIONS)]
        table = table.loc[order]
    table.insert(0, "averaged_over", "images" if by is None else "patients")
    counts = [c for c in table if c.endswith(("_defined", "images"))]
    return table.astype(dict.fromkeys(counts, "Int64")).rename_axis("lesion")


def _row(scores: pd.DataFrame, by: str | None) -> dict[str, float]:
    """One lesion's row; ``by`` is the column to average within first, if any."""

    def averaged(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[list(SCORES)] if by is None else rows.groupby(by)[list(SCORES)].mean()

    units = averaged(scores)
    row: dict[str, float] = {}
    for score in SCORES:
        row[f"{score}_mean"] = units[score].mean()
        row[f"{score}_std"] = units[score].std(ddof=0)
        row[f"{score}_defined"] = units[score].count()
    present, predicted = scores["truth_pixels"] > 0, scores["predicted_pixels"] > 0
    row["f1_lesion_present_mean"] = averaged(scores[present])["f1"].mean()
    pixels = scores["truth_pixels"].sum() + scores["predicted_pixels"].sum()
    row["pooled_dice"] = 2 * scores["common_pixels"].sum() / pixels if pixels else np.nan
    row["images"] = len(scores)
    row["lesion_images"] = present.sum()
    row["false_alarm_images"] = (~present & predicted).sum()
    row["missed_images"] = (present & ~predicted).sum()
    return row


def to_markdown(table: pd.DataFrame) -> str:
    """Writes a table as the article does: ".391 ± .280", a dash where undefined.

    Args:
        table: The result of `table_one` or `per_patient`.

    Returns:
        A Markdown table and one sentence on empty masks, ending in a new line.
    """
    unit = table["averaged_over"].iloc[0]
    header = ["Lesion", *HEADINGS.values(), "F1 (lesion present)", "Dice (pooled)"]
    header += [f"{unit.capitalize()} defined (IoU, F1 / Recall / Precision)"]
    header += ["Images", "with lesion", "false alarm", "missed"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for lesion, row in table.iterrows():
        cells = [str(lesion)]
        for score in SCORES:
            mean, std = _decimal(row[f"{score}_mean"]), row[f"{score}_std"]
            cells.append(mean if pd.isna(std) else f"{mean} ± {_decimal(std)}")
        cells += [_decimal(row["f1_lesion_present_mean"]), _decimal(row["pooled_dice"])]
        # IoU and F1 are undefined on the same images: those where both masks are empty.
        defined = [_count(row[f"{score}_defined"]) for score in ("iou", "recall", "precision")]
        cells.append("–" if set(defined) == {"–"} else " / ".join(defined))
        counts = ("images", "lesion_images", "false_alarm_images", "missed_images")
        lines.append(cells + [_count(row[count]) for count in counts])
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"{body}\n\nMean ± population standard deviation over {unit}; a ratio 0/0 (an empty mask) "
        "is undefined and left out of its mean, so a lesion falsely predicted on an image without "
        "it scores IoU = F1 = Precision = 0, and an image rightly left empty scores nothing.\n"
    )


def _decimal(value: float) -> str:
    text = f"{value:.3f}"
    return "–" if pd.isna(value) else text.removeprefix("0")


def _count(value: Any) -> str:
    return "–" if pd.isna(value) else f"{value:,}"


def save(scores: pd.DataFrame, directory: str | os.PathLike[str], **info: Any) -> None:
    """Writes scores and tables: ``scores.csv``, ``table.csv``, ``table.json`` and ``table.md``.

    ``scores.csv`` has every slice, ``table.csv`` the result of `table_one`. ``table.json`` has
    ``info``, ``per_image`` and, where every slice's patient is known, ``per_patient``, each table
    as {lesion: {column: value}}, with null where a value is undefined. ``table.md`` has the same
    tables to read. Each file appears whole or not at all.

    Args:
        scores: The result of `slice_scores`.
        directory: Where to write; made if it does not exist.
        **info: What the numbers come from: command, seed, commit and the like. Anything JSON can
            hold, and paths, NumPy scalars and arrays.

    Raises:
        ValueError: As in `table_one`.
        TypeError: If a value of ``info`` cannot be written as JSON.
    """
    tables = {"per_image": table_one(scores)}
    if scores["patient"].notna().all():
        tables["per_patient"] = per_patient(scores)
    contents = {
        "scores.csv": scores.to_csv(index=False),
        "table.csv": tables["per_image"].to_csv(),
        "table.json": json.dumps(
            _plain({"info": info, **{k: t.to_dict("index") for k, t in tables.items()}}),
            indent=2,
            allow_nan=False,
        )
        + "\n",
        "table.md": "\n".join(to_markdown(table) for table in tables.values()),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(directory / name, text)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; NaN, infinity and missing become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value
