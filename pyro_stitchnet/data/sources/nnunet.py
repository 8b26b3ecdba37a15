"""nnU-Net's raw format (version 2); label names decide which labels a mask value allows.

``imagesTs/`` is not read: it is the owner's test set.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import files, pair
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY, LABELS, LESIONS
from pyro_stitchnet.runtime.text import identity

__all__ = ["NNUNET", "rule_of"]

ALL = frozenset(range(len(LABELS)))
INFECTION = frozenset(LESIONS)
NAMES: Mapping[str, frozenset[int]] = {
    "healthy": frozenset({HEALTHY}),
    "healthy lung": frozenset({HEALTHY}),
    "ggo": frozenset({GGO}),
    "ground glass": frozenset({GGO}),
    "ground glass opacity": frozenset({GGO}),
    "consolidation": frozenset({CONSOLIDATION}),
    "infection": INFECTION,
    "lesion": INFECTION,
    "effusion": frozenset({BACKGROUND}),
    "pleural effusion": frozenset({BACKGROUND}),
    "ignore": ALL,
}
LUNGS = ("lung", "lungs", "left lung", "right lung")


def rule_of(labels: Mapping[str, int]) -> dict[int, frozenset[int]]:
    """Return mask value -> the labels it allows, from the labels' names.

    "background" and "lung" include every tissue that has no name of its own: in a dataset of
    background and infection, background may be healthy lung; in one of background and lung, lung
    may be infected.

    Args:
        labels: name -> mask value, with the name "background".

    Raises:
        ValueError: a name is unknown, or a value is not from 0 to 255 or has two names.
    """
    names = {name: name.lower().replace("_", " ").replace("-", " ").strip() for name in labels}
    known = {"background", *LUNGS, *NAMES}
    if unknown := [name for name, plain in names.items() if plain not in known]:
        raise ValueError(f"label {unknown[0]!r} is unknown; rename it to one of {sorted(known)}")
    if wrong := [name for name, value in labels.items() if not 0 <= value <= 255]:
        raise ValueError(f"label {wrong[0]!r} has value {labels[wrong[0]]}; give one of 0 to 255")
    named: dict[int, str] = {}
    for name, value in labels.items():
        if (other := named.setdefault(value, name)) != name:
            raise ValueError(f"labels {other!r} and {name!r} have one value, {value}; give two")
    tissues = {name for name in names.values() if name in NAMES and name != "ignore"}
    unnamed = ALL - frozenset().union(*(NAMES[name] for name in tissues)) - {BACKGROUND}
    lung = frozenset({HEALTHY}) | unnamed & INFECTION
    background = frozenset({BACKGROUND}) | unnamed
    if any(name in LUNGS for name in names.values()):
        background -= lung
    return {
        labels[name]: background if plain == "background" else NAMES.get(plain, lung)
        for name, plain in names.items()
    }


def _find(folder: Path) -> Iterator[ScanFiles]:
    path = folder / "dataset.json"
    ending, labels, patients = _description(path)
    try:
        rule = rule_of(labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    images = {}
    for image in files(folder / "imagesTr", (ending.lower(),)):
        if not image.name.endswith(f"_0000{ending}"):
            raise ValueError(f"{image}: an image is called CASE_0000{ending}; rename it")
        images[image.with_name(image.name.removesuffix(f"_0000{ending}") + ending)] = image
    if not images:
        raise FileNotFoundError(f"{folder / 'imagesTr'}: holds no images CASE_0000{ending}")
    labelled = (folder / "labelsTr").is_dir()
    masks = files(folder / "labelsTr", (ending.lower(),)) if labelled else []
    for case, mask in pair(list(images), masks, all_labelled=False):
        name = identity(case.name.removesuffix(ending))
        patient = patients.get(name, name)
        yield ScanFiles(name=name, patient=patient, image=images[case], mask=mask, rule=rule)


def _description(path: Path) -> tuple[str, dict[str, int], dict[str, str]]:
    """Read the file ending, the labels and the patients from ``dataset.json``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; nnU-Net's raw format needs it")
    try:
        described: Any = json.loads(path.read_text(encoding="utf-8"))
        ending, labels = described["file_ending"], described["labels"]
        channels = list(described["channel_names"].values())
        patients = dict(described.get("patients", {}))
        texts = isinstance(ending, str) and all(isinstance(name, str) for name in labels)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: no description of version 2 ({error!r}); it needs channel_names, labels as "
            "name: value, and file_ending"
        ) from error
    if len(channels) != 1:
        raise ValueError(f"{path}: {len(channels)} channels; CT has one, so give a dataset of one")
    if "ct" not in str(channels[0]).lower():
        raise ValueError(f"{path}: the channel {channels[0]!r} is not CT; call it CT if it is")
    if not texts or not isinstance(labels, dict) or labels.get("background") != 0:
        raise ValueError(f"{path}: labels must be names with values, background having 0")
    if regions := [name for name, value in labels.items() if type(value) is not int]:
        raise ValueError(f"{path}: label {regions[0]!r} is a region; give every value one name")
    if re.fullmatch(r"(\.\w+)+", ending) is None:
        raise ValueError(
            f"{path}: file_ending {ending!r} is not an ending; give one such as .nii.gz"
        )
    if wrong := [case for case, whose in patients.items() if not isinstance(whose, str | int)]:
        raise ValueError(f"{path}: the patient of case {wrong[0]!r} is not a name; give one")
    return ending, labels, {identity(case): identity(str(w)) for case, w in patients.items()}


NNUNET = Source(
    name="nnunet",
    title="nnU-Net raw dataset, version 2",
    layout=(
        "dataset.json, imagesTr/CASE_0000.nii.gz, and labelsTr/CASE.nii.gz where labelled (or "
        "another file_ending)"
    ),
    landmarks=("imagesTr",),
    rule={},  # every dataset has its own
    find=_find,
    caution=(
        "The format names cases, not patients, so each case counts as one patient. If a patient "
        "has several, list them in dataset.json, under the key patients: {CASE: PATIENT}."
    ),
)
"""nnU-Net v2's raw layout."""
