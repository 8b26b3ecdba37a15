"""Write the result tables and the figure of README and docs from benchmarks/results.

    make results

A table stands between the comments ``<!-- table NAME -->`` and ``<!-- end -->``. Its cells are from
the table.csv and the report.md that the run wrote. Lines without results are left out.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping

import pandas as pd
from article_tables import article, changes, statistics
from matplotlib.figure import Figure
from result_rows import RESULTS, ROOT, gain, in_both, rows_of, signed

from pyro_stitchnet.evaluation.benchmark.columns import by_patient
from pyro_stitchnet.evaluation.benchmark.report import curves, line_names
from pyro_stitchnet.evaluation.text_table import TextTable, decimal
from pyro_stitchnet.figures import label_efficiency, save_figure

PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmark.md", ROOT / "docs" / "study.md"]

FIGURE = ROOT / "docs" / "images" / "label_efficiency.png"

BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

DICE, STYLES = "Dice on slices with the lesion", "Styles inside the lung"
BOTH, OTHER = "both, by patient (95 %)", "other-hospital infection"

LEVELS = "unet (levels)"
FEW, FEW_FOLDS = 10, 3  # labels of the main table, and its folds of patients
MANY = 40  # labels of the second table

# Lines of the report by the names that the docs give them.
COVID = {
    "U-Net": "unet",
    "U-Net, split by a threshold": "unet (threshold)",
    "U-Net, split by tissue levels": LEVELS,
    "`guided`": "guided (posterior)",
    "`guided`, `--decision dice`": "guided (posterior, dice)",
    "Mean Teacher": "mean-teacher",
    "UA-MT": "ua-mt",
    "CPS": "cps",
    "UniMatch": "unimatch",
    "BCP": "bcp",
}
LEAST_RUNS = 2  # of a line in the README
STUDY = {
    "U-Net": "unet",
    "U-Net, split by tissue levels": LEVELS,
    "`guided`": "guided (posterior)",
    "`guided`, the bound teaches q": "guided, bound teaches q (posterior)",
    "`guided`, the posterior teaches q": "guided, taught (posterior)",
    "`guided`, `style_pool` 1": "guided, fine styles (posterior)",
    "`guided`, not anchored": "guided, not anchored (posterior)",
    "`guided`, `downsampling` 1": "guided, whole size (posterior)",
    "`article`, labels only": "article, labels only (posterior)",
    "`article`": "article (posterior)",
    "`reference`": "reference (posterior)",
    "`reference`, 1,200 steps": "reference, 1200 steps (posterior)",
}

# Lines with unlabelled slices, each with the same method from labels alone. The classifier of the
# preset `guided` learns from labelled slices only: it is the counterpart of the taught variant.
GAINS = {
    "U-Net, decoder denoises first": ("unet, denoised", "unet, 1600 steps"),
    "U-Net, random start, denoises first": (
        "unet, random start, denoised",
        "unet, random start, 1600 steps",
    ),
    "`guided`, the posterior teaches": ("guided, taught (posterior)", "guided (posterior)"),
    "Pseudo-labels": ("pseudo-labels", "unet"),
    "Mean Teacher": ("mean-teacher", "unet"),
    "UA-MT": ("ua-mt", "unet"),
    "CPS": ("cps", "unet"),
    "FixMatch": ("fixmatch", "unet"),
    "UniMatch": ("unimatch", "unet"),
    "BCP": ("bcp", "unet"),
}

# The lines of each length of training, in steps; the rest of the benchmark has STEPS.
STEPS = 800
LENGTHS = {
    400: "unet, 400 steps",
    STEPS: "unet",
    1600: "unet, 1600 steps",
    3200: "unet, 3200 steps",
}

Section = Mapping[str, pd.DataFrame]


def report_tables(report: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Return the first table of each part of a report, indexed by its first column.

    Args:
        report: the text of a report.md.

    Returns:
        The tables by heading and subheading.
    """
    sections: dict[str, dict[str, pd.DataFrame]] = {}
    for section in re.split(r"^## ", report, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        tables = sections.setdefault(heading, {})
        for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
            title, _, rest = part.partition("\n")
            if first := re.search(r"(?:^\| .*\n)+", rest, flags=re.MULTILINE):
                head, _, *rows = map(_cells, first[0].splitlines())
                tables[title] = pd.DataFrame(rows, columns=head).set_index(head[0])
    return sections


def benchmark_table(section: Section, shown: Mapping[str, str]) -> TextTable:
    """Return the main table, of one label budget."""
    dice = section[DICE]
    rows = [
        [
            name,
            *dice.loc[line, ["runs", "GGO", "consolidation", BOTH]],
            _difference(section, line),
            dice.loc[line, OTHER],
        ]
        for name, line in _with_results(section, shown)
    ]
    minus = f"minus {_name(shown, _against(section))} (95 %)"
    head = ["method", "runs", "GGO", "consolidation", "both (95 %)"]
    return TextTable([*head, minus, "other hospital"], rows)


def study_table(section: Section) -> TextTable:
    """Return the table of the study."""
    dice, styles = section[DICE], section[STYLES]
    rows = []
    for name, line in _with_results(section, STUDY):
        entry = line.partition(" (")[0]
        own = styles.loc[entry] if entry in styles.index else {}
        rows.append(
            [
                name,
                *dice.loc[line, ["runs", "GGO", "consolidation"]],
                _difference(section, line),
                dice.loc[line, OTHER],
                own.get("style gap mean", "–"),
            ]
        )
    against = _name(STUDY, _against(section))
    head = ["arm", "runs", "GGO", "consolidation", f"both, minus {against} (95 %)"]
    return TextTable([*head, "other population", "style gap"], rows)


def covid() -> TextTable:
    return benchmark_table(_sections("covid")["10 labelled slices"], COVID)


def many() -> TextTable:
    return benchmark_table(_sections("covid")[f"{MANY} labelled slices"], COVID)


def lengths() -> TextTable:
    """Return the U-Net and its split by tissue levels after each number of steps.

    Runs that have no other number of steps are left out.
    """
    lines = _lines()
    others = [lines[n] for s, n in LENGTHS.items() if s != STEPS and n in lines]
    seeds = pd.concat(others)["seed"].unique()
    lines = {name: rows[rows["seed"].isin(seeds)] for name, rows in lines.items()}
    cells = []
    for steps, name in LENGTHS.items():
        if name not in lines:
            continue
        row = [f"{steps:,}", str(len(lines[name]))]
        for variant in ("", " (levels)"):
            line, usual = lines[name + variant], lines["unet" + variant]
            difference = "–" if steps == STEPS else gain(line, usual)
            row += [decimal(by_patient(line).mean()), difference]
        infection = _infection(lines[name], lines["unet"])
        cells.append([*row, "–" if steps == STEPS else signed(infection.mean())])
    minus = f"minus {STEPS} steps (95 %)"
    head = ["steps", "runs", "U-Net", minus, "tissue levels", minus]
    return TextTable([*head, f"other-hospital infection, minus {STEPS}"], cells)


def readme() -> TextTable:
    """Return the lines of at least two runs, each compared with the U-Net in the runs of both."""
    lines = _lines()
    shown = {name: lines[line] for name, line in COVID.items() if line in lines}
    cells = []
    for name, runs in shown.items():
        if len(runs) < LEAST_RUNS:
            continue
        difference, infection = gain(runs, lines["unet"]), _infection(runs, lines["unet"])
        own = name == "U-Net"
        cells.append(
            [
                name,
                str(len(runs)),
                decimal(by_patient(runs).mean()),
                "–" if own else difference,
                decimal(runs["other_hospital_infection"].mean()),
                "–" if own else signed(infection.mean()),
            ]
        )
    head = ["method", "runs", "lesions", "minus U-Net (95 %)", "other-hospital infection"]
    return TextTable([*head, "minus U-Net"], cells)


def study() -> TextTable:
    return study_table(_sections("study")["10 labelled slices"])


def unlabelled() -> TextTable:
    """Return what each method gains from unlabelled slices, over the same from labels alone."""
    lines = _lines()
    cells = []
    for name, (line, other) in GAINS.items():
        if line not in lines or other not in lines:
            continue
        infection = _infection(lines[line], lines[other])
        by_run = " ".join(map(signed, infection))
        mean = signed(infection.mean())
        difference = gain(lines[line], lines[other])
        cells.append([name, str(len(infection)), difference, f"{mean}: {by_run}"])
    return TextTable(
        ["method", "runs", "both lesions (95 %)", "other-hospital infection: mean, by run"], cells
    )


def few() -> TextTable:
    """Return lesion Dice by number of labelled slices, on the same test patients.

    Seeds that lack a number of labels are left out. Both differences are from the U-Net: of its
    number of labels from :data:`FEW`, and of the split by tissue levels with :data:`FEW` labels.
    """
    rows = rows_of("covid")
    rows = rows[rows["folds"] == FEW_FOLDS].assign(line=line_names(rows))
    numbers = rows[rows["line"] == LEVELS].groupby("seed")["labels"].nunique()
    rows = rows[rows["seed"].isin(numbers.index[numbers == rows["labels"].nunique()])]
    lines = dict(list(rows.groupby(["labels", "line"])))
    cells = []
    for labels in sorted(set(rows["labels"]), key=lambda n: n if n > 0 else math.inf):
        unet, levels = lines[labels, "unet"], lines[labels, LEVELS]
        cells.append(
            [
                str(labels) if labels > 0 else "all",
                str(len(unet)),
                decimal(by_patient(unet).mean()),
                "–" if labels == FEW else gain(unet, lines[FEW, "unet"]),
                decimal(by_patient(levels).mean()),
                gain(lines[FEW, LEVELS], unet),
                decimal(unet["other_hospital_infection"].mean()),
            ]
        )
    head = ["labels", "runs", "U-Net", f"minus U-Net with {FEW} (95 %)", "tissue levels"]
    ours = f"tissue levels with {FEW}, minus this U-Net (95 %)"
    return TextTable([*head, ours, "other-hospital infection"], cells)


TABLES: Mapping[str, Callable[[], TextTable]] = {
    "covid": covid,
    "readme": readme,
    "study": study,
    "unlabelled": unlabelled,
    "article": article,
    "few": few,
    "many": many,
    "lengths": lengths,
    "changes": changes,
    "statistics": statistics,
}


def filled(page: str) -> str:
    """Return the text of a page with its tables written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]().markdown()}\n{block[3]}", page)


def label_curves() -> Figure:
    """Draw the lines of :func:`few`."""
    rows = rows_of("covid")
    rows = rows[rows["folds"] == FEW_FOLDS].assign(line=line_names(rows))
    names = {"unet": "U-Net", LEVELS: "U-Net, split by tissue levels"}
    rows = rows[rows["line"].isin(names)]
    return label_efficiency(curves(rows.assign(line=rows["line"].map(names))))


def main() -> None:
    save_figure(label_curves(), FIGURE)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def _sections(name: str) -> dict[str, dict[str, pd.DataFrame]]:
    return report_tables((RESULTS / name / "report.md").read_text(encoding="utf-8"))


def _lines() -> dict[str, pd.DataFrame]:
    """Return the rows of each line on real CT, with the labels and folds of the main table."""
    rows = rows_of("covid")
    rows = rows[(rows["labels"] == FEW) & (rows["folds"] == FEW_FOLDS)]
    return dict(list(rows.groupby(line_names(rows))))


def _infection(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return the difference of infection Dice at the other hospital, by run."""
    one, other = in_both(one, other)
    return one["other_hospital_infection"] - other["other_hospital_infection"]


def _with_results(section: Section, shown: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, line) for name, line in shown.items() if line in section[DICE].index)


def _against(section: Section) -> str:
    """Return the line that the report compares all others with."""
    (title,) = (title for title in section if title.startswith("Difference from "))
    return title.removeprefix("Difference from ")


def _difference(section: Section, line: str) -> str:
    against = _against(section)
    if line == against:
        return "–"
    row = section[f"Difference from {against}"].loc[line]
    return re.sub(r"([+-])0\.", r"\1.", f"{row['difference']} ({row['95 %']})")


def _name(shown: Mapping[str, str], line: str) -> str:
    return next((name for name, other in shown.items() if other == line), line)


def _cells(line: str) -> list[str]:
    cells = re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |"))
    return [cell.replace(r"\|", "|") for cell in cells]


if __name__ == "__main__":
    main()
