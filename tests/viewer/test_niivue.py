"""NiiVue's script: from a given file or a download, and errors."""

from pathlib import Path

import pytest
import requests

from pyro_stitchnet.viewer import niivue as module
from pyro_stitchnet.viewer.niivue import niivue_script


def test_the_script_can_be_embedded_in_a_page(niivue: str) -> None:
    assert "loadFromBase64" in niivue
    assert "</script" not in niivue.lower()
    assert "<!--" not in niivue


def test_a_given_file_must_be_the_pinned_version(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file; download https://registry\.npmjs"):
        niivue_script(tmp_path / "niivue.tgz")
    (tmp_path / "niivue.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"not npm's tarball of NiiVue {module.VERSION}"):
        niivue_script(tmp_path / "niivue.tgz")


def test_without_internet_the_error_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(ConnectionError, match=r"no route.*--niivue FILE"):
        niivue_script(cache=tmp_path)
