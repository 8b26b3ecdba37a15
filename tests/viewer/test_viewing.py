"""`stitchnet view` from its arguments to its pages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_stitchnet.viewer import niivue
from pyro_stitchnet.viewer.results import find_scans
from pyro_stitchnet.viewer.server import Server


def test_pages_are_written(
    stitchnet: Callable[..., None],
    predictions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(niivue, "niivue_script", lambda file: "/* the viewer */")
    stitchnet("view", predictions, "--write", "--voxels", 0.01)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(predictions / "index.html")
    assert len(said) == len(find_scans(predictions)) + 1
    assert "/* the viewer */" in (predictions / "scan 2" / "report.html").read_text()


def test_the_server_tells_its_address_and_stops(
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
    said = capsys.readouterr().out
    assert said.startswith("http://127.0.0.1:")
    assert "Ctrl-C" in said
    assert opened == [said.split()[0]]
    stitchnet("view", predictions, "--no-browser")
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "no such folder"), (["nowhere", "--voxels", "0"], "more than 0")],
)
def test_bad_input_is_refused_before_anything_is_fetched(
    refused: Callable[..., str],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(file: Path | None) -> str:
        raise AssertionError("it must not be fetched")

    monkeypatch.setattr(niivue, "niivue_script", fetch)
    assert said in refused("view", *arguments)
