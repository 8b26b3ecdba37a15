"""What a source of scans declares, and what it finds in its folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyro_stitchnet.data.scans.common import counted

__all__ = ["Archive", "Scan", "Source"]


@dataclass(frozen=True)
class Scan:
    """What a source knows about one scan before it is read.

    Attributes:
        name: of the scan, one of a kind within its source.
        patient: whose scan it is. Never empty: splits go by it.
        image: a volume's file, a DICOM folder, or the pictures of its slices from feet to head.
        mask: likewise; None where nothing is labelled. Of pictures one for each, None for a slice
            without labels.
        study: which of the patient's studies.
        meanings: mask value -> the labels it allows, where not the source's.
        everywhere: the labels that every pixel allows, of a scan that is labelled as a whole (a
            healthy control has no lesion anywhere) and so has no mask.
        stacked: whether neighbouring slices are neighbours in the patient. Where not, nothing may
            be followed from one slice to the next.
        series: SeriesInstanceUID, where ``image`` is a DICOM folder that may hold several.
    """

    name: str
    patient: str
    image: Path | tuple[Path, ...]
    mask: Path | tuple[Path | None, ...] | None = None
    study: str = ""
    meanings: Mapping[int, frozenset[int]] | None = None
    everywhere: frozenset[int] | None = None
    stacked: bool = True
    series: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if not self.patient:
            raise ValueError(f"{self.image}: scan {self.name!r} has no patient; splits need one")
        if self.mask is not None and self.everywhere is not None:
            raise ValueError(f"{self.image}: scan {self.name!r} has a mask and a label everywhere")
        if isinstance(self.image, tuple) and isinstance(self.mask, tuple):
            if len(self.image) != len(self.mask):
                raise ValueError(
                    f"{self.image[0]}: scan {self.name!r} has "
                    f"{counted(len(self.image), 'picture')} but {counted(len(self.mask), 'mask')}; "
                    "give None for a slice without labels"
                )
        elif isinstance(self.mask, tuple):
            raise ValueError(f"{self.image}: scan {self.name!r} has masks of slices, but no slices")


@dataclass(frozen=True)
class Archive:
    """A zip file to download.

    Attributes:
        file: its name.
        base: the address that its name is added to, "https://host/folder/" or "doi:.../".
        checksum: "md5:..." or "sha256:...", as pooch takes it; "" of a DOI whose repository tells
            it.
    """

    file: str
    base: str
    checksum: str = ""


@dataclass(frozen=True)
class Source:
    """A public dataset, or a layout of folders that users keep.

    Attributes:
        name: what the command line calls it.
        title: in words.
        layout: how its folder looks, for people; an example for every kind of file.
        landmarks: patterns of :meth:`pathlib.Path.glob`; a folder that has one of them is meant to
            have this layout.
        meanings: mask value -> the labels it allows.
        find: yields the scans in a folder, in a fixed order, without reading voxels. Raises
            FileNotFoundError or ValueError, naming the path, where the folder has another layout.
            That there is a scan, and none twice, is for its caller to hold.
        caution: what to know before figures are trusted, to be shown whenever the source is read;
            "" where there is nothing.
        licence: of the data; "" for users' own.
        citation: whom to cite; "" for users' own.
        homepage: where people read about it and, unless there are ``archives``, get it.
        archives: what ``stitchnet download`` fetches; empty where a person must ask or log in.
    """

    name: str
    title: str
    layout: str
    landmarks: tuple[str, ...]
    meanings: Mapping[int, frozenset[int]]
    find: Callable[[Path], Iterator[Scan]]
    caution: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    archives: tuple[Archive, ...] = ()
