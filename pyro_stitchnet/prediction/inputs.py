"""Which scans there are in what a user names, and what their results are called."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.misc import is_dicom

from pyro_stitchnet.data.scans.dicom import list_series
from pyro_stitchnet.data.scans.privacy import identifiers, names_someone
from pyro_stitchnet.data.sources.paths import MEDICAL, PICTURES, natural, stem

__all__ = ["ARRAYS", "PLAN", "Input", "find_inputs", "named"]

PLAN = "predict.json"
"""The file by which a folder of results is known."""

ARRAYS = (".npy",)
"""Endings of what is read where it is named, not where a folder happens to hold it."""


@dataclass(frozen=True)
class Input:
    """A scan to segment.

    Attributes:
        path: its file, or DICOM folder.
        label: what to call it: its file's name without ending, or its folder's and series'.
        series: SeriesInstanceUID, of DICOM.
        identifiers: what its headers say of whose it is.
        dicom: whether it is a DICOM folder.
    """

    path: Path
    label: str
    series: str | None = None
    identifiers: tuple[str, ...] = ()
    dicom: bool = False

    @property
    def key(self) -> str:
        """Tells it from every other scan, and says nothing of it."""
        said = f"{self.path}\n{self.series or ''}"
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def find_inputs(given: Sequence[Path]) -> tuple[list[Input], list[tuple[str, str]]]:
    """The scans in files and folders, nested folders included; only DICOM headers are read.

    Args:
        given: volumes, pictures, arrays, or folders of them and of DICOM series. Of folders,
            pictures are a scan of one slice each.

    Returns:
        The scans, each once, in natural order of what was given; and of each thing given that
        holds none, its name and the reason.

    Raises:
        ValueError: nothing is given, or a file of a DICOM series instead of its folder.
    """
    if not given:
        raise ValueError("no scan to segment; name at least one: `stitchnet predict FILE ...`")
    found: dict[tuple[Path, str | None], Input] = {}
    bad = []
    for place in given:
        if not place.exists():
            bad.append((str(place), "no such file or folder; check the path"))
            continue
        if place.is_file() and not place.name.lower().endswith((*MEDICAL, *PICTURES, *ARRAYS)):
            if place.suffix.lower() == ".dcm" or is_dicom(place):
                raise ValueError(
                    f"{place}: one file of a DICOM series; give the folder that it lies in"
                )
            bad.append((str(place), "no scan by its ending; give a volume, picture or folder"))
            continue
        here = list(_in_folder(place) if place.is_dir() else [_file(place)])
        for one in here:
            found.setdefault((one.path, one.series), one)
        if not here:
            bad.append((str(place), "holds no volume, picture or CT series"))
    return list(found.values()), bad


def named(inputs: Iterable[Input], taken: dict[str, str], *, keep: bool) -> dict[str, Input]:
    """A name for each scan's results, one of a kind and free of what DICOM says of the patient.

    A scan that has results keeps its name, whatever is given beside it.

    Args:
        inputs: the scans.
        taken: names of folders that hold results, or anything else, and the keys of their scans.
        keep: whether labels may hold identifiers.
    """
    known = {key: name for name, key in taken.items() if key}
    inputs = list(inputs)
    plain = [_neutral(one, keep) for one in inputs]
    times = Counter(plain)
    names: dict[str, Input] = {}
    for one, name in zip(inputs, plain, strict=True):
        if one.key in known:
            name = known[one.key]
        elif times[name] > 1 or name in taken or name in names:
            name = f"{name}-{one.key[:8]}"
        names[name] = one
    return names


def _neutral(one: Input, keep: bool) -> str:
    label = re.sub(r"[^\w.+-]+", "_", one.label).strip("._-")
    if not label or (not keep and names_someone(one.label, one.identifiers)):
        return f"scan-{one.key[:8]}"
    return label


def _file(path: Path) -> Input:
    return Input(path.resolve(), stem(path))


def _in_folder(folder: Path) -> Iterator[Input]:
    """Every volume, picture and CT series in a folder and those below."""
    scans = []
    for place, below, names in os.walk(folder.resolve(), onerror=_raised):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        if PLAN in names:  # results are no scans to segment
            below.clear()
            continue
        here = Path(place)
        for name in names:
            if name.lower().endswith((*MEDICAL, *PICTURES)) and not name.startswith("."):
                scans.append(_file(here / name))
        try:
            series = [one for one in list_series(here) if one.is_ct]
        except ValueError:  # raised again when the folder is read, and told then
            known = identifiers(path for path in here.iterdir() if path.is_file())
            scans.append(Input(here, here.name, None, known, dicom=True))
            continue
        for one in series:
            said = [here.name, one.number, one.description] if len(series) > 1 else [here.name]
            known = identifiers((one.files[0], one.files[-1]))
            scans.append(Input(here, "_".join(filter(None, said)), one.uid, known, dicom=True))
    yield from sorted(scans, key=lambda one: (natural(str(one.path)), one.series or ""))


def _raised(error: OSError) -> None:
    """A folder that cannot be read is not passed over."""
    raise error
