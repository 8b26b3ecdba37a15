"""The tables and the figure of the benchmark on real CT."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from result_rows import gain, in_both, rows_of, signed

from pyro_stitchnet.evaluation.benchmark.columns import by_patient, by_run, line_names
from pyro_stitchnet.evaluation.benchmark.report import curves
from pyro_stitchnet.figures import label_efficiency
from pyro_stitchnet.metrics.statistics import holm, paired
from pyro_stitchnet.runtime.text_table import TextTable, decimal

__all__ = [
    "covid",
    "few",
    "headroom",
    "label_curves",
    "lengths",
    "machines",
    "many",
    "readme",
    "short",
    "unlabelled",
]

UNET, LEVELS = "unet", "unet (levels)"
FEW, FEW_FOLDS = 10, 3  # labels of the main table, and its folds of patients
MANY, MANY_FOLDS = 40, 6
LEAST_RUNS = 3  # of a line in the README, and of a point of the curve over steps

# Lines of the rows by the names that the docs give them.
COVID = {
    "U-Net": UNET,
    "U-Net, `--decision dice`": "unet (dice)",
    "U-Net, lesions split by a threshold": "unet (threshold)",
    "U-Net, lesions split by tissue levels": LEVELS,
    "`guided`": "guided (posterior)",
    "`guided`, self-trained": "guided, self-trained by its classifier (posterior)",
    "Mean Teacher": "mean-teacher",
    "UA-MT": "ua-mt",
    "CPS": "cps",
    "FixMatch": "fixmatch",
    "BCP": "bcp",
    "UniMatch": "unimatch",
    "UniMatch, lesions split by tissue levels": "unimatch (levels)",
    "Pseudo-labels": "pseudo-labels",
    "SegNet, random start": "segnet",
    "nnU-Net's network, random start": "nnunet",
    "`article`": "article (posterior)",
    "`reference`": "reference (posterior)",
}

IN_README = {
    UNET, "unet (dice)", LEVELS, "guided (posterior)",
    "guided, self-trained by its classifier (posterior)",
    "mean-teacher", "bcp", "unimatch", "unimatch (levels)",
}  # fmt: skip

SHORT, LONG = 800, 3200  # steps of all methods, and of the main table
LENGTHS = (400, SHORT, 1600, LONG, 6400)

# Lines with unlabelled slices, each with the same network from labels alone. `guided` is compared
# with the U-Net split by tissue levels, whose labels it has but for a few pixels if it is not
# self-trained.
GAINS = {
    "U-Net, decoder denoises first": ("unet, denoised", "unet, 1600 steps"),
    "U-Net, random start, denoises first": (
        "unet, random start, denoised",
        "unet, random start, 1600 steps",
    ),
    "`guided`, self-trained, 3,200 steps": (
        "guided, self-trained by its classifier, 3200 steps (posterior)",
        "unet, 3200 steps (levels)",
    ),
    "`guided`, self-trained by the posterior, 3,200 steps": (
        "guided, self-trained by the posterior, 3200 steps (posterior)",
        "unet, 3200 steps (levels)",
    ),
    "Pseudo-labels": ("pseudo-labels", UNET),
    "Pseudo-labels, both split": ("pseudo-labels (levels)", LEVELS),
    "Pseudo-labels, 3,200 steps": ("pseudo-labels, 3200 steps", "unet, 3200 steps"),
    "Pseudo-labels, both split, 3,200 steps": (
        "pseudo-labels, 3200 steps (levels)",
        "unet, 3200 steps (levels)",
    ),
    "Mean Teacher": ("mean-teacher", UNET),
    "Mean Teacher, 3,200 steps": ("mean-teacher, 3200 steps", "unet, 3200 steps"),
    "Mean Teacher, both split, 3,200 steps": (
        "mean-teacher, 3200 steps (levels)",
        "unet, 3200 steps (levels)",
    ),
    "UA-MT": ("ua-mt", UNET),
    "UA-MT, both split": ("ua-mt (levels)", LEVELS),
    "CPS": ("cps", UNET),
    "CPS, both split": ("cps (levels)", LEVELS),
    "FixMatch": ("fixmatch", UNET),
    "FixMatch, both split": ("fixmatch (levels)", LEVELS),
    "UniMatch": ("unimatch", UNET),
    "UniMatch, 3,200 steps": ("unimatch, 3200 steps", "unet, 3200 steps"),
    "UniMatch, both split, 3,200 steps": (
        "unimatch, 3200 steps (levels)",
        "unet, 3200 steps (levels)",
    ),
    "BCP": ("bcp", UNET),
    "BCP, both split": ("bcp (levels)", LEVELS),
    "BCP, 3,200 steps": ("bcp, 3200 steps", "unet, 3200 steps"),
    "BCP, both split, 3,200 steps": ("bcp, 3200 steps (levels)", "unet, 3200 steps (levels)"),
}


def covid() -> TextTable:
    return _comparison(_lines(FEW, FEW_FOLDS), LONG)


def short() -> TextTable:
    return _comparison(_lines(FEW, FEW_FOLDS), SHORT)


def many() -> TextTable:
    """Return the lines of forty labels, after both numbers of steps."""
    lines = _lines(MANY, MANY_FOLDS)
    tables = {steps: _comparison(lines, steps) for steps in (SHORT, LONG)}
    rows = [[f"{row[0]}, {n:,} steps", *row[1:]] for n, t in tables.items() for row in t.rows]
    return TextTable(tables[SHORT].head, rows)


def lengths() -> TextTable:
    """Return the U-Net and its split by tissue levels after each number of steps, in the same runs.

    A number of steps of fewer runs is shown for those it has.
    """
    lines = _lines(FEW, FEW_FOLDS)
    found = [steps for steps in LENGTHS if _after(steps, UNET) in lines]
    seeds = [set(lines[_after(steps, UNET)]["seed"]) for steps in found]
    common = set.intersection(*(each for each in seeds if len(each) >= LEAST_RUNS))
    lines = {name: rows[rows["seed"].isin(common)] for name, rows in lines.items()}
    cells = []
    for steps in found:
        unet, levels = (lines[_after(steps, line)] for line in (UNET, LEVELS))
        usual = steps == SHORT
        cells.append(
            [
                f"{steps:,}",
                str(len(unet)),
                decimal(by_patient(unet).mean()),
                "–" if usual else gain(unet, lines[UNET]),
                decimal(by_patient(levels).mean()),
                gain(levels, unet),
                "–" if usual else signed(_infection(unet, lines[UNET]).mean()),
            ]
        )
    head = ["steps", "runs", "U-Net", f"minus {SHORT} steps (95 %)", "tissue levels"]
    change = f"other-hospital infection, minus {SHORT}"
    return TextTable([*head, "minus U-Net (95 %)", change], cells)


def readme() -> TextTable:
    """Return the lines of enough runs, each compared with the U-Net in the runs of both."""
    lines = _lines(FEW, FEW_FOLDS)
    unet = lines[_after(LONG, UNET)]
    cells = []
    for name, usual in COVID.items():
        runs = lines.get(_after(LONG, usual), ())
        if usual not in IN_README or len(runs) < LEAST_RUNS:
            continue
        own = usual == UNET
        cells.append(
            [
                name,
                str(len(runs)),
                decimal(by_patient(runs).mean()),
                "–" if own else gain(runs, unet),
                decimal(runs["other_hospital_infection"].mean()),
                "–" if own else signed(_infection(runs, unet).mean()),
            ]
        )
    head = ["method", "runs", "lesions", "minus U-Net (95 %)", "other-hospital infection"]
    return TextTable([*head, "minus U-Net"], cells)


def machines() -> TextTable:
    """Return the lines of a second machine, compared with one another, and what rounding changes.

    Self-trained `guided` ran on the second machine only.
    """
    first, second = _lines(FEW, FEW_FOLDS), dict(list(_rows("machines").groupby("line")))
    own = _after(LONG, COVID["`guided`, self-trained"])
    second[own] = first.pop(own)
    split, peer = (
        _after(LONG, line) for line in (LEVELS, COVID["UniMatch, lesions split by tissue levels"])
    )
    cells = []
    for name, usual in COVID.items():
        if (line := _after(LONG, usual)) not in second or usual not in IN_README:
            continue
        runs = second[line]
        cells.append(
            [
                name,
                str(len(runs)),
                decimal(by_patient(runs).mean()),
                "–" if line == split else gain(runs, second[split]),
                "–" if line == split else _each(_changes(runs, second[split])),
                "–" if line == peer else gain(runs, second[peer]),
                _each(_changes(runs, first[line])) if line in first else "–",
            ]
        )
    head = ["method", "runs", "lesions", "minus U-Net split (95 %)", "by run"]
    return TextTable([*head, "minus UniMatch split (95 %)", "EPYC minus Xeon, by run"], cells)


def unlabelled() -> TextTable:
    """Return what each method gains from unlabelled slices, over the same from labels alone.

    The p-values are of Wilcoxon's signed-rank test over patients, by Holm for all lines.
    """
    lines = _lines(FEW, FEW_FOLDS)
    pairs = {
        name: (lines[one], lines[other])
        for name, (one, other) in GAINS.items()
        if one in lines and other in lines
    }
    p = holm({name: paired(*map(by_run, pair))["p"] for name, pair in pairs.items()})
    cells = []
    for name, pair in pairs.items():
        runs = _changes(*pair)
        infection = signed(_infection(*pair).mean())
        cells.append([name, str(len(runs)), gain(*pair), decimal(p[name]), _each(runs), infection])
    head = ["method", "runs", "both lesions (95 %)", "p (Holm)", "by run"]
    return TextTable([*head, "other-hospital infection"], cells)


def few() -> TextTable:
    return _by_labels(_rows(), SHORT)


def headroom() -> TextTable:
    """Return what all labels gain over the fewest, in runs of the second machine."""
    rows = _rows()
    return _by_labels(pd.concat([rows[rows["labels"] < 0], _rows("machines")]), LONG)


def label_curves() -> Figure:
    """Draw the lines of :func:`few`."""
    rows = _rows()
    names = {UNET: "U-Net", LEVELS: "U-Net, lesions split by tissue levels"}
    rows = rows[(rows["folds"] == FEW_FOLDS) & rows["line"].isin(names)]
    return label_efficiency(curves(rows.assign(line=rows["line"].map(names))))


def _by_labels(rows: pd.DataFrame, steps: int) -> TextTable:
    """Compare lesion Dice of more labels with that of the fewest, on the same test patients.

    Seeds that lack a number of labels are left out.
    """
    unet, levels = (_after(steps, line) for line in (UNET, LEVELS))
    rows = rows[(rows["folds"] == FEW_FOLDS) & rows["line"].isin([unet, levels])]
    numbers = rows.groupby("seed")["labels"].nunique()
    rows = rows[rows["seed"].isin(numbers.index[numbers == rows["labels"].nunique()])]
    lines = dict(list(rows.groupby(["labels", "line"])))
    budgets = sorted(set(rows["labels"]), key=lambda n: n if n > 0 else math.inf)
    least = budgets[0]
    cells = []
    for labels in budgets:
        row = [str(labels) if labels > 0 else "all", str(len(lines[labels, unet]))]
        for line in (unet, levels):
            runs = lines[labels, line]
            change = "–" if labels == least else gain(runs, lines[least, line])
            row += [decimal(by_patient(runs).mean()), change]
        cells.append([*row, decimal(lines[labels, unet]["other_hospital_infection"].mean())])
    minus = f"minus {least} labels (95 %)"
    head = ["labels", "runs", "U-Net", minus, "tissue levels", minus]
    return TextTable([*head, "other-hospital infection"], cells)


def _comparison(lines: Mapping[str, pd.DataFrame], steps: int) -> TextTable:
    """Compare every line with the U-Net and with its split by tissue levels, after ``steps``."""
    unet, levels = (_after(steps, line) for line in (UNET, LEVELS))
    cells = []
    for name, usual in COVID.items():
        if (line := _after(steps, usual)) not in lines:
            continue
        runs = lines[line]
        infection = decimal(runs["other_hospital_infection"].mean())
        if line != unet:
            infection += f" ({signed(_infection(runs, lines[unet]).mean())})"
        cells.append(
            [
                name,
                str(len(runs)),
                *(decimal(runs[f"dice_{lesion}_present"].mean()) for lesion in ("ggo", "con")),
                "–" if line == unet else gain(runs, lines[unet]),
                "–" if line == levels else gain(runs, lines[levels]),
                infection,
            ]
        )
    minus = ["minus U-Net (95 %)", "minus tissue levels (95 %)", "other hospital (minus U-Net)"]
    return TextTable(["method", "runs", "GGO", "consolidation", *minus], cells)


def _after(steps: int, line: str) -> str:
    """Return the line of the same entry and variant that is trained for ``steps``."""
    entry, bracket, variant = line.partition(" (")
    return line if steps == SHORT else f"{entry}, {steps} steps{bracket}{variant}"


def _rows(results: str = "covid") -> pd.DataFrame:
    rows = rows_of(results)
    return rows.assign(line=line_names(rows))


def _lines(labels: int, folds: int) -> dict[str, pd.DataFrame]:
    """Return the rows of each line with these labels and folds."""
    rows = _rows()
    rows = rows[(rows["labels"] == labels) & (rows["folds"] == folds)]
    return dict(list(rows.groupby("line")))


def _changes(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return the difference of lesion Dice in each run that both have."""
    return (by_run(one) - by_run(other)).mean(axis=1).dropna()


def _each(changes: pd.Series) -> str:
    return " ".join(map(signed, changes))


def _infection(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return the difference of infection Dice at the other hospital, by run."""
    one, other = in_both(one, other)
    return one["other_hospital_infection"] - other["other_hospital_infection"]
