"""Exported bundles: MONAI's command line verifies one and runs it over a folder of slices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.export import bundle
from pyro_stitchnet.export.metadata import describe
from pyro_stitchnet.export.programs import torch_bytes, trace
from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset

# What MONAI's schema of 2024-07-25 requires; the schema itself is downloaded from GitHub.
REQUIRED = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version",
    "required_packages_version", "task", "description", "authors", "copyright",
    "network_data_format",
)  # fmt: skip


class Bands(TraceableModel):
    """Labels by grey value and row, so that rows and columns cannot be swapped unnoticed."""

    def __init__(self) -> None:
        super().__init__(StitchNet(preset("tiny").model))

    def forward(self, image: Tensor) -> Tensor:
        centres = torch.tensor([0.1, 0.3, 0.5, 0.8]).view(1, 4, 1, 1)
        shade = torch.linspace(0, 0.3, image.shape[2]).view(1, 1, -1, 1)
        return (-50 * (image + shade - centres).square()).softmax(1)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    bands = Bands()
    description = describe(bands, {}, "model.pt", 64)
    content = torch_bytes(trace(bands, 64), description)
    bundle.write_bundle(tmp_path / "bundle", content, description, 32, 64)
    return tmp_path / "bundle"


def monai(written: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    process = subprocess.run(command, cwd=written, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.slow
def test_monai_verifies_and_runs_it(written: Path, tmp_path: Path) -> None:
    schema = {"type": "object", "required": REQUIRED}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    monai(
        written, "verify_metadata", "--meta_file", "configs/metadata.json",
        "--filepath", str(tmp_path / "schema.json"),
    )  # fmt: skip
    slices = phantom_slices(range(2), 1, size=64, seed=0)
    write_folder(slices, tmp_path / "slices")
    monai(
        written, "run", "--config_file", "configs/inference.json", "--bundle_root", ".",
        "--dataset_dir", str(tmp_path / "slices" / "images"), "--output_dir", str(tmp_path / "out"),
    )  # fmt: skip
    for name in slices.names:
        image = np.asarray(Image.open(tmp_path / "slices" / "images" / name), np.float32) / 255
        expected = Bands()(torch.from_numpy(image)[None, None]).argmax(1)[0].numpy()
        labels = np.asarray(Image.open(tmp_path / "out" / f"{Path(name).stem}_labels.png"))
        assert len(np.unique(expected)) == 4
        assert np.array_equal(labels, expected)


def test_the_bundle_has_all_files_and_the_format_of_the_network(written: Path) -> None:
    files = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    assert files == {
        "configs/metadata.json", "configs/inference.json", "models/model.pt2", "docs/README.md",
    }  # fmt: skip
    metadata = json.loads((written / "configs" / "metadata.json").read_text())
    assert not set(REQUIRED) - set(metadata)
    form = metadata["network_data_format"]
    assert form["inputs"]["image"]["spatial_shape"] == [64, 64]
    assert form["outputs"]["pred"]["channel_def"]["3"] == "consolidation"
    dynamic = bundle.metadata(metadata["stitchnet"], 64, None)["network_data_format"]
    assert dynamic["inputs"]["image"]["spatial_shape"] == ["64*n", "64*n"]


def test_a_failed_export_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = describe(Bands(), {}, "model.pt", 64)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bundle, "write_atomically", full)
    with pytest.raises(OSError, match="disk full"):
        bundle.write_bundle(tmp_path / "bundle", b"", description, 32, 64)
    assert not list(tmp_path.iterdir())
