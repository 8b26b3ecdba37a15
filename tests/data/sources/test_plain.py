"""A folder of unlabelled volumes and DICOM series."""

import os
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from pyro_stitchnet.data.datasets.prepare import find_jobs, prepare
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.sources import ScanFiles, detect
from pyro_stitchnet.data.sources.plain import PLAIN

Write = Callable[..., Path]

STORED = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(np.int16)
LUNG, BONE = "1.2.3", "1.2.4"


def volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), path)


def find(root: Path) -> dict[str, ScanFiles]:
    found = list(PLAIN.find(root))
    scans = {scan.name: scan for scan in found}
    assert len(scans) == len(found)
    return scans


def test_volumes_and_series_are_found_at_any_depth(tmp_path: Path, write_slice: Write) -> None:
    volume(tmp_path / "p10.nii.gz")
    volume(tmp_path / "p9.nii")
    volume(tmp_path / "ann" / "2020" / "chest.nii.gz")
    (tmp_path / "bob.mha").touch()
    for number in (1, 2):
        write_slice(tmp_path / "carl" / "study" / f"IM{number}", STORED[0])
        other = tmp_path / "carl" / "other" / f"{number}.dcm"
        write_slice(other, STORED[0], SeriesInstanceUID=BONE)
    scans = find(tmp_path)
    assert list(scans) == ["ann/2020/chest", "bob", "carl/other", "carl/study", "p9", "p10"]
    assert scans["carl/study"].image == tmp_path / "carl" / "study"
    assert scans["ann/2020/chest"].image == tmp_path / "ann" / "2020" / "chest.nii.gz"
    assert all(scan.mask is None and scan.everywhere is None for scan in scans.values())
    assert detect(tmp_path) is PLAIN


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "p/s/a.dcm", "p/DICOMDIR"])
def test_its_layout_is_detected_by_endings_or_a_dicomdir(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert detect(tmp_path) is PLAIN


def test_a_folder_of_one_series_names_the_scan(tmp_path: Path, write_slice: Write) -> None:
    write_slice(tmp_path / "ann" / "1.dcm", STORED[0])
    (scan,) = PLAIN.find(tmp_path / "ann")
    assert (scan.name, scan.patient, scan.image) == ("ann", "ann", tmp_path / "ann")


def test_folders_named_by_uids_have_different_names(tmp_path: Path, write_slice: Write) -> None:
    for uid in ("1.2.840.1", "1.2.840.2"):
        write_slice(tmp_path / "ann" / uid / "1", STORED[0], SeriesInstanceUID=uid)
    assert list(find(tmp_path)) == ["ann/1.2.840.1", "ann/1.2.840.2"]


def test_other_files_are_ignored(tmp_path: Path, write_slice: Write) -> None:
    volume(tmp_path / "p.nii.gz")
    volume(tmp_path / "._p.nii.gz")
    volume(tmp_path / "__MACOSX" / "p.nii.gz")
    write_slice(tmp_path / "__MACOSX" / "1.dcm", STORED[0])
    write_slice(tmp_path / "mr" / "1.dcm", STORED[0], Modality="MR")
    write_slice(tmp_path / "ann" / "scout.dcm", STORED[0], ImageType=["A", "B", "LOCALIZER"])
    dose = {"SOPClassUID": SecondaryCaptureImageStorage, "ImagePositionPatient": None}
    write_slice(tmp_path / "ann" / "dose.dcm", STORED[0], **dose)
    (tmp_path / "notes").write_text("short")
    assert list(find(tmp_path)) == ["p"]


# --- Several series in a folder -------------------------------------------------------------------


def study(folder: Path, write_series: Write) -> Path:
    """Two CT series of 3 and 2 slices and an MR one, their files mixed, and a third CT below."""
    write_series(folder, STORED, names="ace", SeriesNumber=10, SeriesDescription="Lung 1.0 / B60")
    bone = {"SeriesInstanceUID": BONE, "SeriesNumber": 9, "SeriesDescription": "Bone"}
    write_series(folder, STORED[:2], names="bd", **bone)
    write_series(folder, STORED, names="xyz", SeriesInstanceUID="1.2.7", Modality="MR")
    write_series(folder / "later", STORED[:1], SeriesInstanceUID="1.2.8")
    return folder


def test_every_ct_series_of_a_folder_is_a_scan(tmp_path: Path, write_series: Write) -> None:
    folder = study(tmp_path / "ann" / "st1", write_series)
    scans = find(tmp_path)
    assert {name: (scan.image, scan.series) for name, scan in scans.items()} == {
        "ann/st1/9_Bone": (folder, BONE),
        "ann/st1/10_Lung_1.0_B60": (folder, LUNG),
        "ann/st1/later": (folder / "later", "1.2.8"),
    }
    assert list(scans)[:2] == ["ann/st1/9_Bone", "ann/st1/10_Lung_1.0_B60"]  # natural order
    assert {scan.patient for scan in scans.values()} == {"ann"}
    slices = [len(read_stack(scan.image, series=scan.series)) for scan in scans.values()]
    assert slices == [2, 3, 1]


def test_series_of_the_same_description_have_different_names(
    tmp_path: Path, write_slice: Write
) -> None:
    for uid, number, description in (
        ("1.1", 2, "Lung"),
        ("1.2", 2, "Lung"),
        ("1.3", None, None),
        ("1.4", 2, None),
    ):
        tags = {"SeriesNumber": number, "SeriesDescription": description}
        write_slice(tmp_path / "ann" / uid, STORED[0], SeriesInstanceUID=uid, **tags)
    write_slice(tmp_path / "ann" / "no uid", STORED[0], SeriesInstanceUID=None)
    names = [f"ann/{label}" for label in ("1.3", "2", "2_Lung_1.1", "2_Lung_1.2", "unnamed")]
    scans = find(tmp_path)
    assert list(scans) == names
    assert [scan.series for scan in scans.values()] == ["1.3", "1.4", "1.1", "1.2", ""]


def test_every_valid_series_is_prepared(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    folder = study(tmp_path / "in" / "ann", write_series)
    tags = {"SeriesInstanceUID": BONE, "PixelSpacing": None}
    invalid = write_slice(folder / "q.dcm", STORED[2], ImagePositionPatient=[7, 7, 12], **tags)
    whole = Preprocessing(size=32, lungs="none")
    with pytest.raises(ValueError, match=r"q\.dcm: gives no PixelSpacing"):
        prepare([str(tmp_path / "in")], tmp_path / "a", preprocessing=whole, progress=False)
    made = prepare(
        [str(tmp_path / "in")],
        tmp_path / "b",
        preprocessing=whole,
        progress=False,
        skip_bad=True,
    )
    sizes = made.manifest.groupby("scan").size().to_dict()
    assert sizes == {"ann/10_Lung_1.0_B60": 3, "ann/later": 1}
    (line,) = (tmp_path / "b" / "skipped.csv").read_text().splitlines()[1:]
    assert line.startswith("ann/9_Bone,")
    assert f"{invalid}: gives no PixelSpacing" in line


def test_a_damaged_file_affects_only_its_folder(tmp_path: Path, write_series: Write) -> None:
    folder = study(tmp_path / "ann", write_series)
    (folder / "cut.dcm").write_bytes((folder / "a.dcm").read_bytes()[:300])
    scans = find(tmp_path)
    assert list(scans) == ["ann", "ann/later"]
    assert scans["ann"].image == folder
    with pytest.raises(ValueError, match=r"cut\.dcm: unreadable .*; fetch it again or remove it"):
        read_stack(folder, series=scans["ann"].series)


# --- A series in several folders -----------------------------------------------------------------


def spread(root: Path, write_series: Write, folders: Sequence[str], **tags: object) -> None:
    for k, folder in enumerate(folders):
        place = {"ImagePositionPatient": [7, 7, 2.5 * k], "InstanceNumber": k}
        write_series(root / folder, STORED[k : k + 1], names=str(k), **{**place, **tags})


def test_a_series_in_several_folders_is_one_scan(tmp_path: Path, write_series: Write) -> None:
    spread(tmp_path, write_series, ("ann/ct/a", "ann/ct/b", "ann/ct/b"))
    (scan,) = find(tmp_path).values()
    assert (scan.name, scan.patient, scan.series) == ("ann/ct", "ann", LUNG)
    assert scan.image == (tmp_path / "ann" / "ct" / "a", tmp_path / "ann" / "ct" / "b")
    assert np.array_equal(read_stack(scan.image, series=scan.series).slices, STORED - 1024)
    assert find(tmp_path / "ann" / "ct")["ct"].image == scan.image
    spread(tmp_path, write_series, ("ann/ct/b", "ann/ct/c"), SeriesInstanceUID=BONE, SeriesNumber=9)
    assert list(find(tmp_path)) == [f"ann/ct/{LUNG}", "ann/ct/9"]


def test_the_folders_of_a_series_are_of_one_patient(tmp_path: Path, write_series: Write) -> None:
    spread(tmp_path / "cohort", write_series, ("a", "b"), PatientID=None)
    for name in "abc":
        volume(tmp_path / "cohort" / name / "v.nii.gz")
    patients = {name: scan.patient for name, scan in find(tmp_path / "cohort").items()}
    assert len({patients["cohort"], patients["a/v"], patients["b/v"]}) == 1
    assert patients["c/v"] == "c"


def test_a_series_in_two_given_folders_is_refused(tmp_path: Path, write_series: Write) -> None:
    spread(tmp_path, write_series, ("a", "b"))
    write_series(tmp_path / "a" / "c", STORED, SeriesInstanceUID=BONE)
    jobs = find_jobs([str(tmp_path / "a"), str(tmp_path / "b")])
    faults = {job.scan.name: job.scan.fault for job in jobs}
    assert faults["c"] == ""
    assert faults["b"] == f"{tmp_path / 'b'}: its series is also in {tmp_path / 'a'}; give one " + (
        "folder that holds both"
    )


# --- Patients -------------------------------------------------------------------------------------


def test_each_folder_at_the_top_is_one_patient(tmp_path: Path, write_slice: Write) -> None:
    volume(tmp_path / "ann" / "first.nii.gz")
    volume(tmp_path / "ann" / "later" / "second.nii.gz")
    volume(tmp_path / "bob.nii.gz")
    for number in (1, 2):
        tags = {"PatientID": f"C{number}", "SeriesInstanceUID": f"1.2.{number}"}
        write_slice(tmp_path / "carl" / f"{number}" / "a.dcm", STORED[0], **tags)
    patients = [scan.patient for scan in find(tmp_path).values()]
    assert patients == ["ann", "ann", "bob", "carl", "carl"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((["1"], ["2"], ["1"]), "aba"),
        ((["1"], ["2"], ["2"]), "abb"),
        (([""], [""], [""]), "abc"),  # an export without IDs
        ((["1"], ["1 "], ["2"]), "aac"),
        ((["1"], ["2"], ["1", "2"]), "aaa"),
        ((["1", "2"], ["2", "3"], ["3"]), "aaa"),
        ((["1"], ["3"], ["3", "1"]), "aaa"),
    ],
)
def test_folders_that_share_a_patient_id_are_of_one_patient(
    tmp_path: Path, write_slice: Write, ids: tuple[list[str], ...], expected: str
) -> None:
    for place, its in zip("abc", ids, strict=True):
        for k, number in enumerate(its):
            tags = {"PatientID": number, "SeriesInstanceUID": f"1.2.{ord(place)}.{k}"}
            write_slice(tmp_path / place / str(k) / "1.dcm", STORED[0], **tags)
    patients = {scan.name[0]: scan.patient for scan in find(tmp_path).values()}
    assert "".join(patients[place] for place in "abc") == expected


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_not_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume(tmp_path / "a.nii.gz")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def deny(path: str) -> object:  # root may read all folders
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    faults = {name: scan.fault for name, scan in find(tmp_path).items()}
    closed = f"{tmp_path / 'closed'}: cannot be read (Permission denied)"
    assert faults == {"a": "", "closed": closed}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    volume(root / "a" / "ct.nii.gz")
    volume(tmp_path / "store" / "b" / "ct.nii.gz")
    (root / "b").symlink_to("../store/b")
    (root / "c").symlink_to("b")  # the same folder again
    (root / "a" / "loop").symlink_to("..")
    (root / "d").symlink_to("nowhere")
    (root / "e.nii.gz").symlink_to("nowhere.nii.gz")
    scans = find(root)
    assert set(scans) == {"a/ct", "b/ct", "d", "e"}
    assert scans["b/ct"].patient == "b"
    assert scans["d"].fault == f"{root / 'd'}: a broken link; repair or remove it"
    shutil.rmtree(root / "a")
    assert detect(root) is PLAIN


def test_results_of_predict_are_no_scans(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    volume(tmp_path / "out" / "x" / "labels.nii.gz")
    volume(tmp_path / "copied" / "labels.nii.gz")
    for path in ("out/predict.json", "copied/report.json"):
        (tmp_path / path).touch()
    faults = {name: scan.fault for name, scan in find(tmp_path).items()}
    assert faults.pop("a") == ""
    assert set(faults) == {"copied", "out"}
    assert all(
        "results of `stitchnet predict`, not a scan; move it" in text for text in faults.values()
    )


def test_names_that_look_the_same_are_one_patient(
    tmp_path: Path, write_slice: Callable[..., Path]
) -> None:
    forms: tuple[Callable[[str], str], ...] = (str, partial(unicodedata.normalize, "NFD"))
    for number, form in enumerate(forms, 1):
        volume(tmp_path / form("Müller") / f"{number}.nii.gz")
        write_slice(
            tmp_path / f"dicom {number}" / "a.dcm", STORED[0], PatientID=form("Bär"),
            SeriesInstanceUID=f"1.{number}", SpecificCharacterSet="ISO_IR 192",
        )  # fmt: skip
    assert {scan.patient for scan in find(tmp_path).values()} == {"Müller", "dicom 1"}


def test_bytes_that_are_no_utf8_are_escaped(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz"))
    volume(path)
    ((name, scan),) = find(tmp_path).items()
    assert (name, scan.patient) == ("M\\xfcller", "M\\xfcller")
    assert scan.image == path
