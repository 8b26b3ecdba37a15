"""Every example and benchmark runs, with tiny arguments, as its reader would run it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_stitchnet.data.phantom import phantom_slices
from pyro_stitchnet.data.prepare import prepare
from pyro_stitchnet.data.preprocess import Preprocessing
from pyro_stitchnet.data.slices import write_folder

ROOT = Path(__file__).parent.parent

RUNS = {
    "examples/train_svi.py": "dataset --out m.pt --steps 1",
    "benchmarks/data_speed.py": "--volumes 1 --slices 2 --side 64 --size 64 --workers 1 --rounds 1",
    "benchmarks/lung_field.py": "--patients 2 --shared nowhere",
    "benchmarks/processes.py": "--size 64 --steps 1 --rounds 1 --per-process 1",
    "benchmarks/profile_step.py": "--preset tiny --size 64 --batch 2 --steps 1 --device cpu",
    "benchmarks/step_growth.py": "--presets tiny --sizes 64 --batch 1 --rounds 1 --no-memory"
    " --device cpu",
    "benchmarks/step_speed.py": "--presets tiny --sizes 64 --batch 2 --rounds 1 --no-memory"
    " --device cpu",
    "benchmarks/style_collapse.py": "--out c --seeds 0 --arms reference --steps 1 --labelled 4"
    " --unlabelled 6",
}


def test_all_are_listed() -> None:
    found = {
        str(p.relative_to(ROOT))
        for d in ("examples", "benchmarks")
        for p in (ROOT / d).glob("*.py")
    }
    assert found == {*RUNS, "benchmarks/gpu_report.py", "benchmarks/plain_torch.py"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would take its time")
def test_without_a_gpu_its_report_says_so_and_fails(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/gpu_report.py"
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "no CUDA device here: nothing was run\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_runs(script: str, tmp_path: Path) -> None:
    labelled, unlabelled = phantom_slices(2, 1, size=64), phantom_slices([2, 3], 1, size=64)
    for name, slices in {"labelled": labelled, "unlabelled": unlabelled}.items():
        write_folder(slices, tmp_path / name, masks=name == "labelled")
    prepare(
        [str(tmp_path / "labelled"), str(tmp_path / "unlabelled")],
        tmp_path / "dataset",
        preprocessing=Preprocessing(size=64, lungs="none"),
        progress=False,
    )
    done = subprocess.run(
        [sys.executable, ROOT / script, *RUNS[script].split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = ("loss", "style_gap", "Dice", "slices/s", "operator", "likelihood")
    assert any(word in done.stdout for word in words)
