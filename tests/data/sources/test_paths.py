"""Listing folders and pairing images with masks."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.sources.paths import files, folders, natural, pair, stem


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 10**6), unique=True))
def test_names_are_sorted_by_their_numbers(numbers: list[int]) -> None:
    names = [f"slice_{number}.png" for number in numbers]
    assert sorted(names, key=natural) == [f"slice_{number}.png" for number in sorted(numbers)]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(alphabet="a1²٣_-", min_size=1), min_size=2))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural)) == sorted(names)


def test_endings_match_in_any_case(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("10.png", "9.PNG", "a.txt", "._9.png", "sub/1.png")))
    assert [path.name for path in files(tmp_path, (".png",))] == ["9.PNG", "10.png"]


def test_folders_of_macos_are_ignored(tmp_path: Path) -> None:
    touch(*(tmp_path / name / "x" for name in ("p10", "p9", "__MACOSX", ".cache")), tmp_path / "a")
    assert [path.name for path in folders(tmp_path)] == ["p9", "p10"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        files(tmp_path / "nowhere", (".png",))


def test_a_file_too_high_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "patient" / "1.png")
    with pytest.raises(ValueError, match=r"patient/1\.png: lies a folder too high; move it"):
        folders(tmp_path / "patient", besides=(".png",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a"), ("a.NII.GZ", "a"), ("a.b.nii", "a.b"), ("a.tar.gz", "a.tar"), ("a", "a")],
)
def test_nii_gz_is_one_ending(name: str, expected: str) -> None:
    assert stem(Path("x") / name) == expected


def test_pairs_have_the_same_name_with_any_ending() -> None:
    a, b, mask = Path("i/a.jpg"), Path("i/b.jpg"), Path("m/b.png")
    assert pair([a, b], [mask], all_labelled=False) == [(a, None), (b, mask)]
    with pytest.raises(FileNotFoundError, match=r"i/a\.jpg: has no mask"):
        pair([a, b], [mask], all_labelled=True)


@pytest.mark.parametrize("all_labelled", [True, False])
def test_a_mask_without_an_image_is_named(all_labelled: bool) -> None:
    with pytest.raises(FileNotFoundError, match=r"m/b\.png: is the mask of no image; name it"):
        pair([Path("i/a.jpg")], [Path("m/a.png"), Path("m/b.png")], all_labelled=all_labelled)


def test_two_files_of_the_same_name_are_refused() -> None:
    twins = [Path("a.jpg"), Path("a.png")]
    with pytest.raises(ValueError, match=r"a\.png: a\.jpg has the same name"):
        pair(twins, [], all_labelled=False)
    with pytest.raises(ValueError, match=r"a\.png: a\.jpg has the same name"):
        pair([Path("a.jpg")], twins, all_labelled=False)
