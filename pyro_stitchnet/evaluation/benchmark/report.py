"""The report of a benchmark: tables and a figure from its rows."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pyro_stitchnet.evaluation.benchmark.columns import by_patient, by_run, line_names
from pyro_stitchnet.evaluation.style_metrics import STYLE_METRICS
from pyro_stitchnet.figures import label_efficiency, save_figure
from pyro_stitchnet.metrics.scores import LESION_GROUPS
from pyro_stitchnet.metrics.statistics import holm, interval, paired
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.runtime.text_table import TextTable, decimal

__all__ = ["curves", "report"]

RUN = ["folds", "fold", "seed"]
ALIKE = ["method", "variant", "data", "random_start"]
SINCE = ["dice_by_patient", "steps", "random_start"]  # columns that older rows lack
LESIONS = [lesion.lower() for lesion in LESION_GROUPS]
INFECTION = "other_hospital_infection"


def report(rows: pd.DataFrame, against: str | None, out: Path) -> dict[str, TextTable]:
    """Write ``report.md`` and ``label_efficiency.png``.

    Args:
        rows: those of :class:`~pyro_stitchnet.evaluation.benchmark.results.Results`.
        against: the line that all others are compared with, or the same line of as many steps if
            there is one; None leaves the comparison out.
        out: folder for both files.

    Returns:
        The table of Dice of each label budget, by its title.

    Raises:
        ValueError: there are no results yet, only rows of an older version, or no results of
            ``against``.
    """
    if not len(rows):
        raise ValueError(f"{out}: no results yet")
    rows = rows.assign(line=line_names)
    older = rows.reindex(columns=SINCE).isna().any(axis=1)
    rows = rows[~older]
    if not len(rows):
        raise ValueError(
            f"{out}: its rows are of an older version; run the benchmark again with another --out"
        )
    left_out = f"{older.sum()} rows of an older version are left out.\n"
    if against is not None and against not in set(rows["line"]):
        raise ValueError(
            f"no results of {against!r} to compare with; there are "
            f"{', '.join(rows['line'].unique())}"
        )
    summaries, parts = {}, []
    splits = rows.groupby("labels")["folds"].nunique()
    for (labels, folds), budget_rows in rows.groupby(["labels", "folds"]):
        title = "All labels" if labels < 0 else f"{labels} labelled slices"
        if splits[labels] > 1:  # other test patients
            title += f", {folds} folds"
        tables = {
            **_summaries(budget_rows),
            f"Difference from {against}": _comparison(budget_rows, against),
            "Gain from unlabelled slices": _unlabelled(budget_rows),
            **_styles(budget_rows),
        }
        summaries[title] = tables["Dice on slices with the lesion"]
        parts += [f"## {title}\n", *_sections(tables)]
    parts += ["## Provenance\n", _provenance(rows).markdown()]
    if older.any():
        parts.append(left_out)
        print(f"note: {left_out}", end="", file=sys.stderr)
    figure = label_efficiency(curves(rows))
    with only_run(out):
        write_atomically(out / "report.md", "\n".join(parts))
        save_figure(figure, out / "label_efficiency.png")
    return summaries


def _sections(tables: Mapping[str, TextTable]) -> list[str]:
    return [f"### {title}\n\n{table.markdown()}" for title, table in tables.items() if table.rows]


def _distance(mean: float) -> str:
    """Return a mean distance in pixels with one decimal; a dash for NaN."""
    return "–" if math.isnan(mean) else f"{mean:.1f}"


def _false_alarms(rows: pd.DataFrame, lesion: str) -> str:
    """Count the slices without the lesion on which it is predicted."""
    return f"{rows[f'false_alarms_{lesion}'].sum():.0f} of {rows[f'absent_{lesion}'].sum():.0f}"


def _summaries(rows: pd.DataFrame) -> dict[str, TextTable]:
    """Return the tables with one row per line: Dice, errors, calibration and cost."""
    dice, errors, calibration, cost = [], [], [], []
    for line, runs in rows.groupby("line", sort=False):
        patients, means = by_patient(runs), runs.mean(numeric_only=True)
        low, high = interval(by_run(runs).to_numpy())
        dice.append(
            [
                str(line),
                str(len(runs)),
                *(decimal(means[f"dice_{lesion}_present"]) for lesion in LESIONS),
                f"{decimal(patients.mean())} ({decimal(low)} to {decimal(high)})",
                decimal(means.get(INFECTION, float("nan"))),
            ]
        )
        errors.append(
            [
                str(line),
                *(_false_alarms(runs, lesion) for lesion in LESIONS),
                *(decimal(means[f"pooled_{lesion}"]) for lesion in LESIONS),
                *(_distance(means[f"hd95_{lesion}"]) for lesion in LESIONS),
            ]
        )
        columns = [f"{score}_{lesion}" for score in ("ece", "brier") for lesion in LESIONS]
        calibration.append([str(line), *map(decimal, means[columns])])
        cost.append(
            [
                str(line),
                f"{runs['slices_test'].sum()} of {runs['slices_test_of'].sum()}",
                f"{means['seconds_training']:.0f}",
                f"{1000 * means['seconds_a_slice']:.0f}",
            ]
        )
    names = ["GGO", "consolidation"]
    return {
        "Dice on slices with the lesion": TextTable(
            ["method", "runs", *names, "both, by patient (95 %)", "other-hospital infection"],
            dice,
        ),
        "False alarms, pooled Dice, 95th percentile Hausdorff distance": TextTable(
            ["method", *(f"{score} {name}" for score in ("false alarms", "pooled", "HD95")
                         for name in names)],
            errors,
        ),
        "Calibration inside the lung": TextTable(
            ["method", *(f"{score} {name}" for score in ("ECE", "Brier") for name in names)],
            calibration,
        ),
        "Slices of the test patients, and cost": TextTable(
            ["method", "slices scored", "training (s)", "ms per slice"], cost
        ),
    }  # fmt: skip


def _comparison(rows: pd.DataFrame, against: str | None) -> TextTable:
    """Compare every line with ``against``, or with the same line trained for as many steps."""
    before = _before(rows)
    rows = rows.assign(
        options=rows["tried"].map(_options), steps=rows["steps"] + before, before=before
    )
    lines = dict(list(rows.groupby("line", sort=False)))
    if against is None or against not in lines:
        return TextTable([], [])
    steps = {str(line): int(runs["steps"].iloc[0]) for line, runs in lines.items()}
    like_other = lines[against][[*ALIKE, "options", "unlabelled", "before"]].head(1)
    alike = list(rows.merge(like_other)["line"].unique())
    compared, cells = {}, {}
    for line, runs in lines.items():
        if line != against:
            as_long = [each for each in alike if steps[each] == steps[str(line)] and each != line]
            other = against if against in as_long or len(as_long) != 1 else as_long[0]
            compared[str(line)] = _difference(runs, lines[other])
            both = dict.fromkeys(f"{steps[each]:,}" for each in (str(line), other))
            cells[str(line)] = [str(line), other, " / ".join(both)]
    return _differences(["method", "minus", "steps"], cells, compared)


def _options(tried: str) -> str:
    """Return the options that an entry tried."""
    return str(sorted(json.loads(tried)))


def _learning_rates(tried: str) -> str:
    """Return the learning rates that an entry tried, its own options left out."""
    return str(sorted({str(json.loads(each).get("learning_rate")) for each in json.loads(tried)}))


def _before(rows: pd.DataFrame) -> pd.Series:
    """Return the steps of pre-training; those of the whole line, as its older rows lack them."""
    steps = rows.reindex(columns=["pretrain_steps"])["pretrain_steps"].fillna(0)
    return steps.groupby(rows["line"]).transform("max")


def _unlabelled(rows: pd.DataFrame) -> TextTable:
    """Compare each line with unlabelled slices with its counterpart without them.

    The counterpart is the line of the same method, variant, data, steps, start and options, trained
    on labels alone; for a semi-supervised method over the U-Net it is the U-Net. Lines with
    pre-training are left out, because they have more steps.
    """
    rows = rows[_before(rows) == 0]
    own = rows["method"].str.startswith("stitchnet-")
    options = rows["tried"].map(_options).where(own, rows["tried"].map(_learning_rates))
    rows = rows.assign(options=options)
    keys = [*ALIKE, "steps", "options"]
    supervised = rows[~rows["unlabelled"]].drop_duplicates(keys).set_index(keys)["line"]
    lines = dict(list(rows.groupby("line", sort=False)))
    compared, cells = {}, {}
    for line, runs in rows[rows["unlabelled"]].groupby("line", sort=False):
        method, *rest = runs.iloc[0][keys]
        base = (method if method.startswith("stitchnet-") else "unet", *rest)
        if base not in supervised.index:
            continue
        counterpart = lines[supervised[base]]
        compared[str(line)] = _difference(runs, counterpart)
        both = [each.set_index(RUN).get(INFECTION, pd.Series()) for each in (runs, counterpart)]
        gains = (both[0] - both[1]).dropna()
        by_run = " ".join(f"{gain:+.3f}" for gain in gains)
        gain = f"{gains.mean():+.3f}: {by_run}" if len(gains) else "–"
        cells[str(line)] = [str(line), str(supervised[base]), gain]
    head = ["with unlabelled slices", "minus, without", "other hospital: mean, by run"]
    return _differences(head, cells, compared)


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Compare the lesion Dice of two lines by patient, in the runs that both have."""
    return paired(by_run(one), by_run(other))


def _differences(
    head: list[str], cells: Mapping[str, list[str]], compared: Mapping[str, Mapping[str, float]]
) -> TextTable:
    """Return a row per comparison: its cells, the difference, its interval and Holm's p."""
    corrected = holm({line: c["p"] for line, c in compared.items()})
    rows = [
        [
            *cells[line],
            f"{c['difference']:+.3f}",
            f"{c['low']:+.3f} to {c['high']:+.3f}",
            f"{corrected[line]:.3f}",
            str(c["patients"]),
        ]
        for line, c in compared.items()
    ]
    return TextTable([*head, "difference", "95 %", "p (Holm)", "patients"], rows)


def _styles(rows: pd.DataFrame) -> dict[str, TextTable]:
    """Return the style metrics, one row per entry with styles."""
    columns = [name for name in STYLE_METRICS if name in rows]
    complete = rows.dropna(subset=columns).drop_duplicates(["name", *RUN])
    if not columns or not len(complete):
        return {}
    entries = list(complete.groupby("name", sort=False))
    titles = {
        "kl_": "KL of each level (nats per pixel)",
        "share_": "Share of each label inside the lung",
        "": "Styles inside the lung",
    }
    tables, left = {}, columns
    for prefix, title in titles.items():
        group = [name for name in left if name.startswith(prefix)]
        left = [name for name in left if name not in group]
        tables[title] = TextTable(
            ["entry", "runs", *(name.removeprefix(prefix).replace("_", " ") for name in group)],
            [[str(n), str(len(runs)), *map(decimal, runs[group].mean())] for n, runs in entries],
        )
    return tables


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return lesion Dice against labelled slices: a row per line and budget, with its interval.

    Other decisions than the likeliest label are left out if that is present, lines with a single
    budget if others have more, and runs with fewer budgets than others of their line.
    """
    likeliest = rows[~rows["variant"].str.endswith("dice")]
    rows = likeliest if len(likeliest) else rows
    budgets = rows.groupby("line")["labels"].transform("nunique")
    rows = rows[budgets >= min(2, budgets.max())]
    own = rows.groupby(["line", *RUN])["labels"].transform("nunique")
    rows = rows[own == own.groupby(rows["line"]).transform("max")]
    points = []
    for (line, labels), runs in rows.groupby(["line", "labels"], sort=False):
        dice = by_patient(runs)
        low, high = interval(by_run(runs).to_numpy())
        points.append(
            {"line": line, "labels": labels, "dice": dice.mean(), "low": low, "high": high}
        )
    return pd.DataFrame(points)


def _provenance(rows: pd.DataFrame) -> TextTable:
    """Return the command, commit, machine, precision and dates of the rows."""
    names = ["command", "commit", "machine", "precision"]
    known = rows.reindex(columns=[*names, "date"]).fillna({"precision": "not recorded"})
    dates = known.groupby(names)["date"].agg(["min", "max", "count"])
    return TextTable(
        [*names, "from", "to", "rows"],
        [
            [f"`{command}`", *origin, row["min"], row["max"], str(row["count"])]
            for (command, *origin), row in dates.iterrows()
        ],
    )
