"""nnU-Net's raw format: labels by name, unlabelled cases, and errors."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.sources import detect
from pyro_stitchnet.data.sources.nnunet import LUNGS, NAMES, NNUNET, rule_of
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY

ALL = {BACKGROUND, HEALTHY, GGO, CONSOLIDATION}
GOOD: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lung": 1, "infection": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def dataset(root: Path, **changes: Any) -> Path:
    """Write cases a (labelled) and b (not), and a test case, which is never read."""
    ending = changes.get("file_ending", ".nii.gz")
    for path in ("imagesTr/a_0000", "imagesTr/b_0000", "labelsTr/a", "imagesTs/c_0000"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{path}{ending}").touch()
    (root / "dataset.json").write_text(json.dumps({**GOOD, **changes}))
    return root


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            {"background": 0, "healthy": 1, "GGO": 2, "Consolidation": 3},
            {0: {0}, 1: {1}, 2: {2}, 3: {3}},
        ),
        (
            {"background": 0, "left_lung": 1, "right-lung": 2, "infection": 3},
            {0: {0}, 1: {1}, 2: {1}, 3: {2, 3}},
        ),
        ({"background": 0, "lesion": 1}, {0: {0, 1}, 1: {2, 3}}),
        ({"background": 0, "lung": 1}, {0: {0}, 1: {1, 2, 3}}),
        ({"background": 0, "ground glass": 1}, {0: {0, 1, 3}, 1: {2}}),
        ({"background": 0, "lung": 1, "consolidation": 5}, {0: {0}, 1: {1, 2}, 5: {3}}),
        (
            {"background": 0, "ggo": 1, "consolidation": 2, "pleural effusion": 3},
            {0: {0, 1}, 1: {2}, 2: {3}, 3: {0}},
        ),
        ({"background": 0, "infection": 1, "ignore": 2}, {0: {0, 1}, 1: {2, 3}, 2: ALL}),
    ],
)
def test_names_decide_the_labels_of_values(
    labels: Mapping[str, int], expected: Mapping[int, set[int]]
) -> None:
    assert rule_of(labels) == expected


@settings(derandomize=True, deadline=None)
@given(st.sets(st.sampled_from([*NAMES, *LUNGS])))
def test_every_tissue_is_allowed_by_some_value(names: set[str]) -> None:
    rule = rule_of({name: value for value, name in enumerate(["background", *names])})
    assert frozenset().union(*rule.values()) == ALL
    assert all(rule.values())


def test_the_error_for_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    root = dataset(tmp_path, labels={"background": 0, "tumour": 1})
    with pytest.raises(
        ValueError, match=r"dataset\.json: label 'tumour' is unknown; rename it to one of .*'ggo'"
    ):
        list(NNUNET.find(root))


# --- Cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".png"])
def test_cases_are_found_with_their_labels(tmp_path: Path, ending: str) -> None:
    root = dataset(tmp_path, file_ending=ending)
    a, b = NNUNET.find(root)
    assert (a.name, a.patient, b.name, b.patient) == ("a", "a", "b", "b")
    assert a.image == root / "imagesTr" / f"a_0000{ending}"
    assert a.mask == root / "labelsTr" / f"a{ending}"
    assert b.mask is None
    assert a.rule == rule_of(GOOD["labels"])
    assert detect(root) is NNUNET


def test_without_labels_all_cases_are_unlabelled(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "labelsTr").rename(root / "away")
    assert [scan.mask for scan in NNUNET.find(root)] == [None, None]


def test_labels_without_a_case_are_named(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "imagesTr" / "a_0000.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"labelsTr/a\.nii\.gz: is the mask of no image"):
        list(NNUNET.find(root))


@pytest.mark.parametrize("name", ["a.nii.gz", "a_0001.nii.gz", "a_0000.NII.GZ"])
def test_a_misnamed_image_is_named(tmp_path: Path, name: str) -> None:
    root = dataset(tmp_path)
    (root / "imagesTr" / name).touch()
    with pytest.raises(ValueError, match=rf"{name}: an image is called CASE_0000\.nii\.gz; rename"):
        list(NNUNET.find(root))


def test_a_folder_without_images_of_the_ending_is_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "dataset.json").write_text(json.dumps({**GOOD, "file_ending": ".mha"}))
    with pytest.raises(FileNotFoundError, match=r"imagesTr: holds no images CASE_0000\.mha"):
        list(NNUNET.find(root))


# --- Description ----------------------------------------------------------------------------------


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: missing"):
        list(NNUNET.find(root))


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b"[]", b"5", b"{}", b'{"labels": {"0": "background"}}', b"[" * 10**5],
)
def test_a_malformed_description_is_refused(tmp_path: Path, content: bytes) -> None:
    root = dataset(tmp_path)
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset\.json: no description of version 2 "):
        list(NNUNET.find(root))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "2 channels; CT has one"),
        ({"channel_names": {"0": "T2"}}, "the channel 'T2' is not CT"),
        ({"channel_names": ["CT"]}, "no description of version 2"),
        ({"labels": {"background": 1, "lung": 0}}, "labels must be names with values, background"),
        ({"labels": {"lung": 1}}, "labels must be names with values, background having 0"),
        ({"labels": ["background"]}, "labels must be names with values"),
        ({"file_ending": 5}, "labels must be names|file_ending"),
        ({"labels": {"background": 0, "lung": [1, 2]}}, "label 'lung' is a region; give every"),
        ({"labels": {"background": 0, "ggo": 256}}, "label 'ggo' has value 256; give one of 0 to"),
        ({"labels": {"background": 0, "ggo": -1}}, "label 'ggo' has value -1; give one of 0 to"),
        ({"labels": {"background": 0, "ggo": 1, "lesion": 1}}, "labels 'ggo' and 'lesion' have"),
        ({"file_ending": ""}, "file_ending '' is not an ending; give one such as"),
        (
            {"file_ending": "/../x.nii.gz"},
            "file_ending '/../x.nii.gz' is not an ending; give one such as",
        ),
        ({"patients": {"a": None}}, "the patient of case 'a' is not a name; give one"),
    ],
)
def test_an_unsupported_description_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = dataset(tmp_path)
    (root / "dataset.json").write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(ValueError, match=rf"dataset\.json: ({message})"):
        list(NNUNET.find(root))


def test_patients_and_cases_are_matched_in_any_form_of_unicode(tmp_path: Path) -> None:
    image = tmp_path / unicodedata.normalize("NFD", "imagesTr/Bär_0000.nii.gz")
    mask = tmp_path / unicodedata.normalize("NFC", "labelsTr/Bär.nii.gz")
    for file in (image, mask):
        file.parent.mkdir()
        file.touch()
    patients = {"Bär": unicodedata.normalize("NFD", "Müller")}
    (tmp_path / "dataset.json").write_text(json.dumps({**GOOD, "patients": patients}))
    (scan,) = NNUNET.find(tmp_path)
    assert (scan.name, scan.patient) == ("Bär", "Müller")
    assert scan.mask is not None
