"""The command `stitchnet view`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_stitchnet.viewer import niivue
from pyro_stitchnet.viewer.results import find_results
from pyro_stitchnet.viewer.server import Server


def test_pages_are_written(
    stitchnet: Callable[..., None],
    predictions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(niivue, "niivue_script", lambda file: "/* the viewer */")
    stitchnet("view", predictions, "--write", "--voxels", 0.01)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(predictions / "index.html")
    assert len(printed) == len(find_results(predictions)) + 1
    assert "/* the viewer */" in (predictions / "scan 2" / "report.html").read_text()


def test_the_server_prints_its_address_and_stops(
    stitchnet: Callable[..., None],
    predictions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(server: Server) -> None:
        raise KeyboardInterrupt

    opened: list[str] = []
    monkeypatch.setattr(niivue, "niivue_script", lambda file: "/* the viewer */")
    monkeypatch.setattr(Server, "serve_forever", stop)
    monkeypatch.setattr("webbrowser.open", opened.append)
    stitchnet("view", predictions)
    printed = capsys.readouterr().out
    assert printed.startswith("http://127.0.0.1:")
    assert "/?token=" in printed
    assert "Ctrl-C" in printed
    assert opened == [printed.split()[0]]
    stitchnet("view", predictions, "--no-browser")
    assert len(opened) == 1


def test_a_damaged_scan_keeps_no_other_from_its_page(
    stitchnet: Callable[..., None],
    predictions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(niivue, "niivue_script", lambda file: "/* the viewer */")
    for name in ("scan 2", "scan 10", 'a <b> & "c"'):
        shutil.copytree(predictions / name, tmp_path / name)
    (tmp_path / "scan 2" / "report.json").write_text('{"warnings": 1}')
    (tmp_path / "scan 10" / "labels.nii.gz").unlink()
    with pytest.raises(SystemExit):
        stitchnet("view", tmp_path, "--write", "--voxels", 0.01)
    printed = capsys.readouterr()
    assert "scans without a page: 2" in printed.err
    assert not (tmp_path / "scan 10" / "report.html").exists()
    index = (tmp_path / "index.html").read_text()
    assert "Unreadable: scan 10/labels.nii.gz: missing" in index
    assert "Unreadable: scan 2/report.json: damaged" in index
    assert str(tmp_path) not in index
    assert len(list(tmp_path.glob("*/report.html"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder"),
        (["nowhere", "--voxels", "0"], "above 0"),
        (["nowhere", "--voxels", "nan"], "above 0"),
        (["nowhere", "--port", "65536"], "at most 65,535"),
        (["nowhere", "--port", "-1"], "at least 0"),
    ],
)
def test_invalid_input_is_refused_before_any_download(
    refused: Callable[..., str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(file: Path | None) -> str:
        raise AssertionError("no download expected")

    monkeypatch.setattr(niivue, "niivue_script", fetch)
    assert message in refused("view", *arguments)
