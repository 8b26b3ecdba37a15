"""Every example and benchmark runs, with tiny arguments, as its reader would run it."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

ROOT = Path(__file__).parent.parent

RUNS = {
    "examples/queries.py": "model.pt --slices 2 --samples 1",
    "examples/multi_gpu.py": "dataset --out m.pt --steps 1 --per-process 1 --device cpu"
    " --processes 2",
    "examples/partial_labels.py": "dataset --complete 1 --steps 1",
    "examples/predict_volume.py": "scan.nii.gz --model model.pt --lungs none --size 64",
    "examples/relaxed_labels.py": "dataset --steps 1",
    "examples/sample_styles.py": "model.pt dataset --draws 2 --slices 1",
    "examples/train_svi.py": "dataset --out m.pt --steps 1",
    "benchmarks/active_learning.py": "--out a --steps 1 --pool 3 --unseen 2 --first 2 --more 2"
    " --rounds 1 --seeds 0 --preset tiny",
    "benchmarks/counterfactuals.py": "--out c --model model.pt --size 64 --patients 2 --labelled 2"
    " --samples 1",
    "benchmarks/data_speed.py": "--volumes 1 --slices 2 --side 64 --size 64 --workers 1 --rounds 1",
    "benchmarks/export_speed.py": "model.pt --size 64 --batches 1 --read-outs prior --rounds 1",
    # A fold twice is trained once, and its figures are told together.
    "benchmarks/held_out.py": ". --out h --weights None --size 64 --steps 1 --folds 0 0"
    " --runs labels",
    "benchmarks/lung_field.py": "--patients 2 --shared nowhere",
    "benchmarks/posterior_speed.py": "--presets tiny --sizes 64 --slices 1 --rounds 1",
    "benchmarks/predict_speed.py": "--slices 2 --size 64 --preset tiny",
    "benchmarks/processes.py": "--size 64 --steps 1 --rounds 1 --per-process 1",
    "benchmarks/profile_step.py": "--preset tiny --size 64 --batch 2 --steps 1 --device cpu",
    "benchmarks/projection.py": "--presets tiny --size 64 --batch 2",
    "benchmarks/step_growth.py": "--presets tiny --sizes 64 --batch 1 --rounds 1 --no-memory"
    " --device cpu",
    "benchmarks/step_speed.py": "--presets tiny --sizes 64 --batch 2 --rounds 1 --no-memory"
    " --device cpu",
    "benchmarks/style_collapse.py": "--out c --seeds 0 --arms reference --steps 1 --labelled 4"
    " --unlabelled 6",
    "benchmarks/trust.py": "dataset --out t --steps 1 --members 1 --samples 1",
    "benchmarks/unusual.py": "model.pt dataset --patients all --most 3 --samples 1",
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
    labelled, unlabelled = phantom_slices(6, 1, size=64), phantom_slices([6, 7], 1, size=64)
    for name, slices in {"labelled": labelled, "unlabelled": unlabelled}.items():
        write_folder(slices, tmp_path / name, masks=name == "labelled")
    write_folder(phantom_slices([8, 9, 10], 1, size=64), tmp_path / "partial")
    for mask in (tmp_path / "partial" / "masks").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(mask)), 2)).save(mask)  # infection
    prepare(
        [str(tmp_path / "labelled"), str(tmp_path / "unlabelled")],
        tmp_path / "dataset",
        preprocessing=Preprocessing(size=64, lungs="none"),
        progress=False,
    )
    checkpoint.save(StitchNet(preset("tiny").model), tmp_path / "model.pt")
    grey = (labelled.images[:2].numpy() * 1350 - 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(grey.T, np.diag([-3.0, -3.0, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    done = subprocess.run(
        [sys.executable, ROOT / script, *RUNS[script].split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = ["loss", "style_gap", "Dice", "slices/s", "operator", "likelihood", "psnr_region"]
    words += ["draws / one", "log p(x)", "evidence", "labels saved", "GFLOP", "a slice", " ml"]
    assert any(word in done.stdout for word in words)
