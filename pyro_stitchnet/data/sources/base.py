"""Sources of scans, and the scans that they find in a folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyro_stitchnet.data.scans.common import counted
from pyro_stitchnet.runtime.text import identity

__all__ = ["Archive", "ScanFiles", "Source"]


@dataclass(frozen=True)
class ScanFiles:
    """The files and labels of one scan, before it is read.

    Names, patients and studies are kept in the form of
    :func:`~pyro_stitchnet.runtime.text.identity`.

    Attributes:
        name: unique name of the scan within its source.
        patient: whose scan it is. Never empty: splits are made by patient.
        image: a volume's file, a DICOM folder, the folders that a series is spread over, or the
            image files of its slices from feet to head.
        mask: likewise; None if nothing is labelled. With image files one mask for each, or None
            for an unlabelled slice.
        study: which of the patient's studies.
        rule: mask value -> the labels it allows; None for the source's rule.
        everywhere: the labels that every pixel may have, for a scan that is labelled as a whole and
            so has no mask: a healthy control has no lesion anywhere.
        stacked: whether neighbouring slices are neighbours in the patient. If not, slices are
            processed one by one.
        series: SeriesInstanceUID, where ``image`` is DICOM folders, which may hold several series.
        fault: why the scan cannot be used, where that is known before it is read; names a file.

    Raises:
        ValueError: the patient is empty, or image, mask and ``everywhere`` contradict each other.
    """

    name: str
    patient: str
    image: Path | tuple[Path, ...]
    mask: Path | tuple[Path | None, ...] | None = None
    study: str = ""
    rule: Mapping[int, frozenset[int]] | None = None
    everywhere: frozenset[int] | None = None
    stacked: bool = True
    series: str | None = None
    fault: str = ""

    def __post_init__(self) -> None:
        """Bring names into one form, and check that the fields fit together."""
        for field in ("name", "patient", "study"):
            object.__setattr__(self, field, identity(getattr(self, field)))
        if not self.patient:
            raise ValueError(f"{self.image}: scan {self.name!r} has no patient; splits need one")
        if self.mask is not None and self.everywhere is not None:
            raise ValueError(f"{self.image}: scan {self.name!r} has a mask and a label everywhere")
        if isinstance(self.image, tuple) and isinstance(self.mask, tuple):
            if len(self.image) != len(self.mask):
                raise ValueError(
                    f"{self.image[0]}: scan {self.name!r} has "
                    f"{counted(len(self.image), 'image')} but {counted(len(self.mask), 'mask')}; "
                    "give None for a slice without labels"
                )
        elif isinstance(self.mask, tuple):
            raise ValueError(f"{self.image}: scan {self.name!r} has masks of slices, but no slices")


@dataclass(frozen=True)
class Archive:
    """A file to download, which is unpacked if it is a zip archive.

    Attributes:
        file: its name.
        base: the address of its folder, "https://host/folder/" or "doi:.../".
        checksum: "md5:..." or "sha256:...", as in pooch; "" for a DOI, whose repository lists it.
        megabytes: its approximate size; only to ask before a large download and to check the disk.
    """

    file: str
    base: str
    checksum: str = ""
    megabytes: int = 0

    @property
    def is_zip(self) -> bool:
        """Whether it is unpacked."""
        return self.file.endswith(".zip")

    @property
    def unpacked(self) -> str:
        """Name of what it becomes: the file itself, or the folder of its members."""
        return self.file.removesuffix(".zip")


@dataclass(frozen=True)
class Source:
    """A public dataset, or a layout of folders that users keep.

    Attributes:
        name: its name on the command line.
        title: a description in one line.
        layout: the layout of its folder, for users, with an example for every kind of file.
        landmarks: patterns of :meth:`pathlib.Path.glob`; a folder with a match of one of them is
            taken to have this layout.
        rule: mask value -> the labels it allows.
        find: yields the scans in a folder, in a fixed order, without reading voxels. Raises
            FileNotFoundError or ValueError, naming the path, where the folder has another layout.
            The caller checks that there are scans, and that their names are unique.
        caution: a limitation of the data that affects results, shown whenever the source is read;
            "" where there is none.
        licence: of the data; "" for users' own data.
        citation: the works to cite; "" for users' own data.
        homepage: a page about the data; data without ``archives`` is downloaded there.
        archives: the files of ``stitchnet download``; empty where access needs a login or request.
    """

    name: str
    title: str
    layout: str
    landmarks: tuple[str, ...]
    rule: Mapping[int, frozenset[int]]
    find: Callable[[Path], Iterator[ScanFiles]]
    caution: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    archives: tuple[Archive, ...] = ()
