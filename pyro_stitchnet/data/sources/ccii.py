"""CC-CCII, the article's dataset: scans as image files, and 750 labelled slices.

Common pneumonia (``CP/``) is left out, as in the article. Normal scans are controls: no lesion
anywhere. Layout and mask values follow descriptions by users of the dataset. Its pages do not state
whether slices are numbered from the head or from the feet.
"""

from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import files, folders, pair, stem
from pyro_stitchnet.labels import BACKGROUND, HEALTHY, LABEL_RULES
from pyro_stitchnet.runtime.text import identity

__all__ = ["CCII"]


def _find(folder: Path) -> Iterator[ScanFiles]:
    parts = [part for part in ("NCP", "Normal", "ct_lesion_seg") if (folder / part).is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{folder}: holds neither NCP/ nor Normal/ nor ct_lesion_seg/; unpack CC-CCII's "
            "archives into it"
        )
    for part in parts:
        yield from (_lesions if part == "ct_lesion_seg" else _scans)(folder / part)


def _scans(folder: Path) -> Iterator[ScanFiles]:
    """Yield the scans of ``NCP/`` or ``Normal/``."""
    control = frozenset({BACKGROUND, HEALTHY}) if folder.name == "Normal" else None
    for patient in folders(folder, besides=IMAGE_ENDINGS):
        for scan in folders(patient, besides=IMAGE_ENDINGS):
            images = tuple(files(scan, IMAGE_ENDINGS))
            if not images:
                raise FileNotFoundError(
                    f"{scan}: holds no images; unpack the scan again or remove its folder"
                )
            yield ScanFiles(
                name=f"{folder.name}/{patient.name}/{scan.name}",
                patient=f"{folder.name}-{patient.name}",
                image=images,
                study=scan.name,
                everywhere=control,
            )


def _lesions(folder: Path) -> Iterator[ScanFiles]:
    """Yield the labelled slices, each as a scan: they are not neighbours in the patient."""
    with_images = folders(folder / "image", besides=IMAGE_ENDINGS)
    with_masks = {
        identity(path.name): path for path in folders(folder / "mask", besides=IMAGE_ENDINGS)
    }
    if unpaired := sorted(set(with_masks) - {identity(path.name) for path in with_images}):
        raise FileNotFoundError(
            f"{folder / 'image' / unpaired[0]}: missing, though there are masks of it; unpack "
            "ct_lesion_seg again"
        )
    for patient in with_images:
        masks = files(
            with_masks.get(identity(patient.name), folder / "mask" / patient.name), IMAGE_ENDINGS
        )
        for image, mask in pair(files(patient, IMAGE_ENDINGS), masks, all_labelled=True):
            yield ScanFiles(
                name=f"{folder.name}/{patient.name}/{stem(image)}",
                # If the numbers here and in NCP/ are unrelated, two patients stay in one part of a
                # split, which is harmless. One patient with two names would leak.
                patient=f"NCP-{patient.name}",
                image=image,
                mask=mask,
            )


CCII = Source(
    name="ccii",
    title="CC-CCII (2019nCoVR): COVID-19, common pneumonia and normal chest CT",
    layout=(
        "NCP/<patient>/<scan>/0001.jpg, Normal/<patient>/<scan>/0001.jpg, "
        "ct_lesion_seg/image/<patient>/1.jpg, ct_lesion_seg/mask/<patient>/1.png"
    ),
    landmarks=("NCP", "Normal", "ct_lesion_seg"),
    rule=LABEL_RULES["full"],
    find=_find,
    caution=(
        "Patients of ct_lesion_seg are assumed to have the same numbers as in NCP. If they do not, "
        "a labelled slice may also lie, unlabelled, in another part of the split: check for "
        "near-duplicates before reporting results."
    ),
    licence="for research, on the terms of the China National Center for Bioinformation",
    citation=(
        "Zhang et al. Clinically applicable AI system for accurate diagnosis, quantitative "
        "measurements, and prognosis of COVID-19 pneumonia using computed tomography. "
        "Cell 181(6), 2020. https://doi.org/10.1016/j.cell.2020.04.045"
    ),
    homepage="http://ncov-ai.big.ac.cn/download",
)
"""CC-CCII as unpacked."""
