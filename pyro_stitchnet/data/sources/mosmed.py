"""MosMedData: 1,110 studies graded CT-0 to CT-4, 50 of them with binary masks of lesions.

The dataset names studies, not patients, so each study counts as one patient.
"""

from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.scans.endings import VOLUME_ENDINGS
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import files, folders, stem
from pyro_stitchnet.labels import BACKGROUND, HEALTHY, LESIONS
from pyro_stitchnet.runtime.text import identity

__all__ = ["MOSMED"]

NO_LESION = frozenset({BACKGROUND, HEALTHY})


def _find(folder: Path) -> Iterator[ScanFiles]:
    grades = [path for path in folders(folder / "studies") if path.name.startswith("CT-")]
    if not grades:
        raise FileNotFoundError(
            f"{folder / 'studies'}: holds no CT-0 to CT-4; unpack MosMedData's archive again"
        )
    masks = _masks(folder / "masks")
    for grade in grades:
        for image in files(grade, VOLUME_ENDINGS):
            name = identity(stem(image))
            mask = masks.pop(name, None)
            yield ScanFiles(
                name=name,
                patient=name,
                image=image,
                mask=mask,
                everywhere=NO_LESION if grade.name == "CT-0" and mask is None else None,
            )
    for mask in masks.values():
        raise FileNotFoundError(f"{mask}: is the mask of no study; unpack studies/ again")


def _masks(folder: Path) -> dict[str, Path]:
    """Return study -> its mask; most studies have none."""
    masks = {}
    for path in files(folder, VOLUME_ENDINGS) if folder.is_dir() else []:
        if not stem(path).endswith("_mask"):
            raise ValueError(f"{path}: a mask is called study_0255_mask.nii.gz; rename it")
        masks[identity(stem(path)).removesuffix("_mask")] = path
    return masks


MOSMED = Source(
    name="mosmed",
    title="MosMedData: chest CT scans with COVID-19 related findings",
    layout="studies/CT-0/study_0001.nii.gz ... studies/CT-4/, masks/study_0255_mask.nii.gz",
    landmarks=("studies/CT-*",),
    rule={0: NO_LESION, 1: frozenset(LESIONS)},
    find=_find,
    caution=(
        "CT-0 (no sign of viral pneumonia) counts as free of lesions, though such a lung need not "
        "be healthy."
    ),
    licence="CC BY-NC-ND 3.0",
    citation=(
        "Morozov et al. MosMedData: chest CT scans with COVID-19 related findings dataset. 2020. "
        "https://doi.org/10.1101/2020.05.20.20100362"
    ),
    homepage="https://mosmed.ai/en/datasets/covid191110",
)
"""MosMedData as unpacked."""
