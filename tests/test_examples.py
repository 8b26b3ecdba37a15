"""Every example and benchmark runs with tiny arguments."""

import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import import_module
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

# Arguments, and a pattern of what the script prints.
RUNS = {
    "examples/multi_gpu.py": (
        "dataset --out m.pt --steps 1 --per-process 1 --device cpu --processes 2",
        r"loss",
    ),
    "examples/partial_labels.py": ("dataset --complete 1 --steps 1", r"Dice"),
    "examples/predict_volume.py": ("scan.nii.gz --model model.pt --lungs none --size 64", r" ml"),
    "examples/queries.py": ("model.pt --slices 2 --samples 1", r"log p\(x\)"),
    "examples/relaxed_labels.py": ("dataset --steps 1", r"loss"),
    "examples/sample_styles.py": ("model.pt dataset --draws 2 --slices 1", r"style_gap"),
    "examples/train_svi.py": ("dataset --out m.pt --steps 2", r"loss \d+\.\d+ nats/pixel"),
    "benchmarks/active_learning.py": (
        "--out a --steps 1 --pool 3 --unseen 2 --first 2 --more 2 --rounds 1 --seeds 0"
        " --preset tiny",
        r"labels saved",
    ),
    "benchmarks/counterfactuals.py": (
        "--out c --model model.pt --size 64 --patients 2 --labelled 2 --samples 1",
        r"psnr_region",
    ),
    # The same fold twice is trained once.
    "benchmarks/held_out.py": (
        ". --out h --weights None --size 64 --steps 1 --folds 0 0 --runs labels --samples 1"
        " --views 2",
        r"Dice",
    ),
    "benchmarks/lung_field.py": ("--patients 2 --shared nowhere", r"Dice"),
    "benchmarks/robustness.py": (
        "--out r --mutations 24 --kills 1 --requests 10 --no-options --workers 1",
        r"\| all \| 35 \| .* \| 0 \|",
    ),
    "benchmarks/density.py": (
        "dataset --out v --seeds 0 --steps 1 --per-batch 2 --channels 8 8 8 8 8 --width 8",
        r"\| vdvae \|",
    ),
    "benchmarks/scale.py": (
        "--out s --slices 300 --scans 4",
        r"All 4 scans are there, with the same segmentations",
    ),
    "benchmarks/specificity.py": (
        "sets.data --spec spec.yaml --out s --seeds 0 --steps 1",
        r"and controls: U-Net",
    ),
    "benchmarks/style_collapse.py": (
        "--out c --seeds 0 --arms reference --steps 1 --labelled 4 --unlabelled 6",
        r"style_gap",
    ),
    "benchmarks/trust.py": ("dataset --out t --steps 1 --members 1 --samples 1", r"auroc"),
    "benchmarks/unusual.py": (
        "model.pt dataset --patients all --most 3 --samples 1",
        r"evidence",
    ),
}

# The same for the commands of benchmarks/speed.
SPEED = {
    "step": ("--presets tiny --sizes 64 --batch 2 --rounds 1 --no-memory", r"tiny"),
    "enumeration": ("--presets tiny --sizes 64 --batch 2 --rounds 1", r"Pyro's enumeration"),
    "parts": ("--preset guided --sizes 64 --batch 4 --rounds 1", r"classifier"),
    "operators": ("--preset tiny --size 64 --batch 2 --rounds 1", r"convolution"),
    "segment": ("--presets tiny --sizes 64 --batch 1 --rounds 1", r"8 draws"),
    "predict": ("--slices 2 --size 64 --preset tiny --rounds 1 --no-memory", r"network alone"),
    "prepare": ("--size 64 --volumes 1 --slices 2 --side 64 --rounds 1", r"classical"),
    "load": ("--size 64 --volumes 1 --slices 2 --rounds 1", r"prepared dataset"),
    "export": ("model.pt --size 64 --batches 1 --read-outs prior --rounds 1", r"onnxruntime"),
    "processes": ("--size 64 --steps 1 --rounds 1 --per-process 1", r"2 processes"),
    "start": ("--commands --rounds 1", r"--help"),
}
RUNS |= {f"benchmarks/speed {name}": run for name, run in SPEED.items()}

OWN_PROCESSES = (
    "examples/multi_gpu.py", "benchmarks/robustness.py", "benchmarks/speed processes",
)  # fmt: skip
"""Scripts that start processes of themselves, so they cannot run inside pytest's."""


def test_all_are_listed() -> None:
    found = {
        str(p.relative_to(ROOT))
        for d in ("examples", "benchmarks")
        for p in (ROOT / d).glob("*.py")
    }
    others = ("gpu_report", "mutations", "settings", "vdvae")  # used by other scripts
    speed = {f"benchmarks/speed {name}" for name in SPEED}
    assert found == {*RUNS, *(f"benchmarks/{name}.py" for name in others)} - speed


def test_all_commands_of_speed_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "benchmarks" / "speed"
    monkeypatch.syspath_prepend(str(folder))  # as `python FOLDER` does
    assert list(runpy.run_path(str(folder))["COMMANDS"]) == list(SPEED)


def test_results_of_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    keep_settings = import_module("settings").keep_settings

    @dataclass
    class Config:
        steps: int
        seeds: tuple[int, ...] = (0,)
        out: Path = tmp_path / "out"

    keep_settings(Config(1), free=["seeds"])
    keep_settings(Config(1, seeds=(1,)), free=["seeds"])
    with pytest.raises(ValueError, match=r"out: has results of other settings \(steps\)"):
        keep_settings(Config(2), free=["seeds"])
    other = replace(Config(1), out=tmp_path / "other")
    keep_settings(other, files="a")
    with pytest.raises(ValueError, match=r"other: has results of other settings \(files\)"):
        keep_settings(other, files="b")


def test_held_out_notices_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    held_out = import_module("held_out")
    (tmp_path / "partial" / "images").mkdir(parents=True)
    (file := tmp_path / "partial" / "images" / "a.png").write_bytes(b"a")
    (weights := tmp_path / "weights.pt").write_bytes(b"a")
    config = held_out.Config(tmp_path, weights=str(weights))
    digests = [held_out.digest(config)]
    for path in (file, weights):
        path.write_bytes(b"b")
        digests.append(held_out.digest(config))
    assert len(set(digests)) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes")
def test_the_gpu_report_fails_without_a_gpu(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/gpu_report.py"
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "no CUDA device here: nothing was run\n")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of all scripts."""
    folder = tmp_path_factory.mktemp("world")
    labelled, unlabelled = phantom_slices(6, 1, size=64), phantom_slices([6, 7], 1, size=64)
    for name, slices in {"labelled": labelled, "unlabelled": unlabelled}.items():
        write_folder(slices, folder / name, masks=name == "labelled")
    write_folder(phantom_slices([8, 9, 10], 1, size=64), folder / "partial")
    for mask in (folder / "partial" / "masks").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(mask)), 2)).save(mask)  # infection
    prepare(
        [str(folder / "labelled"), str(folder / "unlabelled")],
        folder / "dataset",
        preprocessing=Preprocessing(size=64, lungs="none"),
        progress=False,
    )
    write_folder(phantom_slices([11, 12], 1, size=64), folder / "controls")
    for mask in (folder / "controls" / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    prepare(
        [f"{folder}/{source}" for source in ("labelled", "partial@infection", "controls@control")],
        folder / "sets.data",
        preprocessing=Preprocessing(size=64, lungs="none"),
        progress=False,
    )
    (folder / "spec.yaml").write_text(
        "{data: sets.data, entries: {unet: {method: unet}}, "
        "budgets: [{labels: 2, folds: 3, validation: false}]}"
    )
    checkpoint.save(StitchNet(preset("tiny").model), folder / "model.pt")
    grey = (labelled.images[:2].numpy() * 1350 - 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(grey.T, np.diag([-3.0, -3.0, 5.0, 1.0])), folder / "scan.nii.gz")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("script", RUNS)
def test_runs(
    script: str,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(world, tmp_path / "here")
    arguments, pattern = RUNS[script]
    name, *command = script.split()
    path, words = str(ROOT / name), [*command, *arguments.split()]
    if script in OWN_PROCESSES:
        subprocess.run([sys.executable, path, *words], cwd=folder, check=True)
    else:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [path, *words])
        monkeypatch.syspath_prepend(path if command else str(Path(path).parent))  # as python does
        threads = torch.get_num_threads()
        try:
            runpy.run_path(path, run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    assert re.search(pattern, capfd.readouterr().out)
