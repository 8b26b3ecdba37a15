"""Download of public datasets, with checksums."""

import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch
import requests

from pyro_stitchnet.data.sources import SOURCES, Archive
from pyro_stitchnet.runtime.files import naming, remove_unfinished
from pyro_stitchnet.runtime.locks import only_run

__all__ = ["LARGE", "download"]

LARGE = 100
"""Megabytes above which a download is confirmed first."""

RETRIES = 2
FOREIGN = "__MACOSX"  # the folder that macOS adds to archives


def download(
    name: str, out: str | Path, *, confirm: Callable[[str], None] | None = None
) -> list[Path]:
    """Download and unpack a source's archives, after printing its licence and citation.

    Each archive becomes a file or folder, which appears once it is complete. After an interruption
    the next call downloads the archives that are still missing. An archive that was put into
    ``out`` by hand is used instead of a download.

    Args:
        name: of a source, a key of :data:`~pyro_stitchnet.data.sources.SOURCES`.
        out: the folder for the data; created if missing.
        confirm: called with a question before more than :data:`LARGE` megabytes are downloaded; it
            raises to refuse.

    Returns:
        The files and unpacked folders, in ``out``.

    Raises:
        ValueError: the source is unknown or cannot be downloaded, or an archive has a wrong
            checksum, is damaged or unsafe.
        BlockingIOError: another run is writing to ``out``.
        ConnectionError: the server cannot be reached or does not send the file.
        OSError: the disk has too little space.
    """
    if name not in SOURCES:
        raise ValueError(f"{name}: unknown source; choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if not source.archives:
        where = f"get it at {source.homepage}" if source.homepage else "it is your own data"
        raise ValueError(f"{name}: cannot be downloaded; {where}")
    print(f"{source.title}\nLicence: {source.licence}\nPlease cite: {source.citation}", flush=True)
    out = Path(out)
    missing = [archive for archive in source.archives if not (out / archive.unpacked).exists()]
    wanted = [archive for archive in missing if not (out / archive.file).exists()]
    _check_space(out, missing, wanted)
    megabytes = _size(wanted)
    if megabytes > LARGE and confirm is not None:
        confirm(f"Download {', '.join(a.file for a in wanted)}, about {megabytes} MB, to {out}?")
    with only_run(out), naming(out):
        remove_unfinished(out)
        for archive in missing:
            packed = _fetch(archive, out, source.homepage)
            if archive.is_zip:
                _unpack(packed, out / archive.unpacked)
                packed.unlink()
    return [out / archive.unpacked for archive in source.archives]


def _size(archives: Sequence[Archive]) -> int:
    return sum(archive.megabytes for archive in archives)


def _check_space(out: Path, missing: Sequence[Archive], wanted: Sequence[Archive]) -> None:
    """Refuse a download that does not fit on the disk.

    Files of scans are compressed already, so a zip archive takes its size twice until it is
    unpacked and removed.
    """
    needed = _size(wanted) + max((a.megabytes for a in missing if a.is_zip), default=0)
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free // 10**6
    if free < needed:
        raise OSError(
            f"{out}: {free} MB are free on its disk, but the download needs about {needed} MB; "
            "free some space, or choose another --out"
        )


def _fetch(archive: Archive, out: Path, homepage: str) -> Path:
    """Download an archive to ``out``, unless it is there with the right checksum."""
    by_hand = (
        f"try again later, or put {archive.file} from {homepage} into {out} and run this again"
    )
    packed = out / archive.file
    with _temporary(packed) as temporary:
        shelf = pooch.create(
            path=temporary,
            base_url=archive.base,
            registry={archive.file: archive.checksum},
            retry_if_failed=RETRIES,
        )
        if not archive.checksum:
            try:
                shelf.load_registry_from_doi()
                if not shelf.registry[archive.file]:
                    raise ValueError("its list of files lacks this one")
            except (requests.RequestException, ValueError, LookupError) as error:
                if packed.exists():
                    print(f"note: {packed}: used unchecked ({error})", file=sys.stderr)
                    return packed
                raise ConnectionError(
                    f"{packed}: {archive.base} does not list its checksum ({error}); {by_hand}"
                ) from error
        if packed.exists():
            if not pooch.hashes.hash_matches(str(packed), shelf.registry[archive.file]):
                raise ValueError(f"{packed}: has a wrong checksum; remove it and run this again")
            return packed
        try:
            fetched = Path(shelf.fetch(archive.file, progressbar=True))
        except (requests.RequestException, LookupError) as error:
            raise ConnectionError(f"{packed}: cannot be fetched ({error}); {by_hand}") from error
        except ValueError as error:
            raise ValueError(
                f"{packed}: the file from {archive.base} has a wrong checksum ({error}); {by_hand}"
            ) from error
        fetched.replace(packed)
    return packed


def _unpack(packed: Path, target: Path) -> None:
    """Unpack into a temporary folder next to ``target``, then rename it.

    An archive may hold the folder ``target`` itself or what belongs into it.
    """
    with _temporary(target) as temporary:
        unpacked = Path(temporary) / target.name
        unpacked.mkdir()
        try:
            with zipfile.ZipFile(packed) as content:
                names = [n for n in content.namelist() if PurePosixPath(n).parts[:1] != (FOREIGN,)]
                for name in names:
                    _refuse_outside(packed, name)
                content.extractall(unpacked, names)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(
                f"{packed}: not a readable zip archive ({error}); remove it and download it again"
            ) from error
        inner = unpacked / target.name
        whole = inner.is_dir() and len(list(unpacked.iterdir())) == 1
        (inner if whole else unpacked).rename(target)


def _temporary(path: Path) -> "tempfile.TemporaryDirectory[str]":
    """Return a folder beside a path; the next call of `download` removes it after a kill."""
    return tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")


def _refuse_outside(packed: Path, name: str) -> None:
    """Refuse a member that would be written outside its folder on any operating system."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(name).anchor or ".." in kind(name).parts:
            raise ValueError(
                f"{packed}: its member {name!r} would be written outside; do not use this archive"
            )
