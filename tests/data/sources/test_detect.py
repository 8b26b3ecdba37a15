"""Which source a folder is of. Each source's own test holds that its folder is detected."""

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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        detect(tmp_path / "nowhere")


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
