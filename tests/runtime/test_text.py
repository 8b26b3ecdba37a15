"""Names in one form, and tables that are read back as they were written."""

import io
import os
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.runtime.text import csv_text, escaped, identity


@pytest.mark.parametrize(
    "name",
    ["Müller", unicodedata.normalize("NFD", "Müller"), " Müller\u00a0"],
)
def test_names_that_look_the_same_are_the_same(name: str) -> None:
    assert identity(name) == "Müller"


@settings(derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=())) | st.binary().map(os.fsdecode))
def test_any_name_has_one_form_and_can_be_written(name: str) -> None:
    once = identity(name)
    assert identity(once) == once
    assert once.encode().decode() == once


def test_bytes_that_are_no_utf8_stay_legible_and_different() -> None:
    names = [os.fsdecode(name) for name in (b"M\xfcller", b"M\xf6ller", "Müller".encode())]
    assert [escaped(name) for name in names] == [r"M\xfcller", r"M\xf6ller", "Müller"]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_text_in_a_table_comes_back(cells: list[str]) -> None:
    table = pd.DataFrame({"a": cells, "b": range(len(cells))})
    again = pd.read_csv(io.StringIO(csv_text(table)), dtype={"a": str}, keep_default_na=False)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_table_with_undecodable_names_is_written() -> None:
    assert csv_text(pd.DataFrame({"a": ["x\udcfc"]})) == "a\nx\\xfc\n"
