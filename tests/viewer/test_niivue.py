"""Fetching NiiVue: by hand, from the cache, and what is refused."""

from pathlib import Path

import pytest
import requests

from pyro_stitchnet.viewer import niivue as module
from pyro_stitchnet.viewer.niivue import niivue_script


def test_it_is_the_viewer(niivue: str) -> None:
    assert "loadFromBase64" in niivue
    assert "</script" not in niivue.lower()  # else it could not stand in a page
    assert "<!--" not in niivue


def test_a_file_brought_by_hand_must_be_the_pinned_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file; get https://registry\.npmjs"):
        niivue_script(tmp_path / "niivue.tgz")
    (tmp_path / "niivue.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"not NiiVue {module.VERSION} as npm gives it"):
        niivue_script(tmp_path / "niivue.tgz")


def test_without_internet_the_way_by_hand_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(ConnectionError, match=r"no route.*--niivue FILE"):
        niivue_script(cache=tmp_path)
