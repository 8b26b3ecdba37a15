"""Checks of a scan's files and labels."""

from pathlib import Path

import pytest

from pyro_stitchnet.data.sources import ScanFiles

A, B = Path("a.png"), Path("b.png")


def test_a_scan_without_a_patient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has no patient"):
        ScanFiles("s", "", A)


def test_a_mask_and_a_label_everywhere_contradict() -> None:
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has a mask and a label everywhere"):
        ScanFiles("s", "p", A, B, everywhere=frozenset({0}))


def test_each_slice_has_a_mask_or_none() -> None:
    assert ScanFiles("s", "p", (A, B), (None, A)).mask == (None, A)
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has 2 images but 1 mask; give"):
        ScanFiles("s", "p", (A, B), (A,))
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has masks of slices, but no slices"):
        ScanFiles("s", "p", A, (B,))
