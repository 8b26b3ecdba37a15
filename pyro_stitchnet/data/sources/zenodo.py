"""Zenodo 3757476: 20 volumes with lungs and infection, from Coronacases and Radiopaedia.

An image and its mask have the same name. The archives ``Lung_Mask.zip`` and ``Infection_Mask.zip``
hold parts of ``Lung_and_Infection_Mask.zip`` and are not needed.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.scans.endings import VOLUME_ENDINGS
from pyro_stitchnet.data.sources.base import Archive, ScanFiles, Source
from pyro_stitchnet.data.sources.paths import files, pair, stem
from pyro_stitchnet.labels import BACKGROUND, HEALTHY, LESIONS

__all__ = ["ZENODO"]

IMAGES, MASKS = "COVID-19-CT-Seg_20cases", "Lung_and_Infection_Mask"
DOI = "doi:10.5281/zenodo.3757476/"
RADIOPAEDIA = re.compile(r"(?P<patient>radiopaedia_\d+)_(?P<study>\d+)_\d+")


def _find(folder: Path) -> Iterator[ScanFiles]:
    images, masks = files(folder / IMAGES, VOLUME_ENDINGS), files(folder / MASKS, VOLUME_ENDINGS)
    for image, mask in pair(images, masks, all_labelled=True):
        name = stem(image)
        # A Radiopaedia case is one patient: cases 10 and 29 have two volumes each.
        case = RADIOPAEDIA.fullmatch(name)
        yield ScanFiles(
            name=name,
            patient=case["patient"] if case else name,
            image=image,
            mask=mask,
            study=case["study"] if case else "",
        )


ZENODO = Source(
    name="zenodo",
    title="COVID-19 CT Lung and Infection Segmentation Dataset (Zenodo 3757476)",
    layout=f"{IMAGES}/coronacases_001.nii.gz, {MASKS}/coronacases_001.nii.gz",
    landmarks=(IMAGES,),
    rule={
        0: frozenset({BACKGROUND}),
        1: frozenset({HEALTHY}),  # left lung
        2: frozenset({HEALTHY}),  # right lung
        3: frozenset(LESIONS),  # infection
    },
    find=_find,
    caution=(
        "The Radiopaedia volumes hold grey values of a lung window instead of Hounsfield units."
    ),
    licence=(
        "CC BY 4.0, as published on Zenodo. The scans come from Coronacases and Radiopaedia, whose "
        "terms allow non-commercial use only."
    ),
    citation=(
        "Ma et al. COVID-19 CT Lung and Infection Segmentation Dataset, version 1.0. Zenodo, 2020. "
        "https://doi.org/10.5281/zenodo.3757476; Ma et al. Toward data-efficient learning: a "
        "benchmark for COVID-19 CT lung and infection segmentation. Medical Physics 48(3), 2021. "
        "https://doi.org/10.1002/mp.14676"
    ),
    homepage="https://zenodo.org/records/3757476",
    archives=(
        Archive(f"{IMAGES}.zip", DOI, megabytes=1100),
        Archive(f"{MASKS}.zip", DOI, megabytes=15),
    ),
)
"""Zenodo 3757476 as unpacked."""
