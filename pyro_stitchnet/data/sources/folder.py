"""The package's own layout: a folder of images, masks and an index."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.sources._table import read_table
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import is_outside, stem, walk
from pyro_stitchnet.labels import LABEL_RULES
from pyro_stitchnet.runtime.text import identity

__all__ = ["FOLDER"]


def _find(folder: Path) -> Iterator[ScanFiles]:
    table = folder / "index.csv"
    index = read_table(table, ("file", "patient"))
    roots = folder / "images", folder / "masks"
    images, masks = (_listed(root) for root in roots)
    by_file = _masks_of(index["file"].tolist(), masks)
    if unpaired := sorted(set(masks).difference(*by_file.values())):
        # It is misnamed, and its image would count as unlabelled.
        raise FileNotFoundError(
            f"{masks[unpaired[0]]}: is the mask of no file in index.csv; name it like its image"
        )
    _refuse_other_masks(folder)
    files_of = Counter(name for names in by_file.values() for name in names)
    studies = index["study"] if "study" in index else [""] * len(index)
    for file, patient, study in zip(index["file"], index["patient"], studies, strict=True):
        if is_outside(file):
            fault = f"{table}: {file} lies outside {roots[0]}; list only files in it or below"
            yield ScanFiles(file, patient, table, study=study, fault=fault)
            continue
        image, mask = _located(roots[0], file, images), _located(roots[1], file, masks)
        fault = "" if image else f"{roots[0] / file}: missing, though index.csv lists it"
        names = by_file[file]
        if mask is None and names:
            mask = masks[names[0]]
        if len(names) > 1 or any(files_of[name] > 1 for name in names):
            twins = names if len(names) > 1 else [one for one in by_file if by_file[one] == names]
            fault = (
                f"{mask}: {' and '.join(twins)} differ only in their endings; rename one of them"
            )
        yield ScanFiles(
            name=file,
            patient=patient,
            image=image or roots[0] / file,
            mask=mask,
            study=study,
            fault=fault,
        )
    listed = set(index["file"].map(identity))
    for name in sorted(set(images) - listed):
        inside = any(above.as_posix() in listed for above in PurePosixPath(name).parents)
        if not inside and name.lower().endswith((*IMAGE_ENDINGS, *VOLUME_ENDINGS, ".npy")):
            fault = f"{images[name]}: not in index.csv; add it, or leave it out with --skip-bad"
            yield ScanFiles(name, name, images[name], fault=fault)


def _refuse_other_masks(folder: Path) -> None:
    """Refuse a folder of masks with another name: its slices would count as unlabelled."""
    for one in sorted(folder.iterdir()):
        if one.is_dir() and re.match("mask|label", one.name.lower()) and one.name != "masks":
            raise ValueError(f"{one}: masks are read from {folder / 'masks'} only; rename it")


def _listed(root: Path) -> dict[str, Path]:
    """Return the files in a folder and below, by their paths in it in one form of Unicode."""
    paths = [here / name for here, _, names in walk(root, lambda _: None) for name in names]
    return {identity(path.relative_to(root).as_posix()): path for path in paths}


def _masks_of(files: Sequence[str], masks: Collection[str]) -> dict[str, list[str]]:
    """Return the masks of each file: of the same name, or of a name that is of no other file.

    The latter differ from the file's in the ending: a lossless mask of a JPEG image.
    """
    by_stem: dict[str, list[str]] = {}
    for mask in sorted(set(masks) - set(files)):
        by_stem.setdefault(_stem(mask), []).append(mask)
    return {file: [file] * (file in masks) + by_stem.get(_stem(file), []) for file in files}


def _stem(name: str) -> str:
    path = Path(name)
    return path.with_name(stem(path)).as_posix() if path.name else name


def _located(root: Path, file: str, listed: Mapping[str, Path]) -> Path | None:
    """Return the path of a file, in any form of Unicode that the file system uses."""
    direct = root / file
    return direct if direct.exists() else listed.get(file)  # raises where access is denied


FOLDER = Source(
    name="folder",
    title="images, masks and an index of your own",
    layout=(
        "index.csv (file, patient[, study]), images/a.png, and masks/a.png where labelled; "
        "image files, volumes or NumPy arrays (.npy), one for each row. A mask's ending may "
        "differ: masks/a.png of images/a.jpg"
    ),
    landmarks=("index.csv",),
    rule=LABEL_RULES["full"],
    find=_find,
    caution=(
        "Masks are read by the rule 'full' (0 background, 1 healthy lung, 2 ground glass, "
        "3 consolidation) unless another rule is named; a mask of another rule may look valid."
    ),
)
"""The package's own layout: an index, images and masks."""
