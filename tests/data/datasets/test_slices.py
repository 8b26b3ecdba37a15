"""Slices in memory, and written as a folder; test_prepare reads such a folder."""

from pathlib import Path

import pytest
import torch

from pyro_stitchnet.data.datasets.slices import (
    Slices,
    allowed_sets,
    write_folder,
)
from pyro_stitchnet.labels import ALL_LABELS, BACKGROUND, CONSOLIDATION, GGO

SIZE = 32


def slices(n: int = 3, size: int = SIZE, *, start: int = 0) -> Slices:
    """Return random labelled slices of n patients, grey values in 8-bit levels."""
    numbers = range(start, start + n)
    return Slices(
        torch.randint(256, (n, size, size)).float() / 255,
        (1 << torch.randint(4, (n, size, size))).to(torch.uint8),
        [f"slice_{i}.png" for i in numbers],
        [f"patient_{i}" for i in numbers],
    )


def bits(*labels: int) -> int:
    return sum(1 << label for label in labels)


# --- In memory ------------------------------------------------------------------------------------


def test_sets_are_bits_of_labels() -> None:
    sets = torch.tensor([[bits(BACKGROUND), bits(GGO, CONSOLIDATION)], [ALL_LABELS, 0]]).byte()
    allowed = allowed_sets(sets)
    assert allowed.dtype == torch.bool
    assert allowed.int().tolist() == [
        [[1, 0, 0, 0], [0, 0, 1, 1]],
        [[1, 1, 1, 1], [0, 0, 0, 0]],
    ]


def test_labels_undoes_the_bits() -> None:
    labels = torch.randint(4, (2, SIZE, SIZE))
    whole = Slices(torch.rand(2, SIZE, SIZE), (1 << labels).byte(), ["a", "b"], ["p", "q"])
    assert whole.labels().dtype == torch.int64
    assert torch.equal(whole.labels(), labels)


@pytest.mark.parametrize("bits_of_pixel", [bits(GGO, CONSOLIDATION), ALL_LABELS, 0])
def test_labels_of_a_partially_labelled_slice_are_refused(bits_of_pixel: int) -> None:
    whole = slices()
    whole.label_sets[1, 5, 7] = bits_of_pixel
    with pytest.raises(ValueError, match=r"slice_1\.png: not labelled .* the rule 'full'"):
        whole.labels()


def test_take_keeps_images_labels_names_and_patients_together() -> None:
    whole = slices(4)
    some = whole.take([3, 1])
    assert len(some) == 2
    assert (some.names, some.patients) == (
        ["slice_3.png", "slice_1.png"],
        ["patient_3", "patient_1"],
    )
    assert torch.equal(some.images, whole.images[[3, 1]])
    assert torch.equal(some.label_sets, whole.label_sets[[3, 1]])


def test_a_slice_is_its_image_and_its_sets() -> None:
    whole = slices()
    image, sets = whole[1]
    assert torch.equal(image, whole.images[1])
    assert torch.equal(sets, whole.label_sets[1])


@pytest.mark.parametrize(
    ("images", "sets", "names", "message"),
    [
        ((2, 32, 32), (2, 32, 64), 2, "must both be"),
        ((2, 1, 32, 32), (2, 1, 32, 32), 2, "must both be"),
        ((2, 32, 32), (2, 32, 32), 1, "2 slices need as many names"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    images: tuple[int, ...], sets: tuple[int, ...], names: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Slices(torch.zeros(images), torch.ones(sets).byte(), ["a"] * names, ["p", "q"])


# --- Written --------------------------------------------------------------------------------------


def test_masks_may_be_left_out(tmp_path: Path) -> None:
    whole = slices()
    whole.label_sets[:] = ALL_LABELS
    write_folder(whole, tmp_path, masks=False)
    assert not (tmp_path / "masks").exists()
    assert len(list((tmp_path / "images").iterdir())) == 3


def test_partially_labelled_slices_are_not_written(tmp_path: Path) -> None:
    whole = slices()
    whole.label_sets[0, 0, 0] = bits(GGO, CONSOLIDATION)
    with pytest.raises(ValueError, match=r"slice_0\.png: not labelled"):
        write_folder(whole, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    write_folder(slices(), tmp_path)
    with pytest.raises(FileExistsError, match="holds slices already; remove it or choose another"):
        write_folder(slices(), tmp_path)


def test_only_png_is_written(tmp_path: Path) -> None:
    whole = Slices(torch.zeros(1, 32, 32), torch.ones(1, 32, 32).byte(), ["a.jpg"], ["p"])
    with pytest.raises(ValueError, match=r"a\.jpg: a slice's name must end in \.png"):
        write_folder(whole, tmp_path)
