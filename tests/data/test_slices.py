"""Reading and writing folders of slices, and what a bad folder is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.slices import (
    ALL_LABELS,
    Slices,
    allowed_sets,
    read_folder,
    write_folder,
)
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY, LABEL_RULES

SIZE = 32


def slices(n: int = 3, size: int = SIZE, *, start: int = 0) -> Slices:
    """Random labelled slices of n patients, grey in whole 8-bit levels."""
    numbers = range(start, start + n)
    return Slices(
        torch.randint(256, (n, size, size)).float() / 255,
        (1 << torch.randint(4, (n, size, size))).to(torch.uint8),
        [f"slice_{i}.png" for i in numbers],
        [f"patient_{i}" for i in numbers],
    )


def picture_folder(
    folder: Path, image: np.ndarray, mask: np.ndarray | None = None, *, name: str = "a.png"
) -> Path:
    """A folder of one slice, written without the package."""
    for part, picture in (("images", image), ("masks", mask)):
        if picture is not None:
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / part / name)
    (folder / "index.csv").write_text(f"file,patient\n{name},p1\n")
    return folder


def bits(*labels: int) -> int:
    return sum(1 << label for label in labels)


GREY = np.full((SIZE, SIZE), 100, np.uint8)
MASK = np.full((SIZE, SIZE), HEALTHY, np.uint8)


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


@pytest.mark.parametrize("strange", [bits(GGO, CONSOLIDATION), ALL_LABELS, 0])
def test_labels_of_a_partly_labelled_slice_name_it(strange: int) -> None:
    whole = slices()
    whole.label_sets[1, 5, 7] = strange
    with pytest.raises(ValueError, match=r"slice_1\.png: not labelled .* the rule 'full'"):
        whole.labels()


def test_take_keeps_what_belongs_together() -> None:
    whole = slices(4)
    some = whole.take([3, 1])
    assert len(some) == 2
    assert (some.names, some.patients) == (
        ["slice_3.png", "slice_1.png"],
        ["patient_3", "patient_1"],
    )
    assert torch.equal(some.images, whole.images[[3, 1]])
    assert torch.equal(some.label_sets, whole.label_sets[[3, 1]])


def test_without_patients_leaves_the_others() -> None:
    whole = slices(4)
    some = whole.without_patients({"patient_1", "patient_3", "patient_9"})
    assert list(some.patients) == ["patient_0", "patient_2"]
    assert torch.equal(some.images, whole.images[[0, 2]])
    assert len(whole.without_patients(set(whole.patients))) == 0
    assert len(whole.without_patients(())) == 4


def test_addition_puts_slices_behind_one_another() -> None:
    one, other = slices(2), slices(3, start=2)
    both = one + other
    assert len(both) == 5
    assert list(both.names) == [f"slice_{i}.png" for i in range(5)]
    assert list(both.patients) == [f"patient_{i}" for i in range(5)]
    assert torch.equal(both.take([0, 1]).images, one.images)
    assert torch.equal(both.take([2, 3, 4]).label_sets, other.label_sets)


def test_without_labels_allows_all_everywhere() -> None:
    whole = slices()
    free = whole.without_labels()
    assert allowed_sets(free.label_sets).all()
    assert torch.equal(free.images, whole.images)
    assert not allowed_sets(whole.label_sets).all(), "the labels of the original are gone"


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


# --- Round trip -----------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = slices()
    write_folder(written, tmp_path / "new" / "folder")
    read = read_folder(tmp_path / "new" / "folder", SIZE)
    assert torch.equal(read.images, written.images)
    assert read.images.dtype == torch.float32
    assert torch.equal(read.label_sets, written.label_sets)
    assert list(read.names) == list(written.names)
    assert list(read.patients) == list(written.patients)


def test_unlabelled_slices_are_written_without_masks(tmp_path: Path) -> None:
    write_folder(slices().without_labels(), tmp_path)
    assert not (tmp_path / "masks").exists()
    assert (read_folder(tmp_path, SIZE, rule=None).label_sets == ALL_LABELS).all()


def test_partly_labelled_slices_are_not_written(tmp_path: Path) -> None:
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


def test_patients_keep_their_leading_zeros(tmp_path: Path) -> None:
    picture_folder(tmp_path, GREY, MASK)
    (tmp_path / "index.csv").write_text("patient,extra,file\n007,x,a.png\n")
    assert list(read_folder(tmp_path, SIZE).patients) == ["007"]


# --- Shape and size -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(80, 40), (40, 80)])
def test_padding_keeps_the_aspect_ratio_and_is_background(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    image, mask = np.full(shape, 200, np.uint8), np.full(shape, HEALTHY, np.uint8)
    middle = tuple(slice(n // 2 - 10, n // 2 + 10) for n in shape)
    mask[middle] = GGO  # a square, 20 of 80 pixels
    read = read_folder(picture_folder(tmp_path, image, mask), 64)
    labels = read.labels()[0]
    ggo = labels == GGO
    assert ggo.any(0).sum() == ggo.any(1).sum() == 16  # of 64, still a square
    if shape[0] < shape[1]:
        labels, picture = labels.T, read.images[0].T
    else:
        picture = read.images[0]
    assert (labels[:, :16] == BACKGROUND).all()
    assert (labels[:, 48:] == BACKGROUND).all()
    assert (labels[:, 16:48] != BACKGROUND).all()
    assert (picture[:, :15] == 0).all()  # the border itself is interpolated
    assert (picture[:, 49:] == 0).all()
    torch.testing.assert_close(picture[:, 17:47], torch.full((64, 30), 200 / 255))


def test_padding_is_background_even_where_zeros_may_be_more(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path, np.zeros((64, 32), np.uint8), np.zeros((64, 32), np.uint8))
    sets = read_folder(folder, 64, rule="control").label_sets[0]
    assert (sets[:, 16:48] == bits(BACKGROUND, HEALTHY)).all()
    assert (sets[:, :16] == bits(BACKGROUND)).all()
    assert (sets[:, 48:] == bits(BACKGROUND)).all()


@pytest.mark.parametrize("size", [32, 64, 160])
def test_resizing_invents_no_labels(tmp_path: Path, size: int) -> None:
    mask = np.random.default_rng(0).choice([BACKGROUND, CONSOLIDATION], (75, 51)).astype(np.uint8)
    read = read_folder(picture_folder(tmp_path, mask, mask), size)
    assert read.images.shape == read.label_sets.shape == (1, size, size)
    assert set(read.labels().unique().tolist()) == {BACKGROUND, CONSOLIDATION}
    assert ((read.images >= 0) & (read.images <= 1)).all()


def test_shrinking_averages_instead_of_picking(tmp_path: Path) -> None:
    checkers = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    read = read_folder(picture_folder(tmp_path, checkers), 32, rule=None)
    assert (read.images - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("size", [0, -32, 31, 100])
def test_a_size_that_the_network_cannot_halve_five_times_is_refused(
    tmp_path: Path, size: int
) -> None:
    with pytest.raises(ValueError, match=f"size {size} is not a positive multiple of 32"):
        read_folder(picture_folder(tmp_path, GREY, MASK), size)


# --- Rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("full", [bits(0), bits(1), bits(2), bits(3)]),
        ("infection", [bits(0), bits(1), bits(2, 3)]),
        ("lung", [bits(0), bits(1, 2, 3)]),
        ("control", [bits(0, 1)]),
    ],
)
def test_rules_say_what_the_values_allow(tmp_path: Path, rule: str, expected: list[int]) -> None:
    mask = (np.arange(SIZE * SIZE) % len(expected)).reshape(SIZE, SIZE).astype(np.uint8)
    read = read_folder(picture_folder(tmp_path, GREY, mask), SIZE, rule=rule)
    assert read.label_sets.dtype == torch.uint8
    assert np.array_equal(read.label_sets[0].numpy(), np.array(expected)[mask])


def test_every_rule_is_tested_above() -> None:
    assert set(LABEL_RULES) == {"full", "infection", "lung", "control"}


def test_without_a_rule_masks_are_not_read(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path, GREY, np.full((3, 3), 99, np.uint8))
    assert (read_folder(folder, SIZE, rule=None).label_sets == ALL_LABELS).all()


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="'lesion' is unknown; choose one of full, infection, lung"
    ):
        read_folder(picture_folder(tmp_path, GREY, MASK), SIZE, rule="lesion")


# --- Kinds of pictures ----------------------------------------------------------------------------


def test_16_bit_pictures_keep_their_scale(tmp_path: Path) -> None:
    image = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    read = read_folder(picture_folder(tmp_path, image), SIZE, rule=None)
    found = read.images[0].numpy()
    np.testing.assert_allclose(found, image / 65535, atol=0.51 / 255)
    assert (found.min(), found.max()) == (0, 1)


def test_grey_saved_as_colour_is_grey(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    read = read_folder(picture_folder(tmp_path, np.stack([image] * 3, -1)), SIZE, rule=None)
    assert np.array_equal((read.images[0] * 255).round().numpy(), image)


def test_a_mask_with_a_palette_is_read_by_its_indices(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path, GREY, MASK)
    mask = np.random.default_rng(0).integers(0, 4, (SIZE, SIZE), np.uint8)
    picture = Image.fromarray(mask).convert("P")
    picture.putdata(mask.flatten().tolist())
    picture.putpalette([0, 0, 0, 90, 200, 90, 250, 200, 0, 250, 0, 0])
    picture.save(folder / "masks" / "a.png")
    assert np.array_equal(read_folder(folder, SIZE).labels()[0].numpy(), mask)


def test_a_picture_without_a_fixed_scale_is_refused(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path, GREY.astype(np.float32), name="a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: picture mode F .* save it as 8-bit or 16-bit"):
        read_folder(folder, SIZE, rule=None)


# --- Bad folders ----------------------------------------------------------------------------------


def refused(folder: Path, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as caught:
        read_folder(folder, SIZE)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return picture_folder(tmp_path, GREY, MASK)


def test_a_good_folder_is_read(folder: Path) -> None:
    assert len(read_folder(folder, SIZE)) == 1


def test_no_folder_or_no_index(folder: Path) -> None:
    remedy = ("index.csv: missing", "images/", "masks/", "columns file and patient")
    refused(folder / "nowhere", FileNotFoundError, "nowhere", *remedy)
    (folder / "index.csv").unlink()
    refused(folder, FileNotFoundError, str(folder), *remedy)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file\na.png\n", "no column patient; it needs file and patient"),
        ("patient\np1\n", "no column file;"),
        ("a.png,p1\n", "no column file nor patient;"),
        ("file,patient\n", "lists no slices"),
        ("", "not a readable table; save it as CSV"),
        ('file,patient\na.png,p1,x,y\nb.png,p2,x\n"', "not a readable table; save it as CSV"),
        ("file,patient\na.png,\n", "a row lacks its file or its patient"),
        ("file,patient\n,p1\n", "a row lacks its file or its patient"),
        ("file,patient\na.png,p1\na.png,p2\n", "a.png is listed twice"),
    ],
)
def test_a_bad_index(folder: Path, content: str, words: str) -> None:
    (folder / "index.csv").write_text(content)
    refused(folder, ValueError, "index.csv", words)


def test_an_index_that_is_not_text(folder: Path) -> None:
    (folder / "index.csv").write_bytes(b"file,patient\n\xff\xfe\x00,p\n")
    refused(folder, ValueError, "index.csv", "not a readable table")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_missing_file(folder: Path, part: str) -> None:
    (folder / part / "a.png").unlink()
    refused(folder, FileNotFoundError, str(Path(part) / "a.png"), "though index.csv lists it")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_file_that_is_no_picture(folder: Path, part: str) -> None:
    (folder / part / "a.png").write_text("no picture")
    refused(folder, ValueError, str(Path(part) / "a.png"), "not a readable picture")


def test_a_truncated_file_wherever_it_ends(folder: Path) -> None:
    path = folder / "images" / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for length in (*range(60), len(content) // 2, len(content) - 40):
        path.write_bytes(content[:length])
        refused(folder, ValueError, str(Path("images") / "a.png"), "not a readable picture")


def test_a_corrupt_file(folder: Path) -> None:
    path = folder / "images" / "a.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(content)
    refused(folder, ValueError, str(Path("images") / "a.png"), "not a readable picture")


def test_a_mask_of_another_size(folder: Path) -> None:
    picture_folder(folder, GREY, MASK[:-1])
    words = ("a.png: mask is (31, 32), its picture (32, 32)", "must match")
    refused(folder, ValueError, str(Path("masks") / "a.png"), *words)


@pytest.mark.parametrize("value", [4, 255])
def test_a_mask_with_a_strange_value(folder: Path, value: int) -> None:
    mask = MASK.copy()
    mask[3, 4] = value
    picture_folder(folder, GREY, mask)
    words = (f"mask holds [{value}]", "'full' knows [0, 1, 2, 3]", "choose another rule", "mend")
    refused(folder, ValueError, str(Path("masks") / "a.png"), *words)


def test_a_mask_in_colour(folder: Path) -> None:
    picture_folder(folder, GREY, np.stack([MASK] * 3, -1))
    words = ("a mask must be an 8-bit picture whose values are labels", "RGB")
    refused(folder, ValueError, str(Path("masks") / "a.png"), *words)
