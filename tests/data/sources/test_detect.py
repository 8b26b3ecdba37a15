"""Which source a folder is of. Each source's own test holds that its folder is detected."""

import errno
import os
from pathlib import Path

import pytest

from pyro_stitchnet.data.sources import SOURCES, detect
from pyro_stitchnet.labels import LABELS


def test_an_unknown_layout_is_told_all_known_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="has none of the known layouts") as caught:
        detect(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert all(
        f"{source.name}: {source.layout}" in str(caught.value) for source in SOURCES.values()
    )


@pytest.mark.parametrize("name", ["a.npy", "p1/a.PNG", "p1/a.jpg"])
def test_bare_arrays_and_pictures_are_told_who_reads_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"layout 'folder' only.*index\.csv") as caught:
        detect(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        detect(tmp_path / "nowhere")


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read anywhere, so this is denied by a stand-in for the system's call."""

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
def test_every_source_says_what_it_is(name: str) -> None:
    source = SOURCES[name]
    assert source.name == name
    assert source.title
    assert source.layout
    assert source.landmarks
    assert all(labels < set(range(len(LABELS))) for labels in source.meanings.values())
    public = bool(source.homepage)
    assert bool(source.licence) == bool(source.citation) == public
    assert public or not source.archives
