"""Small valid inputs of every kind that the package reads, and mutations of them.

A :class:`Target` is a kind of input: a folder of files, what a user gets of it, and whether its
format can tell that a value changed. A :class:`Trial` mutates one file of a target and reads it.
"""

import hashlib
import pickle
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import find_jobs
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.training import checkpoint

MEMORY = 4  # GiB that a process may use


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: for the table.
        mutated: patterns of the files that are mutated.
        read: returns what a user gets of the folder.
        checked: whether the files carry a checksum, so that no change may pass.
        behind: what ends the part of a file that no checksum covers, and that is not mutated.
    """

    name: str
    mutated: tuple[str, ...]
    read: Callable[[Path], object]
    checked: bool
    behind: bytes = b""


def scan_of(name: str) -> Callable[[Path], object]:
    """Return a reader of one scan."""

    def read(folder: Path) -> object:
        stack = read_stack(folder / name if name else folder)
        slices = [np.asarray(one) for one in stack.slices]
        return slices, stack.affine, stack.hounsfield, stack.study

    return read


def prepared_slices(folder: Path) -> object:
    """Read a whole dataset: images, label sets, patients and all else that is known of a slice."""
    dataset = Dataset(folder / "set")
    slices = dataset.load()
    return (
        slices.images.numpy(),
        slices.label_sets.numpy(),
        dataset.manifest.to_csv(),
        dataset.about,
    )


def listed_scans(folder: Path) -> object:
    """Find the scans of a folder with a hand-made table, and read their pictures."""
    scans = [job.scan for job in find_jobs([str(folder)])]
    named = [(scan.name, scan.patient, scan.study, bool(scan.mask)) for scan in scans]
    return named, [list(read_stack(scan.image).slices) for scan in scans]


def model_weights(folder: Path) -> object:
    """Read a checkpoint."""
    net, info = checkpoint.load_any(folder / "model.pt")
    return {name: value.numpy() for name, value in net.state_dict().items()}, net.config, info


def scan_results(folder: Path) -> object:
    """Read what `view` shows of a scan's results."""
    from pyro_stitchnet.viewer.layers import available_layers, encode
    from pyro_stitchnet.viewer.pages import served_grid
    from pyro_stitchnet.viewer.results import open_result

    (scan,) = (path for path in (folder / "results").iterdir() if path.is_dir())
    result = open_result(scan)
    grid, layers = served_grid(result), available_layers(result)
    return result.report, [encode(result, layer, grid, compress=False) for layer in layers]


TARGETS = {
    target.name: target
    for target in (
        Target("NIfTI", ("ct.nii",), scan_of("ct.nii"), False),
        Target("NIfTI, gzip", ("ct.nii.gz",), scan_of("ct.nii.gz"), True),
        Target("MetaImage", ("ct.mha",), scan_of("ct.mha"), False),
        Target("MetaImage, header alone", ("ct.mhd",), scan_of("ct.mhd"), False),
        Target(
            "MetaImage, compressed", ("ct.mha",), scan_of("ct.mha"), True, b"DataFile = LOCAL\n"
        ),
        Target("NRRD", ("ct.nrrd",), scan_of("ct.nrrd"), False),
        Target("NRRD, compressed", ("ct.nrrd",), scan_of("ct.nrrd"), True, b"\n\n"),
        Target("NumPy", ("ct.npy",), scan_of("ct.npy"), False),
        Target("DICOM", ("*.dcm",), scan_of(""), False),
        Target("DICOM, run-length", ("*.dcm",), scan_of(""), False),
        Target("PNG and its mask", ("images/*.png", "masks/*.png"), listed_scans, False),
        Target("JPEG", ("images/*.jpg",), listed_scans, False),
        Target("index.csv", ("index.csv",), listed_scans, False),
        Target("dataset", ("set/*.*", "set/shards/**/*"), prepared_slices, True),
        Target("checkpoint", ("model.pt",), model_weights, True),
        Target("results", ("results/scan*/*",), scan_results, True),
    )
}
"""The kinds of input by name."""


def chest(size: int = 48, slices: int = 8) -> np.ndarray:
    """Return a chest in HU, int16 (slices, rows, columns), with noise: a flipped voxel shows."""
    z, y, x = np.mgrid[:slices, :size, :size].astype(float)
    half = size / 2
    hu = np.full(z.shape, -1000.0)
    hu[((x - half) / (half * 0.9)) ** 2 + ((y - half) / (half * 0.7)) ** 2 < 1] = 40
    for side in (-1, 1):
        centre = half + side * half * 0.42
        hu[((x - centre) / (half * 0.3)) ** 2 + ((y - half) / (half * 0.45)) ** 2 < 1] = -850
    noise = np.random.default_rng(0).normal(0, 15, hu.shape)
    return (hu + noise).astype(np.int16)


def make_corpus(out: Path) -> None:
    """Write a folder for every target; the commands of the package make the last three."""
    hu = chest()
    affine = np.diag([-7.0, -7.0, 10.0, 1.0])
    for ending in ("nii", "nii.gz"):
        folder = _new(out, "NIfTI" if ending == "nii" else "NIfTI, gzip")
        image = nib.Nifti1Image(hu.T, affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"ct.{ending}")
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((7, 7, 10))
    for name, file, packed in (
        ("MetaImage", "ct.mha", False),
        ("MetaImage, header alone", "ct.mhd", False),
        ("MetaImage, compressed", "ct.mha", True),
        ("NRRD", "ct.nrrd", False),
        ("NRRD, compressed", "ct.nrrd", True),
    ):
        sitk.WriteImage(image, _new(out, name) / file, useCompression=packed)
    np.save(_new(out, "NumPy") / "ct.npy", hu)
    for name, syntax in (
        ("DICOM", ExplicitVRLittleEndian),
        ("DICOM, run-length", RLELossless),
    ):
        _write_series(hu, _new(out, name), syntax)
    grey = ((hu + 1000) / 5).clip(0, 255).astype(np.uint8)
    mask = (hu < -700).astype(np.uint8) * (hu > -900)
    for name, ending in (("PNG and its mask", "png"), ("JPEG", "jpg"), ("index.csv", "png")):
        folder = _new(out, name)
        rows = ["file,patient"]
        for part in ("images", "masks"):
            (folder / part).mkdir()
        for k in range(3):
            Image.fromarray(grey[k + 2]).save(folder / "images" / f"{k}.{ending}")
            Image.fromarray(mask[k + 2]).save(folder / "masks" / f"{k}.png")
            rows.append(f"{k}.{ending},patient {k}")
        (folder / "index.csv").write_text("\n".join(rows) + "\n")
    _make_with_commands(out)


def _make_with_commands(out: Path) -> None:
    phantoms, dataset = out / "phantoms", _new(out, "dataset") / "set"
    run("phantom", "--out", phantoms, "--patients", 8, "--slices", 2, "--size", 64)
    run("prepare", phantoms, "--out", dataset, "--size", 64, "--lungs", "none", "--workers", 1)
    run("train", dataset, "--out", out / "run", "--preset", "tiny", "--steps", 2, "--folds", 0)
    model = _new(out, "checkpoint") / "model.pt"
    shutil.copy(out / "run" / "model.pt", model)
    scan, results = out / "NIfTI, gzip" / "ct.nii.gz", _new(out, "results") / "results"
    run("predict", scan, "--model", model, "--out", results, "--lungs", "classical", "--workers", 1)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of `stitchnet`.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "pyro_stitchnet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done


def _new(out: Path, name: str) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    return folder


def _write_series(hu: np.ndarray, folder: Path, syntax: str) -> None:
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k, plane in enumerate(hu):
        one = DicomDataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.StudyInstanceUID, one.FrameOfReferenceUID = series, study, frame
        one.PatientID, one.PatientName, one.Modality = "P1", "Doe^Jane", "CT"
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 10 * k], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness, one.InstanceNumber = [7, 7], 10, k + 1
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleIntercept, one.RescaleSlope = 0, 1
        one.PixelData = plane.tobytes()
        if syntax != ExplicitVRLittleEndian:
            one.compress(syntax)
        pydicom.dcmwrite(folder / f"{k:03}.dcm", one, enforce_file_format=True)


MUTATIONS = ("bit", "bit", "bit", "byte", "cut", "grow", "zeros", "swap", "number")
"""One flipped bit is tried most: it is what memory and disks do."""

NUMBERS = (b"-1", b"0", b"nan", b"inf", b"1e309", b"4294967296", b"3200000", b"0.001", b"")


def mutate(data: bytes, how: str, draw: random.Random) -> bytes:
    """Return the mutated content of a file."""
    if not data:
        return b"\0"
    at = draw.randrange(len(data))
    if draw.random() < 0.5:  # headers decide more than bodies do
        at = draw.randrange(min(len(data), 512))
    out = bytearray(data)
    match how:
        case "bit":
            out[at] ^= 1 << draw.randrange(8)
        case "byte":
            out[at] = draw.choice((0, 1, 0x20, 0x2F, 0x7F, 0xFF))
        case "cut":
            del out[at:]
        case "grow":
            out += data[: draw.randrange(1, 64)]
        case "zeros":
            out[at : at + 16] = bytes(len(out[at : at + 16]))
        case "swap":
            at, to = sorted((at, draw.randrange(len(data))))
            out[at : at + 8], out[to : to + 8] = out[to : to + 8], out[at : at + 8]
        case "number":
            digits = [i for i, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
            if digits:
                at = draw.choice(digits)
                out[at : at + 1] = draw.choice(NUMBERS)
            else:
                end = max(0, min(len(data), 352) - 4)
                at = draw.randrange(end + 1)
                value = draw.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")))
                out[at : at + 4] = struct.pack("<f", value)
    return bytes(out)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutated input.

    Attributes:
        target: its kind.
        verdict: "refused", "unchanged", "changed" or "fault".
        detail: of a fault: the mutation, so that it can be made again, and what happened.
    """

    target: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Trial:
    """One mutation.

    Attributes:
        corpus: the folder of :func:`make_corpus`.
        target: name of the target.
        expected: digest of what the target gives unchanged.
        seed: of the mutation.
    """

    corpus: Path
    target: str
    expected: str
    seed: int

    def __call__(self) -> Outcome:
        """Mutate a file of a copy, read it, and judge."""
        draw, target = random.Random(f"{self.target} {self.seed}"), TARGETS[self.target]
        with tempfile.TemporaryDirectory(prefix="robust") as work:
            folder = Path(work) / "in"
            shutil.copytree(self.corpus / self.target, folder)
            files = sorted({p for mark in target.mutated for p in folder.glob(mark) if p.is_file()})
            file, how = draw.choice(files), draw.choice(MUTATIONS)
            before = file.read_bytes()
            start = before.index(target.behind) + len(target.behind)
            after = before[:start] + mutate(before[start:], how, draw)
            file.write_bytes(after)
            what = f"{how} in {file.relative_to(folder)}, seed {self.seed}"
            if after == before:
                return Outcome(self.target, "unchanged")
            return self._judge(target, folder, file, what)

    def _judge(self, target: Target, folder: Path, file: Path, what: str) -> Outcome:
        try:
            same = digest(target, folder) == self.expected
        except (ValueError, OSError) as error:
            named = any(part in str(error) for part in (str(file), file.stem, str(folder)))
            if named and isinstance(error, ValueError | FileNotFoundError):
                return Outcome(self.target, "refused")
            return Outcome(self.target, "fault", f"{what}: {type(error).__name__}: {error}")
        except Exception as error:
            return Outcome(self.target, "fault", f"{what}: {type(error).__name__}: {error}")
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if used > MEMORY:
            return Outcome(self.target, "fault", f"{what}: {used:.1f} GiB of memory")
        if same:
            return Outcome(self.target, "unchanged")
        if target.checked:
            return Outcome(self.target, "fault", f"{what}: changed in silence")
        return Outcome(self.target, "changed")


def digest(target: Target, folder: Path) -> str:
    """Return a digest of what a user gets of a folder."""
    with warnings.catch_warnings(action="ignore"):
        return hashlib.sha256(pickle.dumps(target.read(folder))).hexdigest()
