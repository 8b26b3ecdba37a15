"""Download of public datasets, with checksums."""

import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch
import requests

from pyro_stitchnet.data.sources import SOURCES, Archive
from pyro_stitchnet.runtime.locks import only_run

__all__ = ["download"]

RETRIES = 2


def download(name: str, out: str | Path) -> list[Path]:
    """Download and unpack a source's archives, after printing its licence and citation.

    Each archive becomes a folder of its name, which appears once it is complete. After an
    interruption the next call downloads the archives that are still missing.

    Args:
        name: of a source, a key of :data:`~pyro_stitchnet.data.sources.SOURCES`.
        out: the folder for the data; created if missing.

    Returns:
        The unpacked folders, in ``out``.

    Raises:
        ValueError: the source is unknown or cannot be downloaded, or an archive has a wrong
            checksum, is damaged or unsafe.
        BlockingIOError: another run is writing to ``out``.
        ConnectionError: the server cannot be reached or does not send the file.
    """
    if name not in SOURCES:
        raise ValueError(f"{name}: unknown source; choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if not source.archives:
        where = f"get it at {source.homepage}" if source.homepage else "it is your own data"
        raise ValueError(f"{name}: cannot be downloaded; {where}")
    print(f"{source.title}\nLicence: {source.licence}\nPlease cite: {source.citation}", flush=True)
    out = Path(out)
    targets = []
    with only_run(out):
        for archive in source.archives:
            target = out / Path(archive.file).stem
            if not target.exists():
                packed = _fetch(archive, out, source.homepage)
                _unpack(packed, target)
                packed.unlink()
            targets.append(target)
    return targets


def _fetch(archive: Archive, out: Path, homepage: str) -> Path:
    """Download an archive to ``out``, unless it is there with the right checksum."""
    by_hand = (
        f"try again later, or put {archive.file} from {homepage} into {out} and run this again"
    )
    packed = out / archive.file
    shelf = pooch.create(
        path=out,
        base_url=archive.base,
        registry={archive.file: archive.checksum},
        retry_if_failed=RETRIES,
    )
    if not archive.checksum:
        try:
            shelf.load_registry_from_doi()
        except (requests.RequestException, ValueError, KeyError) as error:
            raise ConnectionError(
                f"{packed}: {archive.base} does not list its checksum ({error}); {by_hand}"
            ) from error
    try:
        shelf.fetch(archive.file, progressbar=True)
    except requests.RequestException as error:
        raise ConnectionError(f"{packed}: cannot be fetched ({error}); {by_hand}") from error
    except ValueError as error:
        raise ValueError(
            f"{packed}: the file from {archive.base} has a wrong checksum ({error}); {by_hand}"
        ) from error
    return packed


def _unpack(packed: Path, target: Path) -> None:
    """Unpack into a temporary folder next to ``target``, then rename it."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        unpacked = Path(temporary) / target.name
        unpacked.mkdir()
        try:
            with zipfile.ZipFile(packed) as content:
                for name in content.namelist():
                    _refuse_outside(packed, name)
                content.extractall(unpacked)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{packed}: not a readable zip archive ({error}); remove it and download it again"
            ) from error
        unpacked.rename(target)


def _refuse_outside(packed: Path, name: str) -> None:
    """Refuse a member that would be written outside its folder on any operating system."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(name).anchor or ".." in kind(name).parts:
            raise ValueError(
                f"{packed}: its member {name!r} would be written outside; do not use this archive"
            )
