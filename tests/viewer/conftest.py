"""Result folders of `stitchnet predict`, made of phantoms, and a browser to test their pages."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient
from pyro_stitchnet.data.scans.volume import from_axial
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.runtime.checksums import sha256, write_json
from pyro_stitchnet.viewer.niivue import niivue_script

CHROMIUM = Path("/usr/bin/chromium")

# Rows run to the patient's back and columns to the left, as DICOM's do; slices 10 mm apart.
AFFINE = np.array([[-4.0, 0, 0, 130], [0, -5.0, 0, 160], [0, 0, 10.0, -60], [0, 0, 0, 1]])

SECRET = "DOE^JANE"  # a patient's name, in paths and headers


def write_scan(folder: Path, patient: int, *, confidence: float, slices: int = 12) -> Path:
    """Write one scan's results, with the truth as the segmentation."""
    phantoms = phantom_patient(patient, slices, size=64)
    low, high = PHANTOM_WINDOW
    grids = {
        "scan": np.stack([p.image for p in phantoms]) * (high - low) + low,
        "healthy": np.stack([p.healthy for p in phantoms]) * (high - low) + low,
        "labels": np.stack([p.labels for p in phantoms]),
    }
    volumes = {name: from_axial(grid, AFFINE) for name, grid in grids.items()}
    labels = volumes["labels"]
    rng = np.random.default_rng(patient)
    lesion = np.isin(labels, (GGO, CONSOLIDATION))
    volumes["lesion_probability"] = np.where(lesion, 0.9, 0.1) * rng.uniform(0.8, 1, labels.shape)
    volumes["uncertainty"] = np.where(labels > 0, 1.386, 0.01) * rng.random(labels.shape)
    types = {"scan": np.int16, "healthy": np.int16, "labels": np.uint8}

    folder.mkdir(parents=True)
    for name, volume in volumes.items():
        kind = types.get(name, np.float32)
        image = nib.Nifti1Image(
            np.asarray(np.rint(volume) if name in types else volume, kind), AFFINE
        )
        image.header["descrip"] = SECRET.encode()
        nib.save(image, folder / f"{name}.nii.gz")
    _write_report(folder, report(folder, volumes, confidence))
    return folder


def _write_report(folder: Path, content: dict[str, Any]) -> None:
    """Write a report as ``predict`` does, with the checksums of the other files."""
    files = (path for path in folder.iterdir() if path.name != "report.json")
    write_json(folder / "report.json", content | {"checksums": {f.name: sha256(f) for f in files}})


def report(folder: Path, volumes: dict[str, np.ndarray], confidence: float) -> dict[str, Any]:
    """The report of one scan."""
    labels, hu = volumes["labels"], volumes["scan"]
    left = np.arange(labels.shape[0])[:, None, None] > labels.shape[0] // 2
    height = np.arange(labels.shape[2]) * 3 // labels.shape[2]
    whole = amounts(labels)
    means = {
        name: float(hu[labels == k].mean()) for name, k in (("healthy", HEALTHY), ("ggo", GGO))
    }
    return {
        "scan": folder.name,
        "source": f"/archive/{SECRET}/series1",
        "model": f"/home/{SECRET}/runs/guided/model.pt",
        "created": "2026-11-25T09:00:00",
        **whole,
        "sides": {"left": amounts(labels * left), "right": amounts(labels * ~left)},
        "thirds": {
            name: amounts(labels * (height == k))
            for k, name in enumerate(("lower", "middle", "upper"))
        },
        "severity_score": round(whole["percent_of_lung"]["infection"]),
        "severity_score_is": "made up",
        "mean_hu": {**means, "consolidation": None},
        "confidence": confidence,
        "warnings": [
            "slices are 10 mm thick: volumes are rough",
            "grey values <b>unlike</b> those of training",
        ],
        "files": {"labels": "labels.nii.gz"},
        "spacing_mm": [4.0, 5.0, 10.0],
        "shape": list(labels.shape),
        "disclaimer": "For research use only: not for diagnosis or treatment.",
    }


def amounts(labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Volumes and shares of the tissues."""
    ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    tissues = {"lung": labels > 0, "ggo": labels == GGO, "consolidation": labels == CONSOLIDATION}
    counts = {name: float(where.sum()) for name, where in tissues.items()}
    counts["infection"] = counts["ggo"] + counts["consolidation"]
    lesions = ("ggo", "consolidation", "infection")
    return {
        "volumes_ml": {name: n * ml for name, n in counts.items()},
        "percent_of_lung": {name: 100 * counts[name] / counts["lung"] for name in lesions},
    }


@pytest.fixture(scope="session")
def write_report() -> Callable[[Path, dict[str, Any]], None]:
    """``(folder, content)``: the report of a scan, with the checksums of its other files."""
    return _write_report


@pytest.fixture(scope="session")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished scans, an unfinished one, and the table of all scans."""
    folder = tmp_path_factory.mktemp("predictions")
    for patient, (name, confidence) in enumerate(
        [("scan 2", 0.91), ("scan 10", 0.55), ('a <b> & "c"', 0.75)]
    ):
        write_scan(folder / name, patient, confidence=confidence)
    (folder / "half").mkdir()
    with (folder / "scans.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["scan"], ["scan 2"]])
    return folder


@pytest.fixture(scope="session")
def niivue() -> str:
    """NiiVue's script, from the cache or downloaded."""
    try:
        return niivue_script()
    except ConnectionError as error:
        pytest.skip(f"NiiVue is missing: {error}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Headless Chromium from Debian, with software WebGL."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()
