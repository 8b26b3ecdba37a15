"""A model with known output, and scans."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient
from pyro_stitchnet.data.preprocessing.steps import PreparedSlice, Preprocessing
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.prediction.slice_segmenter import SliceResult, SliceSegmenter
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

# Slices of this size pass through unchanged, voxel by voxel.
SIZE = 64
UNCHANGED = Preprocessing(size=SIZE, window=(-1250.0, 250.0), lungs="none", margin=0.0)


class GreyValueSegmenter(SliceSegmenter):
    """Labels by grey value: air, lung, GGO, consolidation, each with probability 1."""

    EDGES = (0.1, 0.4, 0.7)

    def _segment_batch(self, batch: list[PreparedSlice], styles: bool) -> Iterator[SliceResult]:
        for one in batch:
            labels = np.digitize(one.image, self.EDGES)
            one_hot = (labels == np.arange(4)[:, None, None]).astype(np.float32)
            style_maps = np.full_like(one_hot, 0.25) if styles else None
            yield SliceResult(one.index, one.placement, one_hot, style_maps)


@pytest.fixture(scope="session")
def known_labels() -> Callable[[np.ndarray], np.ndarray]:
    """``(hounsfield)``: the labels by :class:`GreyValueSegmenter`."""

    def labels(hounsfield: np.ndarray) -> np.ndarray:
        grey = np.clip((hounsfield.astype(np.float32) + 1250) / 1500, 0, 1)
        return np.digitize(grey, GreyValueSegmenter.EDGES).astype(np.uint8)

    return labels


@pytest.fixture(scope="session")
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model).eval()


@pytest.fixture
def grey_value_segmenter(net: StitchNet) -> SliceSegmenter:
    return GreyValueSegmenter(net, UNCHANGED, name="known.pt", digest="0" * 64)


@pytest.fixture(scope="session")
def model(net: StitchNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained model, with the record that training writes."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    steps = asdict(Preprocessing(size=SIZE, least_lung=0.005))
    checkpoint.save(net, path, dataset={"preprocessing": steps})
    return path


@pytest.fixture(scope="session")
def noise() -> Stack:
    """A scan of three slices of noise."""
    hu = np.random.default_rng(0).normal(-500, 300, (64, 64, 3))
    return Stack.of(Volume(hu, np.eye(4), True, Path("noise")))


@pytest.fixture(scope="session")
def phantom_scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU (I, J, K), labels and affine of a phantom patient of 12 slices."""
    slices = phantom_patient(3, 12, size=64)
    low, high = PHANTOM_WINDOW
    hu = np.stack([one.image for one in slices]) * (high - low) + low
    labels = np.stack([one.labels for one in slices])
    affine = np.diag([-4.5, -4.5, 20.0, 1.0])  # columns to the left, rows to the back, feet to head
    return np.round(hu).T.astype(np.int16), labels.T, affine


@pytest.fixture
def write_scan(
    phantom_scan: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Callable[[Path], Path]:
    """``(path)``: the phantom as NIfTI."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(phantom_scan[0], phantom_scan[2]), path)
        return path

    return write
