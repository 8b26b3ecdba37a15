"""Every example and benchmark runs, with tiny arguments, as its reader would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyro_stitchnet.data.phantom import phantom_slices
from pyro_stitchnet.data.slices import write_folder

ROOT = Path(__file__).parent.parent

RUNS = {
    "examples/train_svi.py": "--labelled slices --unlabelled slices --out m.pt --size 64 --steps 1",
    "benchmarks/style_collapse.py": "--out c --seeds 0 --arms reference --steps 1 --labelled 4"
    " --unlabelled 6",
}


def test_all_are_listed() -> None:
    found = {
        str(p.relative_to(ROOT))
        for d in ("examples", "benchmarks")
        for p in (ROOT / d).glob("*.py")
    }
    assert found == set(RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_runs(script: str, tmp_path: Path) -> None:
    write_folder(phantom_slices(4, 1, size=64), tmp_path / "slices")
    done = subprocess.run(
        [sys.executable, ROOT / script, *RUNS[script].split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout or "style_gap" in done.stdout
