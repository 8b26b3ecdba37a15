"""Write the result tables and the figure of README and docs from benchmarks/results.

    make results

A table stands between the comments ``<!-- table NAME -->`` and ``<!-- end -->``. Its cells are from
the table.csv and the report.md that the run wrote. Lines without results are left out.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import pandas as pd
from article_tables import article, changes, statistics
from covid_tables import (
    covid,
    few,
    headroom,
    label_curves,
    lengths,
    machines,
    many,
    readme,
    short,
    unlabelled,
)
from result_rows import RESULTS, ROOT

from pyro_stitchnet.figures import save_figure
from pyro_stitchnet.runtime.text_table import TextTable

PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmark.md", ROOT / "docs" / "study.md"]

FIGURE = ROOT / "docs" / "images" / "label_efficiency.png"

BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

DICE, STYLES = "Dice on slices with the lesion", "Styles inside the lung"
OTHER = "other-hospital infection"

LEVELS = "unet (levels)"

# Lines of the report by the names that the docs give them.
STUDY = {
    "U-Net": "unet",
    "U-Net, lesions split by tissue levels": LEVELS,
    "`guided`": "guided (posterior)",
    "`guided`, the bound teaches q": "guided, bound teaches q (posterior)",
    "`guided`, `style_pool` 1": "guided, fine styles (posterior)",
    "`guided`, not anchored": "guided, not anchored (posterior)",
    "`guided`, `downsampling` 1": "guided, whole size (posterior)",
    "`article`, labels only": "article, labels only (posterior)",
    "`article`": "article (posterior)",
    "`reference`": "reference (posterior)",
    "`reference`, 1,200 steps": "reference, 1200 steps (posterior)",
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


def study() -> TextTable:
    return study_table(_sections("study")["10 labelled slices"])


def specificity() -> TextTable:
    text = (RESULTS / "specificity" / "report.md").read_text(encoding="utf-8")
    head, _, *rows = map(_cells, text.splitlines())
    return TextTable(head, rows)


TABLES: Mapping[str, Callable[[], TextTable]] = {
    "covid": covid,
    "readme": readme,
    "study": study,
    "unlabelled": unlabelled,
    "article": article,
    "few": few,
    "headroom": headroom,
    "many": many,
    "lengths": lengths,
    "machines": machines,
    "short": short,
    "changes": changes,
    "specificity": specificity,
    "statistics": statistics,
}


def filled(page: str) -> str:
    """Return the text of a page with its tables rewritten."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]().markdown()}\n{block[3]}", page)


def main() -> None:
    save_figure(label_curves(), FIGURE)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def _sections(name: str) -> dict[str, dict[str, pd.DataFrame]]:
    return report_tables((RESULTS / name / "report.md").read_text(encoding="utf-8"))


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
    if row["minus"] != against:  # the heads of the tables name one line only
        raise ValueError(f"{line}: compared with {row['minus']}, not with {against}")
    return re.sub(r"([+-])0\.", r"\1.", f"{row['difference']} ({row['95 %']})")


def _name(shown: Mapping[str, str], line: str) -> str:
    return next((name for name, other in shown.items() if other == line), line)


def _cells(line: str) -> list[str]:
    cells = re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |"))
    return [cell.replace(r"\|", "|") for cell in cells]


if __name__ == "__main__":
    main()
