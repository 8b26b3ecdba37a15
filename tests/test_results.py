"""The committed results belong to their specifications, and the tables of the docs to them."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from pyro_stitchnet.evaluation.benchmark.cells import Cell, cells_of
from pyro_stitchnet.evaluation.benchmark.columns import line_names
from pyro_stitchnet.evaluation.benchmark.results import CELL
from pyro_stitchnet.evaluation.benchmark.runner import check_options
from pyro_stitchnet.evaluation.benchmark.spec import Spec, read_spec
from pyro_stitchnet.runtime.text_table import TextTable, decimal

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OF_BENCHMARKS = sorted(p.parent for p in RESULTS.glob("*/table.csv"))


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The script docs/tables.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        return importlib.import_module("tables")


def rows_of(folder: Path) -> pd.DataFrame:
    rows = pd.read_csv(folder / "table.csv", dtype={"spec_digest": str}).fillna({"variant": ""})
    return rows.assign(line=line_names(rows))


def spec_of(folder: Path) -> Spec:
    """The specification that made the rows."""
    return read_spec(folder.parent.parent / f"{folder.name}.yaml")


def test_the_tables_of_the_docs_are_those_of_the_results(tables: ModuleType) -> None:
    found = []
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{page}: run `make results`"
        found += [name for _, name, _ in tables.BLOCK.findall(text)]
    assert sorted(found) == sorted(tables.TABLES)


@pytest.mark.usefixtures("tables")  # they import the module
def test_every_semi_supervised_method_is_in_the_table_of_gains() -> None:
    tables = importlib.import_module("covid_tables")
    shown = {line for line, _ in tables.GAINS.values()}
    entries = spec_of(RESULTS / "covid").entries.items()
    methods = {n for n, e in entries if e.uses_unlabelled and not e.method.startswith("stitchnet")}
    assert methods <= shown
    rows = rows_of(RESULTS / "covid")
    split = rows["name"].isin(methods) & (rows["variant"] == "levels")
    split &= (rows["labels"] == tables.FEW) & (rows["folds"] == tables.FEW_FOLDS)
    assert set(rows.loc[split, "line"]) <= shown


def test_an_edited_cell_is_found(tables: ModuleType) -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    number = re.search(r"\| \.(\d+) \(", text)
    assert number is not None
    edited = text.replace(number[0], "| .001 (", 1)
    assert edited != text
    assert tables.filled(edited) == text


def test_main_tables_are_small(tables: ModuleType) -> None:
    for table in (make() for make in tables.TABLES.values()):
        assert len(table.head) <= 7
    assert len(tables.TABLES["covid"]().rows) <= 10


def test_a_written_table_is_read_back(tables: ModuleType) -> None:
    table = TextTable(["a", "b"], [["q(y | x)", "1"], ["", "–"]])
    report = f"## 4\n\n### T\n\n{table.markdown()}\n{table.markdown()}"
    read = tables.report_tables(report)["4"]["T"]
    assert read.index.name == "a"
    assert read["b"].to_dict() == {"q(y | x)": "1", "": "–"}


@pytest.mark.parametrize(
    "folder", [f for f in OF_BENCHMARKS if (f / "report.md").exists()], ids=lambda f: f.name
)
def test_the_report_is_of_the_rows(folder: Path, tables: ModuleType) -> None:
    sections = tables.report_tables((folder / "report.md").read_text(encoding="utf-8"))
    columns = ["ece_ggo", "ece_con", "brier_ggo", "brier_con"]
    rows = rows_of(folder)
    assert rows.groupby("labels")["folds"].nunique().max() == 1  # no title names the folds
    for labels, part in rows.groupby("labels"):
        section = sections["All labels" if labels < 0 else f"{labels} labelled slices"]
        runs = section["Dice on slices with the lesion"]["runs"]
        assert runs.to_dict() == part["line"].value_counts().astype(str).to_dict()
        means = part.groupby("line")[columns].mean().map(decimal)
        written = section["Calibration inside the lung"].loc[means.index]
        assert written.to_numpy().tolist() == means.to_numpy().tolist()


@pytest.mark.parametrize("folder", OF_BENCHMARKS, ids=lambda folder: folder.name)
def test_a_committed_specification_makes_every_row(folder: Path) -> None:
    spec, rows = spec_of(folder), rows_of(folder)
    for name in spec.entries:
        check_options(spec, name)
    cells: dict[tuple[object, ...], Cell] = {tuple(c.key.values()): c for c in cells_of(spec)}
    for _, row in rows.iterrows():
        cell = cells[tuple(row[list(CELL)])]
        assert row["method"] == cell.entry.method
        assert row["data"] == str(spec.data_of(cell.entry))
        assert row["unlabelled"] == cell.entry.uses_unlabelled
        digest = row.get("spec_digest")
        if not pd.isna(digest):  # older rows have none
            assert re.fullmatch(r"[0-9a-f]{12}", digest)
            assert digest == spec.digest(cell.entry, cell.budget), f"{folder}: run it again"
