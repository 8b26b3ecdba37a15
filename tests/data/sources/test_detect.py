"""Detection of a folder's source; the tests of each source check that its folder is detected."""

import errno
import os
from pathlib import Path

import pytest

from pyro_stitchnet.data.sources import SOURCES, detect
from pyro_stitchnet.labels import LABELS


def test_the_error_for_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="has none of the known layouts") as caught:
        detect(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert all(
        f"{source.name}: {source.layout}" in str(caught.value) for source in SOURCES.values()
    )


@pytest.mark.parametrize("name", ["a.npy", "p1/a.PNG", "p1/a.jpg"])
def test_arrays_and_images_without_an_index_are_refused_with_a_remedy(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"layout 'folder' only.*index\.csv") as caught:
        detect(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_a_prepared_dataset_is_not_prepared_again(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").touch()
    (tmp_path / "shards").mkdir()
    with pytest.raises(ValueError, match="is a prepared dataset; give it to `stitchnet train`"):
        detect(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        detect(tmp_path / "nowhere")


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system call denies access, since root may read anywhere."""

    def deny(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        detect(tmp_path)


@pytest.mark.parametrize("landmark", ["NCP", "studies/CT-1", "COVID-19-CT-Seg_20cases", "imagesTr"])
def test_a_damaged_dataset_is_not_taken_for_a_plain_folder(tmp_path: Path, landmark: str) -> None:
    (tmp_path / landmark).mkdir(parents=True)
    (tmp_path / "a.nii.gz").touch()
    assert detect(tmp_path).name != "plain"


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_described(name: str) -> None:
    source = SOURCES[name]
    assert source.name == name
    assert source.title
    assert source.layout
    assert source.landmarks
    assert all(labels < set(range(len(LABELS))) for labels in source.rule.values())
    public = bool(source.homepage)
    assert bool(source.licence) == bool(source.citation) == public
    assert public or not source.archives
