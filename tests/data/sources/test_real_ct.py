"""The tutorial on real CT, command by command, on miniatures of the public archives."""

import io
import json
import re
import shlex
import subprocess
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from pyro_stitchnet.viewer import niivue
from pyro_stitchnet.viewer.server import Server

PAGE = Path(__file__).parents[3] / "docs" / "tutorials" / "real_ct.md"

# Options put behind those of the page: the last one counts.
TINY = {
    "prepare": "--size 64 --workers 1 --no-progress",
    "inspect": "--sheet 2",
    "train": "--steps 2 --weights None --no-progress --no-tensorboard --device cpu",
    "evaluate": "--device cpu",
    "predict": "--workers 0 --device cpu --no-progress",
}

# What a reader sees, by command; each is also said on the page.
SEEN = {
    "download": r"Licence: .+\nPlease cite: .+",
    "prepare": r"slices: \d+, with labels: \d+, patients: \d+",
    "inspect": r"(medseg|zenodo)(.|\n)+Warnings:",
    "train": r"kept the weights of step 2 of 2",
    "evaluate": r"scored: (.|\n)+\bInfection\b",
    "predict": r"scans segmented: 1,",
    "view": r"http://127\.0\.0\.1:\d+/\S* shows results; Ctrl-C stops it\nstopped",
}


@pytest.mark.slow
def test_the_page_works_as_written(
    repositories: Any,
    stitchnet: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    questions, opened = terminal(monkeypatch), browser(monkeypatch)
    text = PAGE.read_text(encoding="utf-8")
    blocks = [t for t in MarkdownIt().parse(text) if t.type == "fence"]
    commands = []
    for block in blocks:
        if block.info == "text":
            assert block.content.strip() in questions
        elif "stitchnet" not in block.content:
            done = subprocess.run(
                ["bash", "-euc", block.content], check=True, capture_output=True, text=True
            )
            assert done.stdout + done.stderr == ""
        else:
            for line in block.content.splitlines():
                _, command, *options = shlex.split(line)
                stitchnet(command, *options, *shlex.split(TINY.get(command, "")))
                seen = capsys.readouterr().out
                assert re.search(SEEN[command], seen), f"{line}:\n{seen}"
                commands.append(command)
    assert set(commands) == set(SEEN)
    assert len(opened) == 1
    files = re.findall(r"`((?:runs|results|look)/[^` ]+\.\w+)`", text)
    assert len(files) > 5
    assert [name for name in files if not Path(name).is_file()] == []
    assert not patients("runs/real/run.json") & {"coronacases_001", "coronacases_005"}

    fetched = list(repositories.requests)
    for line in blocks[0].content.splitlines():
        stitchnet(*shlex.split(line)[1:])
    assert repositories.requests == fetched, "a second run downloads nothing"


def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer every question with yes; return the list of questions."""
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question.strip())
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    return questions


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


def browser(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Serve until the browser has the address; return the list of addresses."""
    opened: list[str] = []

    def stop(server: Server, poll_interval: float = 0.5) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(niivue, "niivue_script", lambda file: "")
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(Server, "serve_forever", stop)
    return opened


def patients(record: str) -> set[str]:
    """All patients of a run."""
    parts = json.loads(Path(record).read_text())["patients"]
    return {name for names in parts.values() for name in names}


def test_the_page_is_one_page() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120
