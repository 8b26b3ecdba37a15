"""The package's own layout, and tables that users write."""

import errno
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.datasets.slices import Slices, write_folder
from pyro_stitchnet.data.sources import detect
from pyro_stitchnet.data.sources._table import read_table
from pyro_stitchnet.data.sources.folder import FOLDER

SHARED = Path(
    os.environ.get("STITCHNET_SHARED", Path(__file__).resolve().parents[4] / "shared" / "data")
)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two patients, two of them labelled, one in a subfolder."""
    for path in ("images/a.png", "images/b.png", "images/sub/c.png"):
        write_image(tmp_path / path)
    for path in ("masks/a.png", "masks/sub/c.png"):
        write_image(tmp_path / path)
    (tmp_path / "index.csv").write_text(
        "patient,file,slice,study\n007,b.png,2,s1\n007,a.png,1,\n8,sub/c.png,1,s2\n"
    )
    return tmp_path


# --- Finding --------------------------------------------------------------------------------------


def test_every_row_is_a_scan(root: Path) -> None:
    scans = list(FOLDER.find(root))
    assert [(scan.name, scan.patient, scan.study) for scan in scans] == [
        ("b.png", "007", "s1"),
        ("a.png", "007", ""),
        ("sub/c.png", "8", "s2"),
    ]
    assert scans[2].image == root / "images" / "sub" / "c.png"
    assert detect(root) is FOLDER


def test_an_image_without_a_mask_is_unlabelled(root: Path) -> None:
    masks = {scan.name: scan.mask for scan in FOLDER.find(root)}
    assert masks["b.png"] is None
    assert masks["a.png"] == root / "masks" / "a.png"
    assert masks["sub/c.png"] == root / "masks" / "sub" / "c.png"


def test_a_written_folder_is_found(tmp_path: Path) -> None:
    sets = torch.ones(2, 32, 32, dtype=torch.uint8)
    written = Slices(torch.zeros(2, 32, 32), sets, ["a.png", "b.png"], ["p", "q"])
    write_folder(written, tmp_path)
    scans = list(FOLDER.find(tmp_path))
    assert [(scan.name, scan.patient) for scan in scans] == [("a.png", "p"), ("b.png", "q")]
    assert all(scan.mask is not None for scan in scans)
    assert FOLDER.rule == {0: {0}, 1: {1}, 2: {2}, 3: {3}}


def test_a_mask_may_have_another_ending(root: Path) -> None:
    (root / "images" / "a.png").rename(root / "images" / "a.JPG")
    (root / "masks" / "sub" / "c.png").rename(root / "masks" / "sub" / "c.nii.gz")
    index = root / "index.csv"
    index.write_text(index.read_text().replace("a.png", "a.JPG"))
    masks = {scan.name: scan.mask for scan in FOLDER.find(root)}
    assert masks["a.JPG"] == root / "masks" / "a.png"
    assert masks["sub/c.png"] == root / "masks" / "sub" / "c.nii.gz"
    assert masks["b.png"] is None


def test_of_two_masks_none_is_chosen(root: Path) -> None:
    (root / "masks" / "a.png").rename(root / "masks" / "a.nii")
    write_image(root / "masks" / "a.mha.png")
    (root / "masks" / "a.mha.png").rename(root / "masks" / "a.mha")
    faults = {scan.name: scan.fault for scan in FOLDER.find(root) if scan.fault}
    assert list(faults) == ["a.png"]
    assert "a.mha and a.nii differ only in their endings; rename one" in faults["a.png"]


def test_a_second_mask_of_an_image_is_a_fault_of_that_image(root: Path) -> None:
    """Such as a mask as PNG beside the same as JPEG, whose name is that of the image."""
    (root / "masks" / "a.nii").write_bytes(b"")
    faults = {scan.name: scan.fault for scan in FOLDER.find(root) if scan.fault}
    assert list(faults) == ["a.png"]
    assert "a.png and a.nii differ only in their endings; rename one" in faults["a.png"]


def test_of_two_images_of_one_mask_none_is_labelled(root: Path) -> None:
    (root / "masks" / "a.png").rename(root / "masks" / "a.nii")
    write_image(root / "images" / "a.jpg")
    index = root / "index.csv"
    index.write_text(index.read_text() + "9,a.jpg,1,\n")
    faults = {scan.name: scan.fault for scan in FOLDER.find(root) if scan.fault}
    assert list(faults) == ["a.png", "a.jpg"]
    assert "masks/a.nii: a.png and a.jpg differ only in their endings" in faults["a.jpg"]
    (root / "masks" / "a.nii").rename(root / "masks" / "a.png")  # of a.png, beyond doubt
    masks = {scan.name: scan.mask for scan in FOLDER.find(root)}
    assert masks["a.png"] == root / "masks" / "a.png"
    assert masks["a.jpg"] is None


def test_a_mask_without_a_row_is_named(root: Path) -> None:
    (root / "masks" / "a.png").rename(root / "masks" / "A_mask.png")
    with pytest.raises(FileNotFoundError, match=r"masks/A_mask\.png: is the mask of no file in"):
        list(FOLDER.find(root))


def test_an_image_without_a_row_is_a_fault(root: Path) -> None:
    write_image(root / "images" / "extra.png")
    (root / "images" / "notes.txt").touch()
    faults = {scan.name: scan.fault for scan in FOLDER.find(root) if scan.fault}
    assert list(faults) == ["extra.png"]
    assert "images/extra.png: not in index.csv; add it, or" in faults["extra.png"]


@pytest.mark.parametrize("name", ["mask", "Masks2", "labels"])
def test_a_folder_of_masks_with_another_name_is_refused(root: Path, name: str) -> None:
    (root / "masks").rename(root / name)
    with pytest.raises(ValueError, match=rf"{name}: masks are read from \S+masks only; rename"):
        list(FOLDER.find(root))


def test_masks_without_read_access_are_not_ignored(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system call denies access, since root may read anywhere."""
    stat = os.stat

    def deny(path: Path, **options: object) -> os.stat_result:
        if path == root / "masks" / "a.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", deny)
    monkeypatch.setattr(Path, "rglob", lambda *_: iter(()))  # it ignores them
    with pytest.raises(PermissionError, match=r"masks/a\.png"):
        list(FOLDER.find(root))


def test_a_missing_image_is_named(root: Path) -> None:
    (root / "images" / "b.png").unlink()
    faults = {scan.name: scan.fault for scan in FOLDER.find(root)}
    assert faults["a.png"] == faults["sub/c.png"] == ""
    assert faults["b.png"] == f"{root / 'images' / 'b.png'}: missing, though index.csv lists it"


@pytest.mark.parametrize(
    "file", ["../../secret.png", "/etc/secret.png", "sub/../../x.png", "..\\x.png", "C:\\x.png"]
)
def test_files_outside_the_folder_are_not_read(root: Path, file: str) -> None:
    write_image(root.parent / "secret.png")
    (root / "index.csv").write_text(f"file,patient\na.png,p\nsub/c.png,p\n{file},q\n")
    scan = list(FOLDER.find(root))[2]
    assert f"index.csv: {file} lies outside" in scan.fault
    assert scan.image == root / "index.csv"
    assert scan.mask is None


def test_linked_files_and_folders_are_found(root: Path) -> None:
    """A link's own name counts: that of its target may lack an ending."""
    (root / "images" / "b.png").rename(root / "blob")
    (root / "images" / "b.png").symlink_to("../blob")
    (root / "masks").rename(root / "elsewhere")
    (root / "masks").symlink_to("elsewhere")
    scans = {scan.name: scan for scan in FOLDER.find(root)}
    assert scans["b.png"].image == root / "images" / "b.png"
    assert scans["b.png"].fault == ""
    assert scans["sub/c.png"].mask == root / "masks" / "sub" / "c.png"


def apart(name: str) -> str:
    """Return a name with its accents apart, as macOS stores it."""
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(("on_disk", "in_table"), [(str, apart), (apart, str), (apart, apart)])
def test_names_are_the_same_in_all_forms_of_unicode(
    tmp_path: Path, on_disk: Callable[[str], str], in_table: Callable[[str], str]
) -> None:
    write_image(tmp_path / "images" / on_disk("Ä/é.png"))
    write_image(tmp_path / "masks" / on_disk("Ä/é.png"))
    write_image(tmp_path / "images" / "b.png")
    rows = ["file,patient", f"{in_table('Ä/é.png')},{in_table('Müller')}", "b.png,Müller "]
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    first, second = FOLDER.find(tmp_path)
    assert (first.name, first.patient, second.patient) == ("Ä/é.png", "Müller", "Müller")
    assert first.fault == ""
    assert isinstance(first.mask, Path)
    assert first.mask.is_file()


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the development data at {SHARED}")
@pytest.mark.parametrize(
    ("part", "slices", "masks"), [("labelled", 50, 50), ("unlabelled", 320, 0), ("partial", 82, 82)]
)
def test_the_development_data_are_found(part: str, slices: int, masks: int) -> None:
    folder = SHARED / "covid-ct" / part
    assert detect(folder) is FOLDER
    scans = list(FOLDER.find(folder))
    assert len(scans) == slices
    assert sum(scan.mask is not None for scan in scans) == masks


# --- Tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file\na.png\n", "no column patient, but file; rename or add a column"),
        ("a.png,p1\n", r"no column file nor patient, but a\.png, p1; rename"),
        ("File,Patient\na.png,p1\n", "no column file nor patient, but File, Patient; rename"),
        ("file;patient\na.png;p1\n", "semicolons separate its columns; save it with commas"),
        ("file;patient\na.png;Doe, J\n", "semicolons separate its columns; save it with commas"),
        ("file\tpatient\na.png\tp1\n", "tabs separate its columns; save it with commas"),
        ("file,patient\na,1.png,p1\n", 'the rows have more cells .* in "quotation marks"'),
        ("file,patient\na.png,p1\n a.png ,p2\n", r"a\.png is listed twice; remove one row"),
        ("file,patient\n", "has no rows; list every file"),
        ("", "not a readable table; save it as CSV"),
        ('file,patient\na.png,p1,x,y\nb.png,p2,x\n"', "not a readable table; save it as CSV"),
        ("file,patient\na.png,p\nb.png,\n", "row 3 lacks its patient; add it"),
        ("file,patient\n  ,p1\n", "row 2 lacks its file; add it"),
        ("file,patient\na.png\n", "row 2 lacks its patient; add it"),
        ("file,patient,patient \na.png,p,q\n", "has two columns patient; remove one"),
        ("file,patient\na.png,p1\na.png,p2\n", r"a\.png is listed twice; remove one row"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "index.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path}: {words}"):
        read_table(path, ("file", "patient"))


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(b"file,patient\n\xff\xfe\x00,p\n")
    with pytest.raises(ValueError, match=r"index\.csv: not a readable table"):
        read_table(path, ("file", "patient"))


def test_spaces_around_cells_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text('\ufefffile, patient ,study\na.png,007\nb.png, 007 ,\n"c, d.png", NA, s 1\n')
    table = read_table(path, ("file", "patient"))
    assert list(table) == ["file", "patient", "study"]
    assert table["file"].tolist() == ["a.png", "b.png", "c, d.png"]
    assert table["patient"].tolist() == ["007", "007", "NA"]
    assert table["study"].tolist() == ["", "", "s 1"]


def test_the_error_for_a_missing_table_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.csv: missing; .* file and patient"):
        list(FOLDER.find(tmp_path))
