"""The command, the machine and the commit in the provenance of results."""

from pathlib import Path

import pytest

from pyro_stitchnet.runtime import provenance as module
from pyro_stitchnet.runtime.provenance import provenance

CPUINFO = "processor\t: 0\nmodel name\t: Abacus 9000\n\nprocessor\t: 1\nmodel name\t: Abacus 9000\n"


def test_the_machine_is_named_by_its_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO, encoding="utf-8")
    monkeypatch.setattr(module, "CPUS", tmp_path / "cpuinfo")
    assert provenance()["machine"].startswith("Abacus 9000, ")


def test_without_cpuinfo_the_architecture_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "vax")
    assert provenance()["machine"].startswith("vax, ")


def test_the_commit_is_that_of_the_start_whatever_the_checkout_becomes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = provenance()["commit"]
    assert before

    def moved(*arguments: object, **options: object) -> None:
        raise AssertionError("the checkout was read during the run")

    monkeypatch.setattr("subprocess.run", moved)
    assert provenance()["commit"] == before


def test_paths_in_the_working_folder_are_relative(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stitchnet", "train", f"{tmp_path}/ct.data", "--out", "/a/b"])
    assert provenance()["command"] == "stitchnet train ct.data --out /a/b"
