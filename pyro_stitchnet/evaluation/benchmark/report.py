"""A benchmark's tables and figure, from its rows and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pyro_stitchnet.evaluation.benchmark.runner import Tables
from pyro_stitchnet.evaluation.metrics.statistics import holm, interval, paired
from pyro_stitchnet.evaluation.style_figures import STYLE_FIGURES
from pyro_stitchnet.evaluation.tables import table_one, to_markdown
from pyro_stitchnet.figures import label_efficiency, save_figure
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["lesion_dice", "line_names", "report"]

LESIONS = ("GGO", "CON")
RUN = ["folds", "fold", "seed"]


def report(tables: Tables, against: str | None, out: Path) -> str:
    """Write ``report.md`` and ``label_efficiency.png``.

    Args:
        tables: the results.
        against: the line that all others are compared with; None leaves the comparison out.
        out: folder for both.

    Returns:
        The text.

    Raises:
        ValueError: there are no results yet, or none of ``against``.
    """
    if not len(tables.rows):
        raise ValueError(f"{out}: no results yet")
    rows, scores = tables.rows.assign(line=line_names), tables.scores.assign(line=line_names)
    if against is not None and against not in set(rows["line"]):
        raise ValueError(
            f"no results of {against!r} to compare with; there are "
            f"{', '.join(rows['line'].unique())}"
        )
    text = []
    for labels, here in rows.groupby("labels"):
        found = scores[scores["labels"] == labels]
        said = "all labels" if labels < 0 else f"{labels} labelled slices"
        text += [f"## {said}", "", _summary(here, found), _comparison(found, against)]
        text += [_unlabelled(here, found), _styles(here)]
    text += ["## Table 1's form", ""]
    for (labels, line), found in scores[scores["set"] == "test"].groupby(["labels", "line"]):
        text += [f"### {line}, {labels} labelled slices", "", to_markdown(table_one(found))]
    text += [_sources(rows)]
    written = "\n".join(text)
    write_atomically(out / "report.md", written)
    save_figure(label_efficiency(_curves(scores)), out / "label_efficiency.png")
    return written


def line_names(table: pd.DataFrame) -> pd.Series:
    """What a line of the tables is called: the entry and how it was read."""
    reading = table["reading"].where(table["reading"] == "", " (" + table["reading"] + ")")
    return table["name"] + reading


def lesion_dice(scores: pd.DataFrame, by: str | Sequence[str] = "patient") -> pd.Series:
    """Mean Dice of GGO and consolidation over the slices that have the lesion, by patient.

    A patient's is the mean over the lesions that it has of the mean over slices and runs.

    Args:
        scores: of one line, on the test patients.
        by: the column to group by.
    """
    present = scores[(scores["truth_pixels"] > 0) & scores["lesion"].isin(LESIONS)]
    keys = [by] if isinstance(by, str) else list(by)
    each = present.groupby([*keys, "lesion"])["f1"].mean()
    return each.groupby(level=keys).mean()


def _present(scores: pd.DataFrame, lesion: str) -> pd.Series:
    return scores[(scores["lesion"] == lesion) & (scores["truth_pixels"] > 0)]["f1"]


def _false_alarms(scores: pd.DataFrame, lesion: str) -> str:
    """How many of the slices without the lesion are said to have it."""
    absent = scores[(scores["lesion"] == lesion) & (scores["truth_pixels"] == 0)]
    return f"{(absent['predicted_pixels'] > 0).sum()} of {len(absent)}"


def _summary(rows: pd.DataFrame, scores: pd.DataFrame) -> str:
    """A row a line: Dice of slices that have the lesion, false alarms, distance, calibration."""
    head = [
        "method", "runs", "GGO", "consolidation", "mean of both, by patient (95 %)",
        "false alarms GGO", "false alarms con.", "pooled GGO", "pooled consolidation",
        "infection elsewhere", "HD95 GGO", "HD95 con.", "ECE GGO", "ECE con.", "Brier GGO",
        "Brier con.", "s to train", "ms a slice", "GB",
    ]  # fmt: skip
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for line, runs in rows.groupby("line", sort=False):
        found = scores[scores["line"] == line]
        test = found[found["set"] == "test"]
        patients = lesion_dice(test)
        low, high = interval(patients.tolist())
        pooled = [_pooled(test[test["lesion"] == lesion]) for lesion in LESIONS]
        distances = [test[test["lesion"] == lesion]["hd95"].mean() for lesion in LESIONS]
        elsewhere = found[(found["set"] == "elsewhere") & (found["truth_pixels"] > 0)]["f1"].mean()
        calibrated = runs[["ece_ggo", "ece_con", "brier_ggo", "brier_con"]].mean()
        lines.append(
            [
                str(line),
                str(len(runs)),
                *(_number(_present(test, lesion).mean()) for lesion in LESIONS),
                f"{_number(patients.mean())} ({_number(low)} to {_number(high)})",
                *(_false_alarms(test, lesion) for lesion in LESIONS),
                *map(_number, pooled),
                _number(elsewhere),
                *(f"{d:.1f}" for d in distances),
                *map(_number, calibrated),
                f"{runs['seconds_training'].mean():.0f}",
                f"{1000 * runs['seconds_a_slice'].mean():.0f}",
                f"{runs['peak_gb'].max():.1f}",
            ]
        )
    return _markdown(lines)


def _comparison(scores: pd.DataFrame, against: str | None) -> str:
    """Every line's difference from one, over patients, with Holm's correction over the lines."""
    lines = dict(list(scores[scores["set"] == "test"].groupby("line", sort=False)))
    if against not in lines:
        return ""
    other = lines.pop(against)
    compared = {str(line): _difference(part, other) for line, part in lines.items()}
    return _differences([f"minus {against}"], {line: [line] for line in compared}, compared)


def _unlabelled(rows: pd.DataFrame, scores: pd.DataFrame) -> str:
    """What unlabelled slices add to each line that was given some.

    Compared with the same method's line from the labels of that dataset alone, read alike; a peer,
    which cannot do without unlabelled slices, with the U-Net that it is made of.
    """
    keys = ["method", "reading", "data"]
    alone = rows[~rows["unlabelled"]].drop_duplicates(keys).set_index(keys)["line"]
    counterparts = {}
    for line, run in rows[rows["unlabelled"]].groupby("line", sort=False):
        method, *rest = run.iloc[0][keys]
        base = (method if method.startswith("stitchnet-") else "unet", *rest)
        if base in alone.index:
            counterparts[str(line)] = alone[base]
    lines = dict(list(scores.groupby("line", sort=False)))
    compared, cells = {}, {}
    for line, other in counterparts.items():
        one, two = ({k: v for k, v in lines[each].groupby("set")} for each in (line, other))
        compared[line] = _difference(one["test"], two["test"])
        found = [_infection(each) for each in (one, two)]
        gains = (found[0] - found[1]).dropna()
        seeds = " ".join(f"{gain:+.3f}" for gain in gains)
        cells[line] = [line, other, f"{gains.mean():+.3f}: {seeds}" if len(gains) else "–"]
    if not compared:
        return ""
    head = ["with unlabelled slices", "minus, without", "infection elsewhere: mean, by run"]
    return _differences(head, cells, compared)


def _infection(sets: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Mean Dice of infection elsewhere, by run."""
    if "elsewhere" not in sets:
        return pd.Series(dtype=float)
    found = sets["elsewhere"]
    return found[found["truth_pixels"] > 0].groupby(RUN)["f1"].mean()


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Lesion Dice of two lines, patient by patient, in the runs that both have."""
    runs = [pd.MultiIndex.from_frame(each[RUN]) for each in (one, other)]
    one, other = one[runs[0].isin(runs[1])], other[runs[1].isin(runs[0])]
    return paired(lesion_dice(one), lesion_dice(other))


def _differences(
    head: list[str], cells: Mapping[str, list[str]], compared: Mapping[str, Mapping[str, float]]
) -> str:
    """A row a comparison: its cells, the difference, its interval and p after Holm's correction."""
    corrected = holm({line: c["p"] for line, c in compared.items()})
    lines = [
        [*head, "difference", "95 %", "p (Holm)", "patients"],
        ["---", *["---:"] * (len(head) + 3)],
    ]
    for line, c in compared.items():
        lines.append(
            [
                *cells[line],
                f"{c['difference']:+.3f}",
                f"{c['low']:+.3f} to {c['high']:+.3f}",
                f"{corrected[line]:.3f}",
                str(c["patients"]),
            ]
        )
    return _markdown(lines)


def _styles(rows: pd.DataFrame) -> str:
    """Whether styles differ and labels matter, a row an entry that has styles."""
    columns = [name for name in STYLE_FIGURES if name in rows]
    known = rows.dropna(subset=columns).drop_duplicates(["name", "fold", "seed"])
    if not columns or not len(known):
        return ""
    lines = [["in the lung of test slices", "runs", *columns], ["---", *["---:"] * 14]]
    for name, runs in known.groupby("name", sort=False):
        lines.append([str(name), str(len(runs)), *map(_number, runs[columns].mean())])
    return _markdown(lines)


def _curves(scores: pd.DataFrame) -> pd.DataFrame:
    """Lesion Dice against labelled slices: a row a line and budget, with its interval.

    Without other decisions than the likeliest label where there is that, and without lines of a
    single budget where others have more: they would hide the curves.
    """
    test = scores[scores["set"] == "test"]
    likeliest = test[~test["reading"].str.endswith("dice")]
    test = likeliest if len(likeliest) else test
    budgets = test.groupby("line")["labels"].transform("nunique")
    test = test[budgets >= min(2, budgets.max())]
    points = []
    for (line, labels), part in test.groupby(["line", "labels"], sort=False):
        dice = lesion_dice(part)
        low, high = interval(dice.tolist())
        points.append(
            {"line": line, "labels": labels, "dice": dice.mean(), "low": low, "high": high}
        )
    return pd.DataFrame(points)


def _sources(rows: pd.DataFrame) -> str:
    """Where the rows come from."""
    seen = rows.groupby(["command", "commit", "machine"])["date"].agg(["min", "max", "count"])
    lines = [["command", "commit", "machine", "from", "to", "rows"], ["---"] * 6]
    for (command, commit, machine), when in seen.iterrows():
        lines.append(
            [f"`{command}`", commit, machine, when["min"], when["max"], str(when["count"])]
        )
    return f"## Where the figures come from\n\n{_markdown(lines)}"


def _pooled(scores: pd.DataFrame) -> float:
    pixels = scores["truth_pixels"].sum() + scores["predicted_pixels"].sum()
    return 2 * scores["common_pixels"].sum() / pixels if pixels else float("nan")


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}".removeprefix("0")


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
