"""Scans in the files and folders that a user gives, and names for their results."""

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.misc import is_dicom

from pyro_stitchnet.data.scans.dicom import Series, find_series
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.scans.readers import files_of
from pyro_stitchnet.data.sources.paths import are_results, is_dead_link, natural, stem, walk

__all__ = ["ARRAY_ENDINGS", "ScanInput", "assign_names", "find_inputs", "identity"]

ARRAY_ENDINGS = (".npy",)
"""Endings of files that are read only if given by name; searches of folders skip them."""

FOLDER_ENDINGS = (*VOLUME_ENDINGS, *IMAGE_ENDINGS)
"""Endings of the files that a search of a folder finds."""

LONGEST_NAME = 100  # characters: names of temporary files are longer, and systems allow 255 bytes
NUMBERED = re.compile(r"scan-(\d+)")


@dataclass(frozen=True)
class ScanInput:
    """A scan to segment.

    Attributes:
        path: its file, or DICOM folder, or the folder that holds all of ``folders``. Links are not
            resolved: a target may have no ending.
        title: the file's name without ending, or the names of the folder and series.
        series: SeriesInstanceUID, for DICOM.
        fault: why it cannot be read, where the search shows it already.
        folders: those of a DICOM series that is spread over several.
        files: those of a DICOM series; otherwise ``path`` is the file.
    """

    path: Path
    title: str
    series: str | None = None
    fault: str = ""
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def state(self) -> str:
        """A hash of the names, sizes and times of its files; "" for a scan with a fault."""
        if self.fault:
            return ""
        files = self.files or files_of(self.path)
        found = [(file.name, file.stat()) for file in files if file.is_file()]
        text = repr([(name, stat.st_size, int(stat.st_mtime)) for name, stat in found])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def image(self) -> Path | tuple[Path, ...]:
        """What :func:`~pyro_stitchnet.data.scans.streaming.read_stack` reads."""
        return self.folders or self.path

    @property
    def identity(self) -> tuple[str, str]:
        """The key of the scan, see :func:`identity`."""
        return identity(self.path, self.series or "")


def identity(path: str | Path, series: str) -> tuple[str, str]:
    """The key of a scan: its file or folder, with links resolved, and its series."""
    return os.path.realpath(path) if os.path.exists(path) else str(path), series


def find_inputs(paths: Sequence[Path]) -> list[ScanInput]:
    """List the scans in files and folders, including nested and linked folders.

    Of DICOM files only the headers are read. A series is one scan, over however many of the folders
    its files are spread.

    Args:
        paths: volumes, image files, arrays, or folders of these and of DICOM series. In folders,
            each image file is a scan of one slice.

    Returns:
        The scans without duplicates, in natural order within each path. A path without a scan, and
        what cannot be read in a folder, is one with a ``fault``.

    Raises:
        ValueError: there are no paths.
    """
    if not paths:
        raise ValueError("no scan to segment; name at least one: `stitchnet predict FILE ...`")
    inputs: dict[tuple[str, str], ScanInput] = {}
    seen: dict[str, Path] = {}  # each folder once, whatever links lead to it
    found: list[tuple[Path, list[ScanInput], set[Path]]] = []
    for path in map(Path, map(os.path.abspath, paths)):
        scans, folders = _at(path)
        found.append((path, scans, {seen.setdefault(os.path.realpath(f), f) for f in folders}))
    series = _series(seen.values())
    for path, scans, here in found:
        scans += [one for one in series if not here.isdisjoint(one.folders or [one.path])]
        scans.sort(key=lambda one: (natural(str(one.path)), one.series or ""))
        for one in scans or [_bad(path, "contains no volume, image or CT series")]:
            inputs.setdefault(one.identity, one)
    return list(inputs.values())


def assign_names(
    inputs: Iterable[ScanInput],
    known: Mapping[tuple[str, str], str],
    taken: Collection[str],
    *,
    keep_identifiers: bool,
) -> dict[str, ScanInput]:
    """Assign each scan a name for its results: a number, as file names may identify a patient.

    Args:
        inputs: the scans.
        known: names of earlier runs by identity; they do not change.
        taken: other names that must not be used.
        keep_identifiers: whether names are made of the scans' titles instead.
    """
    used = {name.casefold() for name in (*known.values(), *taken)}  # some systems ignore case
    before = [int(match[1]) for match in map(NUMBERED.fullmatch, known.values()) if match]
    numbered = (f"scan-{number:04}" for number in itertools.count(max(before, default=0) + 1))
    names: dict[str, ScanInput] = {}
    for one in inputs:
        if one.identity in known:
            name = known[one.identity]
        else:
            candidates = _titled(one.title) if keep_identifiers else numbered
            name = next(name for name in candidates if name.casefold() not in used)
            used.add(name.casefold())
        names[name] = one
    return names


def _titled(title: str) -> Iterator[str]:
    """The title as a file name, then with a number."""
    name = re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", title))
    name = name[:LONGEST_NAME].strip("._-") or "scan"
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _at(path: Path) -> tuple[list[ScanInput], list[Path]]:
    """The scans of one path that the user gave, and its folders, to be searched for DICOM."""
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            return [_bad(path, "no such file or folder; check the path")], []
        if path.name.lower().endswith((*FOLDER_ENDINGS, *ARRAY_ENDINGS)):
            return [_file(path)], []
        if path.is_file() and (path.suffix.lower() == ".dcm" or is_dicom(path)):
            reason = "one file of a DICOM series; give the folder that contains it"
            return [_bad(path, reason)], []
        return [_bad(path, "not a scan by its ending; give a volume, image or folder")], []
    except OSError as error:  # other paths are still read
        return [_bad(path, f"cannot be read ({error.strerror or error})")], []


def _bad(path: Path, fault: str) -> ScanInput:
    return ScanInput(path, stem(path), fault=fault)


def _file(path: Path) -> ScanInput:
    if not path.exists():
        return _bad(path, "a link to a missing file; fetch the file")
    if not path.is_file():  # opening a pipe would wait forever
        return _bad(path, "not a file")
    return ScanInput(path, stem(path))


def _in_folder(folder: Path) -> tuple[list[ScanInput], list[Path]]:
    """Every volume and image file in a folder and its subfolders; and these folders."""
    scans: list[ScanInput] = []
    folders: list[Path] = []

    def unreadable(error: OSError) -> None:
        scans.append(_bad(Path(error.filename), f"cannot be read ({error.strerror})"))

    for here, below, names in walk(folder, unreadable):
        if are_results(names):
            below.clear()
            if here == folder:
                scans.append(_bad(here, "holds results of `stitchnet predict`; give the scans"))
            continue
        for path in (here / name for name in names):
            if path.name.lower().endswith(FOLDER_ENDINGS):
                scans.append(_file(path))
            elif is_dead_link(path):
                scans.append(_bad(path, "a link to a missing file or folder; fetch it"))
        folders.append(here)
    return scans, folders


def _series(folders: Iterable[Path]) -> list[ScanInput]:
    """The CT series in folders, without their subfolders."""
    series, bad = find_series(folders)
    scans = [_bad(folder, fault) for folder, fault in bad.items()]
    by_home: dict[Path, list[Series]] = {}
    for one in series:
        by_home.setdefault(one.home, []).append(one)
    for home, here in by_home.items():
        for one in here:
            name = home.name or one.folders[0].name
            parts = [name, one.number, one.description] if len(here) > 1 else [name]
            spread = one.folders if len(one.folders) > 1 else ()
            title = "_".join(filter(None, parts))
            scans.append(ScanInput(home, title, one.uid, folders=spread, files=one.files))
    return scans
