"""The report of a benchmark: tables and a figure from its rows and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pyro_stitchnet.evaluation.benchmark.results import OTHER_HOSPITAL, Results
from pyro_stitchnet.evaluation.style_metrics import STYLE_METRICS
from pyro_stitchnet.evaluation.tables import table_one, to_markdown
from pyro_stitchnet.evaluation.text_table import TextTable, decimal
from pyro_stitchnet.figures import label_efficiency, save_figure
from pyro_stitchnet.metrics.scores import LESION_GROUPS
from pyro_stitchnet.metrics.statistics import holm, interval, paired
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.locks import only_run

__all__ = ["lesion_dice", "line_names", "report"]

RUN = ["folds", "fold", "seed"]


def report(results: Results, against: str | None, out: Path) -> dict[str, TextTable]:
    """Write ``report.md`` and ``label_efficiency.png``.

    Args:
        results: rows and scores.
        against: the line that all others are compared with; None leaves the comparison out.
        out: folder for both files.

    Returns:
        The table of Dice of each label budget, by its title.

    Raises:
        ValueError: there are no results yet, or no results of ``against``.
    """
    if not len(results.rows):
        raise ValueError(f"{out}: no results yet")
    rows, scores = (table.assign(line=line_names) for table in (results.rows, results.scores))
    if against is not None and against not in set(rows["line"]):
        raise ValueError(
            f"no results of {against!r} to compare with; there are "
            f"{', '.join(rows['line'].unique())}"
        )
    summaries, parts = {}, []
    for labels, budget_rows in rows.groupby("labels"):
        budget_scores = scores[scores["labels"] == labels]
        title = "All labels" if labels < 0 else f"{labels} labelled slices"
        tables = {
            **_summaries(budget_rows, budget_scores),
            f"Difference from {against}": _comparison(budget_scores, against),
            "Gain from unlabelled slices": _unlabelled(budget_rows, budget_scores),
            **_styles(budget_rows),
        }
        summaries[title] = tables["Dice on slices with the lesion"]
        parts += [f"## {title}\n", *_sections(tables)]
    parts.append("## Scores in the form of the article's Table 1\n")
    test = scores[scores["set"] == "test"]
    for (labels, line), line_scores in test.groupby(["labels", "line"]):
        parts.append(f"### {line}, {labels} labelled slices\n")
        parts.append(_coverage(rows[(rows["labels"] == labels) & (rows["line"] == line)]))
        parts.append(to_markdown(table_one(line_scores)))
    parts += ["## Provenance\n", _provenance(rows).markdown()]
    figure = label_efficiency(_curves(scores))
    with only_run(out):
        write_atomically(out / "report.md", "\n".join(parts))
        save_figure(figure, out / "label_efficiency.png")
    return summaries


def line_names(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's line: the entry, and the variant in brackets."""
    variant = table["variant"].where(table["variant"] == "", " (" + table["variant"] + ")")
    return table["name"] + variant


def lesion_dice(scores: pd.DataFrame, by: str | Sequence[str] = "patient") -> pd.Series:
    """Return the mean Dice of GGO and consolidation over the slices with the lesion, by patient.

    For each patient, Dice of a lesion is averaged over slices and runs, then over the lesions.

    Args:
        scores: of one line, on the test patients.
        by: the column or columns to group by.
    """
    present = scores[(scores["truth_pixels"] > 0) & scores["lesion"].isin(LESION_GROUPS)]
    keys = [by] if isinstance(by, str) else list(by)
    by_lesion = present.groupby([*keys, "lesion"])["f1"].mean()
    return by_lesion.groupby(level=keys).mean()


def _coverage(rows: pd.DataFrame) -> str:
    """Say how many slices of the test patients the runs of a line are scored on."""
    given = rows["slices_test_of"] if "slices_test_of" in rows else pd.Series(dtype=float)
    of = f" of {given.sum():.0f}" if len(given) and given.notna().all() else ""
    return f"Scored: {rows['slices_test'].sum()}{of} slices of the test patients.\n"


def _sections(tables: Mapping[str, TextTable]) -> list[str]:
    return [f"### {title}\n\n{table.markdown()}" for title, table in tables.items() if table.rows]


def _present(scores: pd.DataFrame, lesion: str) -> pd.Series:
    return scores[(scores["lesion"] == lesion) & (scores["truth_pixels"] > 0)]["f1"]


def _false_alarms(scores: pd.DataFrame, lesion: str) -> str:
    """Count the slices without the lesion on which it is predicted."""
    absent = scores[(scores["lesion"] == lesion) & (scores["truth_pixels"] == 0)]
    return f"{(absent['predicted_pixels'] > 0).sum()} of {len(absent)}"


def _summaries(rows: pd.DataFrame, scores: pd.DataFrame) -> dict[str, TextTable]:
    """Return the tables with one row per line: Dice, errors, calibration and cost."""
    dice, errors, calibration, cost = [], [], [], []
    for line, runs in rows.groupby("line", sort=False):
        line_scores = scores[scores["line"] == line]
        test = line_scores[line_scores["set"] == "test"]
        patients = lesion_dice(test)
        low, high = interval(patients.tolist())
        dice.append(
            [
                str(line),
                str(len(runs)),
                *(decimal(_present(test, lesion).mean()) for lesion in LESION_GROUPS),
                f"{decimal(patients.mean())} ({decimal(low)} to {decimal(high)})",
                decimal(_infection(line_scores).mean()),
            ]
        )
        by_lesion = [test[test["lesion"] == lesion] for lesion in LESION_GROUPS]
        errors.append(
            [
                str(line),
                *(_false_alarms(test, lesion) for lesion in LESION_GROUPS),
                *(decimal(_pooled(each)) for each in by_lesion),
                *(f"{each['hd95'].mean():.1f}" for each in by_lesion),
            ]
        )
        means = runs[["ece_ggo", "ece_con", "brier_ggo", "brier_con"]].mean()
        calibration.append([str(line), *map(decimal, means)])
        cost.append(
            [
                str(line),
                f"{runs['seconds_training'].mean():.0f}",
                f"{1000 * runs['seconds_a_slice'].mean():.0f}",
                f"{runs['peak_gb'].max():.1f}",
            ]
        )
    lesions = ["GGO", "consolidation"]
    return {
        "Dice on slices with the lesion": TextTable(
            ["method", "runs", *lesions, "both, by patient (95 %)", "other-hospital infection"],
            dice,
        ),
        "False alarms, pooled Dice, 95th percentile Hausdorff distance": TextTable(
            ["method", *(f"{name} {x}" for name in ("false alarms", "pooled", "HD95")
                         for x in lesions)],
            errors,
        ),
        "Calibration inside the lung": TextTable(
            ["method", *(f"{name} {x}" for name in ("ECE", "Brier") for x in lesions)], calibration
        ),
        "Cost": TextTable(["method", "training (s)", "ms per slice", "memory (GB)"], cost),
    }  # fmt: skip


def _comparison(scores: pd.DataFrame, against: str | None) -> TextTable:
    """Compare every line with one line."""
    lines = dict(list(scores[scores["set"] == "test"].groupby("line", sort=False)))
    if against not in lines:
        return TextTable([], [])
    other = lines.pop(against)
    compared = {str(line): _difference(part, other) for line, part in lines.items()}
    return _differences([f"minus {against}"], {line: [line] for line in compared}, compared)


def _unlabelled(rows: pd.DataFrame, scores: pd.DataFrame) -> TextTable:
    """Compare each line with unlabelled slices with its counterpart without them.

    The counterpart is the line of the same method, variant and data, trained on labels alone; for a
    semi-supervised method over the U-Net it is the U-Net.
    """
    keys = ["method", "variant", "data"]
    supervised = rows[~rows["unlabelled"]].drop_duplicates(keys).set_index(keys)["line"]
    counterparts = {}
    for line, run in rows[rows["unlabelled"]].groupby("line", sort=False):
        method, *rest = run.iloc[0][keys]
        base = (method if method.startswith("stitchnet-") else "unet", *rest)
        if base in supervised.index:
            counterparts[str(line)] = supervised[base]
    lines = dict(list(scores.groupby("line", sort=False)))
    compared, cells = {}, {}
    for line, counterpart in counterparts.items():
        both = lines[line], lines[counterpart]
        compared[line] = _difference(*(each[each["set"] == "test"] for each in both))
        one, other = (_infection(each, RUN) for each in both)
        gains = (one - other).dropna()
        by_run = " ".join(f"{gain:+.3f}" for gain in gains)
        cells[line] = [line, counterpart, f"{gains.mean():+.3f}: {by_run}" if len(gains) else "–"]
    head = ["with unlabelled slices", "minus, without", "other hospital: mean, by run"]
    return _differences(head, cells, compared)


def _infection(scores: pd.DataFrame, by: Sequence[str] = ()) -> pd.Series:
    """Return other-hospital infection Dice of slices with infection, averaged by columns if any."""
    infected = scores[(scores["set"] == OTHER_HOSPITAL) & (scores["truth_pixels"] > 0)]
    return infected.groupby(list(by))["f1"].mean() if by else infected["f1"]


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Compare the lesion Dice of two lines by patient, in the runs that both have."""
    runs = [pd.MultiIndex.from_frame(each[RUN]) for each in (one, other)]
    one, other = one[runs[0].isin(runs[1])], other[runs[1].isin(runs[0])]
    return paired(lesion_dice(one), lesion_dice(other))


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
    complete = rows.dropna(subset=columns).drop_duplicates(["name", "fold", "seed"])
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


def _curves(scores: pd.DataFrame) -> pd.DataFrame:
    """Return lesion Dice against labelled slices: a row per line and budget, with its interval.

    Other decisions than the likeliest label are left out if that is present, and lines with a
    single budget if others have more.
    """
    test = scores[scores["set"] == "test"]
    likeliest = test[~test["variant"].str.endswith("dice")]
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


def _provenance(rows: pd.DataFrame) -> TextTable:
    """Return the command, commit, machine and dates of the rows."""
    dates = rows.groupby(["command", "commit", "machine"])["date"].agg(["min", "max", "count"])
    return TextTable(
        ["command", "commit", "machine", "from", "to", "rows"],
        [
            [f"`{command}`", commit, machine, row["min"], row["max"], str(row["count"])]
            for (command, commit, machine), row in dates.iterrows()
        ],
    )


def _pooled(scores: pd.DataFrame) -> float:
    pixels = scores["truth_pixels"].sum() + scores["predicted_pixels"].sum()
    return 2 * scores["common_pixels"].sum() / pixels if pixels else float("nan")
