"""Table 1 of the article, from the scores of single slices, and its files."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_stitchnet.evaluation.coverage import Coverage
from pyro_stitchnet.metrics.scores import ARTICLE_GROUPS, GROUPS, SCORES
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import csv_text
from pyro_stitchnet.runtime.text_table import TextTable, count, decimal

__all__ = ["per_patient", "save", "summary", "table_one", "to_markdown"]

HEADINGS = {"iou": "IoU", "f1": "F1", "recall": "Recall", "precision": "Precision"}
COUNTS = ("images", "lesion_images", "false_alarm_images", "missed_images")


def table_one(scores: pd.DataFrame) -> pd.DataFrame:
    """Average scores over images, in the form of the article's Table 1.

    A score that is undefined on an image (see `slice_scores`) is left out of mean and deviation;
    the counts give the number of images that remain. The row Overall is the mean of the means of
    the article's three groups, without a deviation, as in the article. It is undefined if one of
    the three is.

    Args:
        scores: The result of `slice_scores`, or several of them concatenated.

    Returns:
        One row each for GGO, CON, Background, Overall and Infection (the index, named
        ``lesion``), or for Infection alone if nothing else was scored, with

        - ``averaged_over``: "images" (in the result of `per_patient`: "patients");
        - for each of iou, f1, recall and precision: ``iou_mean``, ``iou_std`` (the population's,
            ddof = 0) and ``iou_defined``, the number of images with a defined score;
        - ``f1_lesion_present_mean``: mean F1 over the images whose truth has the lesion, as
            reported on COVID-SemiSeg;
        - ``pooled_dice``: Dice of the pixels of all images together;
        - ``images``; ``lesion_images``, whose truth has the lesion; ``false_alarm_images``, where
            the lesion is predicted but absent; ``missed_images``, where it is present but not
            predicted.

        Counts are nullable integers, missing for Overall (except ``images``).

    Raises:
        ValueError: If there are no scores, or a column is missing.
    """
    _check(scores)
    return _table(scores, by=None)


def per_patient(scores: pd.DataFrame) -> pd.DataFrame:
    """Average scores within each patient, then over patients: every patient has equal weight.

    Args:
        scores: The result of `slice_scores`, called with patients.

    Returns:
        The columns of `table_one`. Means, deviations, ``*_defined`` and
        ``f1_lesion_present_mean`` are over patients; the other counts are of images, and
        ``pooled_dice`` is over all pixels.

    Raises:
        ValueError: If there are no scores, a column is missing or a patient is unknown.
    """
    _check(scores)
    if scores["patient"].isna().any():
        raise ValueError("a score has no patient; call `slice_scores` with one patient per slice")
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
    if scored >= set(ARTICLE_GROUPS):
        means = [c for c in table if c.endswith("_mean") or c == "pooled_dice"]
        overall = table.loc[list(ARTICLE_GROUPS), means].mean(skipna=False)
        table.loc["Overall", means] = overall
        table.loc["Overall", "images"] = table["images"].iloc[0]
        order = [*ARTICLE_GROUPS, "Overall", *(g for g in rows if g not in ARTICLE_GROUPS)]
        table = table.loc[order]
    table.insert(0, "averaged_over", "images" if by is None else "patients")
    counts = [c for c in table if c.endswith(("_defined", "images"))]
    return table.astype(dict.fromkeys(counts, "Int64")).rename_axis("lesion")


def _row(scores: pd.DataFrame, by: str | None) -> dict[str, float]:
    """Return the row of one group; scores are first averaged within the groups of ``by``."""

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
    """Write a table of scores and a table of counts, in the article's form.

    Args:
        table: The result of `table_one` or `per_patient`.

    Returns:
        Two Markdown tables and a sentence on undefined scores, ending in a new line.
    """
    unit = str(table["averaged_over"].iloc[0])
    scores = TextTable(
        ["Lesion", *HEADINGS.values(), "F1 (lesion present)", "Dice (pooled)"],
        [
            [str(lesion), *_scores(row), decimal(row["pooled_dice"])]
            for lesion, row in table.iterrows()
        ],
    )
    counts = TextTable(
        [
            "Lesion", "Images", "with lesion", "false alarm", "missed",
            f"{unit.capitalize()} with IoU and F1 / recall / precision defined",
        ],
        [
            [str(lesion), *(count(row[name]) for name in COUNTS), _defined(row)]
            for lesion, row in table.iterrows()
        ],
    )  # fmt: skip
    return (
        f"{scores.markdown()}\n{counts.markdown()}\n"
        f"Mean ± population standard deviation over {unit}. A ratio 0/0 (an empty mask) is "
        "undefined and left out of its mean: a lesion predicted on an image without it scores "
        "IoU = F1 = Precision = 0, and an image correctly left empty has no score.\n"
    )


def summary(table: pd.DataFrame) -> TextTable:
    """Return the scores and the false alarms for the terminal.

    Args:
        table: The result of `table_one` or `per_patient`, or what `table.csv` holds, indexed by
            lesion.
    """
    rows = []
    for lesion, row in table.iterrows():
        absent = row["images"] - row["lesion_images"]
        alarms = (
            "–" if pd.isna(absent) else f"{count(row['false_alarm_images'])} of {count(absent)}"
        )
        rows.append([str(lesion), *_scores(row), alarms])
    return TextTable(["Lesion", *HEADINGS.values(), "F1, lesion present", "False alarms"], rows)


def _scores(row: pd.Series) -> list[str]:
    """Format mean and deviation of each score, and the mean F1 of images with the lesion."""
    cells = []
    for score in SCORES:
        mean, std = decimal(row[f"{score}_mean"]), row[f"{score}_std"]
        cells.append(mean if pd.isna(std) else f"{mean} ± {decimal(std)}")
    return [*cells, decimal(row["f1_lesion_present_mean"])]


def _defined(row: pd.Series) -> str:
    # IoU and F1 are undefined on the same images: those where both masks are empty.
    counts = [count(row[f"{score}_defined"]) for score in ("iou", "recall", "precision")]
    return "–" if set(counts) == {"–"} else " / ".join(counts)


def save(
    scores: pd.DataFrame,
    directory: str | os.PathLike[str],
    coverage: Coverage | None = None,
    **info: Any,
) -> None:
    """Write scores and tables: ``scores.csv``, ``table.csv``, ``table.json`` and ``table.md``.

    ``scores.csv`` contains every slice, ``table.csv`` the result of `table_one`. ``table.json``
    contains ``info``, ``per_image`` and, if the patient of every slice is known, ``per_patient``,
    each table as {lesion: {column: value}}, with null for undefined values. ``table.md`` contains
    the same tables in Markdown, after the coverage, which ``info`` has as well. Each file is
    written atomically.

    Args:
        scores: The result of `slice_scores`.
        directory: Output folder; created if missing.
        coverage: Of how many slices these are.
        **info: Provenance of the scores: command, seed, commit and so on. Values of JSON's types,
            paths, NumPy scalars and arrays.

    Raises:
        ValueError: As in `table_one`.
        TypeError: If a value of ``info`` cannot be written as JSON.
    """
    tables = {"per_image": table_one(scores)}
    if scores["patient"].notna().all():
        tables["per_patient"] = per_patient(scores)
    if coverage:
        info["coverage"] = {**asdict(coverage), "text": str(coverage)}
    contents = {
        "scores.csv": csv_text(scores),
        "table.csv": tables["per_image"].to_csv(),
        "table.json": json.dumps(
            _plain({"info": info, **{k: t.to_dict("index") for k, t in tables.items()}}),
            indent=2,
            allow_nan=False,
        )
        + "\n",
        "table.md": (f"Scored: {coverage}.\n\n" if coverage else "")
        + "\n".join(to_markdown(table) for table in tables.values()),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(directory / name, text)


def _plain(value: Any) -> Any:
    """Convert a value to JSON's types; NaN, infinity and missing values become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value
