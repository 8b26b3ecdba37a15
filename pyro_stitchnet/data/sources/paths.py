"""Listing of folders and pairing of images with masks, for every source."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from pyro_stitchnet.runtime.text import identity

__all__ = [
    "are_results",
    "files",
    "folders",
    "is_dead_link",
    "is_outside",
    "natural",
    "pair",
    "stem",
    "walk",
]

RESULTS = ({"predict.json"}, {"report.json", "labels.nii.gz"})
"""Files that `stitchnet predict` writes together: into its --out, and for each scan."""


def files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """List the files directly in a folder, without hidden ones, in :func:`natural` order.

    Args:
        folder: the folder.
        endings: in lower case; files may have them in any case.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    return [path for path in _visible(folder) if path.name.lower().endswith(endings)]


def folders(folder: Path, *, besides: tuple[str, ...] = ()) -> list[Path]:
    """List the folders directly in a folder, in :func:`natural` order.

    Args:
        folder: the folder.
        besides: endings of files that belong one folder deeper and must not lie here.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file lies here that should lie deeper.
    """
    if besides and (misplaced := files(folder, besides)):
        raise ValueError(
            f"{misplaced[0]}: lies a folder too high; move it into a folder of its own below "
            f"{folder}"
        )
    paths = _visible(folder)
    if dead := next(filter(is_dead_link, paths), None):
        raise FileNotFoundError(f"{dead}: a broken link; repair or remove it")
    return [path for path in paths if path.is_dir()]


def walk(
    folder: Path, onerror: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield a folder and all below it, with the names of their folders and files, like os.walk.

    Links to folders are followed. However many links lead to a folder, it is visited once, so links
    may form circles. Hidden files and folders are left out. A broken link counts as a file.

    Args:
        folder: the folder.
        onerror: gets the error of a folder that cannot be read; by default it is raised.
    """

    def raised(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for place, below, names in os.walk(folder, onerror=onerror or raised, followlinks=True):
        real = os.path.realpath(place)
        below[:] = sorted(filter(_is_visible, below), key=natural)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(place), below, sorted(filter(_is_visible, names), key=natural)


def are_results(names: Iterable[str]) -> bool:
    """Return whether a folder of files with these names holds results of `stitchnet predict`."""
    found = {*names}
    return any(result <= found for result in RESULTS)


def is_dead_link(path: Path) -> bool:
    """Return whether a path is a broken link."""
    return path.is_symlink() and not path.exists()


def is_outside(name: str) -> bool:
    """Return whether a file's name in a table leads out of the folder, on any system."""
    kinds = (PurePosixPath(name), PureWindowsPath(name))
    return any(path.anchor or ".." in path.parts for path in kinds)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by their numbers: slice_2 before slice_10."""
    return [(int(p), p) if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)]


def stem(path: Path) -> str:
    """Return the name without its ending; ``.nii.gz`` is one ending."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def pair(
    images: Sequence[Path], masks: Iterable[Path], *, all_labelled: bool
) -> list[tuple[Path, Path | None]]:
    """Pair every image with the mask of the same name; endings and forms of Unicode may differ.

    Args:
        images: of one folder.
        masks: of one folder.
        all_labelled: whether an image without a mask is an error.

    Raises:
        FileNotFoundError: a mask has no image or, where all are labelled, an image no mask.
        ValueError: two files differ only in their endings.
    """
    by_name: dict[str, Path] = {}
    for mask in masks:
        if (other := by_name.setdefault(identity(stem(mask)), mask)) is not mask:
            raise ValueError(f"{mask}: {other.name} has the same name; keep one of them")
    pairs: dict[str, tuple[Path, Path | None]] = {}
    for image in images:
        if (name := identity(stem(image))) in pairs:
            raise ValueError(f"{image}: {pairs[name][0].name} has the same name; keep one of them")
        pairs[name] = (image, by_name.pop(name, None))
        if all_labelled and pairs[name][1] is None:
            raise FileNotFoundError(
                f"{image}: has no mask, though all images here are labelled; unpack the masks again"
            )
    for mask in by_name.values():
        raise FileNotFoundError(f"{mask}: is the mask of no image; name it like its image")
    return list(pairs.values())


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    paths = (path for path in folder.iterdir() if _is_visible(path.name))
    return sorted(paths, key=lambda path: natural(path.name))


def _is_visible(name: str) -> bool:
    # macOS leaves such files in the archives it makes.
    return not name.startswith(".") and name != "__MACOSX"
