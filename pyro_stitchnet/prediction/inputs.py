"""Scans in the files and folders that a user gives, and names for their results."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.misc import is_dicom

from pyro_stitchnet.data.scans.dicom import list_series
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.scans.privacy import identifiers, names_someone
from pyro_stitchnet.data.sources.paths import natural, stem
from pyro_stitchnet.prediction.output_files import PLAN

__all__ = ["ARRAY_ENDINGS", "ScanInput", "assign_names", "find_inputs"]

ARRAY_ENDINGS = (".npy",)
"""Endings of files that are read only if given by name; searches of folders skip them."""

FOLDER_ENDINGS = (*VOLUME_ENDINGS, *IMAGE_ENDINGS)
"""Endings of the files that a search of a folder finds."""


@dataclass(frozen=True)
class ScanInput:
    """A scan to segment.

    Attributes:
        path: its file, or DICOM folder.
        title: the file's name without ending, or the names of the folder and series.
        series: SeriesInstanceUID, for DICOM.
        identifiers: values of the DICOM headers that identify the patient.
    """

    path: Path
    title: str
    series: str | None = None
    identifiers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A hash of path and series: unique, and free of identifiers."""
        text = f"{self.path}\n{self.series or ''}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def find_inputs(paths: Sequence[Path]) -> tuple[list[ScanInput], list[tuple[str, str]]]:
    """List the scans in files and folders, including nested folders.

    Of DICOM files only the headers are read.

    Args:
        paths: volumes, image files, arrays, or folders of these and of DICOM series. In folders,
            each image file is a scan of one slice.

    Returns:
        The scans without duplicates, in natural order within each path; and for each path without a
        scan, the path and the reason.

    Raises:
        ValueError: there are no paths, or one is a file of a DICOM series instead of its folder.
    """
    if not paths:
        raise ValueError("no scan to segment; name at least one: `stitchnet predict FILE ...`")
    inputs: dict[tuple[Path, str | None], ScanInput] = {}
    bad = []
    for path in paths:
        if not path.exists():
            bad.append((str(path), "no such file or folder; check the path"))
            continue
        if path.is_file() and not path.name.lower().endswith((*FOLDER_ENDINGS, *ARRAY_ENDINGS)):
            if path.suffix.lower() == ".dcm" or is_dicom(path):
                raise ValueError(
                    f"{path}: one file of a DICOM series; give the folder that contains it"
                )
            bad.append((str(path), "not a scan by its ending; give a volume, image or folder"))
            continue
        here = list(_in_folder(path) if path.is_dir() else [_file(path)])
        for one in here:
            inputs.setdefault((one.path, one.series), one)
        if not here:
            bad.append((str(path), "contains no volume, image or CT series"))
    return list(inputs.values()), bad


def assign_names(
    inputs: Iterable[ScanInput], taken: dict[str, str], *, keep_identifiers: bool
) -> dict[str, ScanInput]:
    """Assign each scan a unique name for its results, without patient identifiers.

    A scan that already has results keeps its name, whatever other scans are given.

    Args:
        inputs: the scans.
        taken: existing names in the results folder, with the keys of their scans, or "".
        keep_identifiers: whether names may contain identifiers.
    """
    known = {key: name for name, key in taken.items() if key}
    inputs = list(inputs)
    titles = [_file_name(one, keep_identifiers) for one in inputs]
    counts = Counter(titles)
    names: dict[str, ScanInput] = {}
    for one, name in zip(inputs, titles, strict=True):
        if one.key in known:
            name = known[one.key]
        elif counts[name] > 1 or name in taken or name in names:
            name = f"{name}-{one.key[:8]}"
        names[name] = one
    return names


def _file_name(one: ScanInput, keep_identifiers: bool) -> str:
    """The title as a valid file name; a hash if it contains identifiers."""
    name = re.sub(r"[^\w.+-]+", "_", one.title).strip("._-")
    if not name or (not keep_identifiers and names_someone(one.title, one.identifiers)):
        return f"scan-{one.key[:8]}"
    return name


def _file(path: Path) -> ScanInput:
    return ScanInput(path.resolve(), stem(path))


def _in_folder(folder: Path) -> Iterator[ScanInput]:
    """Every volume, image file and CT series in a folder and its subfolders."""
    scans = []
    for place, below, names in os.walk(folder.resolve(), onerror=_reraise):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        if PLAN in names:  # a results folder
            below.clear()
            continue
        here = Path(place)
        for name in names:
            if name.lower().endswith(FOLDER_ENDINGS) and not name.startswith("."):
                scans.append(_file(here / name))
        try:
            series = [one for one in list_series(here) if one.is_ct]
        except ValueError:  # reading the folder raises it again, and reports it
            known = identifiers(path for path in here.iterdir() if path.is_file())
            scans.append(ScanInput(here, here.name, None, known))
            continue
        for one in series:
            parts = [here.name, one.number, one.description] if len(series) > 1 else [here.name]
            known = identifiers((one.files[0], one.files[-1]))
            scans.append(ScanInput(here, "_".join(filter(None, parts)), one.uid, known))
    yield from sorted(scans, key=lambda one: (natural(str(one.path)), one.series or ""))


def _reraise(error: OSError) -> None:
    """Stop at an unreadable folder; ``os.walk`` skips it by default."""
    raise error
