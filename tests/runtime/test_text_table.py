"""A table of text is drawn on a terminal, and Markdown elsewhere."""

import re
import sys

import pytest

from pyro_stitchnet.runtime.text_table import WIDTH, TextTable

TABLE = TextTable(["Lesion", "F1"], [["GGO " * 40, ".391 ± .100"]])


def test_in_a_pipe_a_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    TABLE.print()
    assert capsys.readouterr().out == TABLE.markdown() + "\n"


def test_a_name_does_not_break_a_row() -> None:
    table = TextTable(["Method", "F1"], [["a | b\nc", ".5"]])
    assert table.markdown().splitlines()[-1] == r"| a \| b c | .5 |"


def test_on_a_terminal_a_table_is_drawn_within_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "170")
    TABLE.print()
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert "|" not in printed
    assert ".391 ± .100" in printed
    assert max(map(len, printed.splitlines())) <= WIDTH


def test_on_a_terminal_of_80_columns_no_word_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ["source", "slices", "patients", "scans", "labelled", "complete", "tells infection",
            "GGO", "consolidation"]  # fmt: skip
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    TextTable(head, [["folder", *["18"] * 8]]).print()
    assert "…" not in capsys.readouterr().out
