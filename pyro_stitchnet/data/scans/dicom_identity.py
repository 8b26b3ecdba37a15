"""Which DICOM files are one scan: copies, patients and acquisitions that share a series.

SeriesInstanceUID identifies a series. A scan is often taken in several acquisitions, each of its
own part of the body. But breathing in and breathing out, two energies, or two reconstructions
sometimes share a series too, and a volume that mixes the slices of two acquisitions does not
show the patient.
"""

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.multival import MultiValue

from pyro_stitchnet.data.scans.common import counted, reading
from pyro_stitchnet.data.scans.dicom_slices import MEND, DicomSlice, text_of

__all__ = ["ACQUISITION_TAGS", "Headers", "Part", "refuse_mixed", "without_copies"]

SAME = (
    "AcquisitionNumber", "AcquisitionUID", "IrradiationEventUID", "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase", "ImageType", "ConvolutionKernel", "KVP",
    "FrameOfReferenceUID", "SeriesNumber",
)  # fmt: skip
"""Tags that are equal in all slices of an acquisition."""

TIMES = ("SeriesTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime")
"""Tags that may be equal in all slices of an acquisition, or differ between its slices."""

ACQUISITION_TAGS = [*SAME, *TIMES]
"""The tags that distinguish acquisitions."""

LEAST_SLICES = 3
"""Slices that a group needs to count as an acquisition where the tag is a weak sign."""

NEAR = 1e-3  # mm: slices that are nearer lie at the same place
MOST_NAMED = 5

Headers = Mapping[Path, Dataset]
"""The headers of one series, by file."""

Groups = Mapping[str, Sequence[DicomSlice]]


@dataclass(frozen=True)
class Part:
    """The part of a scan in one folder; decides whether parts in several folders are one scan.

    Attributes:
        owner: PatientID and StudyInstanceUID.
        places: where each slice lies -> its SOPInstanceUID.
    """

    owner: tuple[str, str]
    places: Mapping[tuple[object, ...], str]

    @classmethod
    def of(cls, headers: Headers) -> "Part":
        """Return the part that consists of a folder's files of one series."""
        owners: set[tuple[str, str]] = set()
        places: dict[tuple[object, ...], str] = {}
        for file, header in headers.items():
            with reading(file, MEND):
                owners.add((text_of(header, "PatientID"), text_of(header, "StudyInstanceUID")))
                position = header.get("ImagePositionPatient")
                place = tuple(round(float(mm), 3) for mm in position or ())
                number = ("InstanceNumber", text_of(header, "InstanceNumber"))
                places[place or number] = text_of(header, "SOPInstanceUID")
        return cls(min(owners, default=("", "")), places)

    def continues(self, other: "Part") -> bool:
        """Return whether both are parts of one scan.

        That is so if patient and study agree, and slices at the same position are copies. Otherwise
        each is a scan of its own, although they share a UID: programs that remove names or export
        series again often repeat UIDs. Unreadable files have no position and belong to any part:
        they make it unreadable.
        """
        if not (self.places and other.places):
            return True
        return self.owner == other.owner and all(
            self.places[place] == other.places[place] != ""
            for place in self.places.keys() & other.places.keys()
        )

    def joined(self, other: "Part") -> "Part":
        """Return both together."""
        owner = self.owner if self.places else other.owner
        return Part(owner, {**self.places, **other.places})


def without_copies(headers: Headers) -> Headers:
    """Return the headers of different files.

    Args:
        headers: of one series' files.

    Raises:
        ValueError: a file belongs to another patient or study, or differs from one with the same
            SOPInstanceUID; the message names both.
    """
    first: dict[tuple[str, str], Path] = {}
    kept: dict[Path, Dataset] = {}
    for file, header in headers.items():
        with reading(file, MEND):
            patient, study = text_of(header, "PatientID"), text_of(header, "StudyInstanceUID")
            instance = text_of(header, "SOPInstanceUID")
        for tag, value in (("PatientID", patient), ("StudyInstanceUID", study)):
            one = first.setdefault((tag, ""), file) if value else file
            if value != text_of(headers[one], tag):
                raise ValueError(
                    f"{file}: has another {tag} than {one}, but the same SeriesInstanceUID; give "
                    "each series a UID of its own, or correct the tag"
                )
        one = first.setdefault(("SOPInstanceUID", instance), file) if instance else file
        if one is file:
            kept[file] = header
        elif not filecmp.cmp(one, file, shallow=False):
            raise ValueError(
                f"{file}: has the SOPInstanceUID of {one}, but differs from it; keep one of the two"
            )
    return kept


def refuse_mixed(source: Path, slices: Sequence[DicomSlice], headers: Headers) -> None:
    """Refuse a series of several acquisitions that overlap in height.

    Acquisitions differ in :data:`ACQUISITION_TAGS`, or in how InstanceNumber counts: it repeats, or
    counts through the heights more than once.

    Args:
        source: the folder or file, for the message.
        slices: of one series, sorted by their height.
        headers: of their files.

    Raises:
        ValueError: there are several; the message lists them.
    """
    if any(one.position is None for one in slices):
        return
    for tag in ACQUISITION_TAGS:
        groups: dict[str, list[DicomSlice]] = {}
        for one in slices:
            with reading(one.file, MEND):
                value = headers[one.file].get(tag, "")
            text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
            groups.setdefault(f"{tag} {text}".strip() if text else f"no {tag}", []).append(one)
        _refuse_overlap(source, groups, 1 if tag in SAME else LEAST_SLICES)
    if all(one.number is not None for one in slices):
        _refuse_overlap(source, _repeats(slices), 1)
        _refuse_overlap(source, _sweeps(slices), LEAST_SLICES)


def _refuse_overlap(source: Path, groups: Groups, least: int) -> None:
    """Refuse groups, sorted by height each, of which two overlap.

    Args:
        source: as for :func:`refuse_mixed`.
        groups: the slices by the name of their acquisition.
        least: the slices of each group. If more than one, half of a group must lie between the
            ends of another, because slices at the border may be stored out of order.
    """
    if len(groups) < 2 or min(map(len, groups.values())) < least:
        return
    below: Sequence[DicomSlice] = ()
    for group in sorted(groups.values(), key=lambda group: group[0].height):
        inside = [one for one in group if below and one.height < below[-1].height + NEAR]
        if inside and (least == 1 or 2 * len(inside) >= min(len(group), len(below))):
            break
        below = max(below, group, key=lambda one: one[-1].height if one else -float("inf"))
    else:
        return
    listed = [
        f"{name} ({counted(len(group), 'file')}, such as {group[0].file.name})"
        for name, group in groups.items()
    ]
    more = f", and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    raise ValueError(
        f"{source}: one series holds {len(groups)} acquisitions that overlap in height: "
        f"{', '.join(listed[:MOST_NAMED])}{more}; give each a SeriesInstanceUID of its own, or "
        "read a folder that holds only one of them"
    )


def _repeats(slices: Sequence[DicomSlice]) -> Groups:
    """Group slices by how often their number occurred before, where all occur equally often."""
    times: dict[int | None, int] = {}
    groups: dict[str, list[DicomSlice]] = {}
    for one in slices:
        times[one.number] = times.get(one.number, 0) + 1
        groups.setdefault(f"InstanceNumbers, time {times[one.number]}", []).append(one)
    even = len(times) > 1 and len(set(times.values())) == 1
    return groups if even else {}


def _sweeps(slices: Sequence[DicomSlice]) -> Groups:
    """Group slices, in the order of their numbers, into runs that only rise or only fall."""
    runs: list[list[DicomSlice]] = []
    for one in sorted(slices, key=lambda one: (one.number or 0, one.height)):
        run = runs[-1] if runs else []
        rises = len(run) < 2 or run[1].height > run[0].height
        if run and (len(run) < 2 or (one.height > run[-1].height) == rises):
            run.append(one)
        else:
            runs.append([one])
    return {
        f"InstanceNumber {run[0].number} to {run[-1].number}": sorted(
            run, key=lambda one: one.height
        )
        for run in runs
    }
