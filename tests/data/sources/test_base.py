"""What a scan refuses."""

from pathlib import Path

import pytest

from pyro_stitchnet.data.sources import Scan

A, B = Path("a.png"), Path("b.png")


def test_a_scan_without_a_patient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has no patient"):
        Scan("s", "", A)


def test_a_mask_and_a_label_everywhere_contradict() -> None:
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has a mask and a label everywhere"):
        Scan("s", "p", A, B, everywhere=frozenset({0}))


def test_slices_and_masks_are_as_many() -> None:
    assert Scan("s", "p", (A, B), (None, A)).mask == (None, A)
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has 2 pictures but 1 mask; give"):
        Scan("s", "p", (A, B), (A,))
    with pytest.raises(ValueError, match=r"a\.png: scan 's' has masks of slices, but no slices"):
        Scan("s", "p", A, (B,))
