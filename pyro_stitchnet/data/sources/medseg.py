"""MedSeg's 100 journal images, as a volume or as split for COVID-SemiSeg, and its 9 volumes.

The patients are not published. The images are of more than 40 patients, some of whom have several,
and two of the volumes, from Radiopaedia, may be of one patient. COVID-SemiSeg's ``LungInfection-*``
sets label the images of ``MultiClassInfection-*`` again, more coarsely, and are not read. Its
pseudo-labels were not drawn by a person and are not read either.
"""

from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.sources._table import read_table
from pyro_stitchnet.data.sources.base import Archive, ScanFiles, Source
from pyro_stitchnet.data.sources.paths import files, pair, stem
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.runtime.text import identity

__all__ = ["MEDSEG"]

LABELLED = ("TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test")
UNLABELLED = "TrainingSet/LungInfection-Train/Pseudo-label/Imgs"
IMAGES_DOI = "doi:10.6084/m9.figshare.13521488.v2/"
VOLUMES_DOI = "doi:10.6084/m9.figshare.13521509.v2/"


def _find(folder: Path) -> Iterator[ScanFiles]:
    if (folder / "tr_im.nii.gz").is_file() or (folder / "rp_im").is_dir():
        yield from _volumes(folder)
        return
    root = folder / "Dataset" if (folder / "Dataset").is_dir() else folder
    sets = [root / part for part in LABELLED if (root / part).is_dir()]
    if not sets:
        raise FileNotFoundError(
            f"{folder}: holds neither tr_im.nii.gz nor rp_im nor {' nor '.join(LABELLED)}; unpack "
            "MedSeg's or COVID-SemiSeg's archives into it"
        )
    patients = _patients(folder / "patients.csv")
    for part in sets:
        images, masks = files(part / "Imgs", IMAGE_ENDINGS), files(part / "GT", IMAGE_ENDINGS)
        for image, mask in pair(images, masks, all_labelled=True):
            name = identity(stem(image))
            if patients is not None and name not in patients:
                raise ValueError(
                    f"{folder / 'patients.csv'}: no row for image {name} ({image}); add it"
                )
            yield ScanFiles(
                name=f"{part.name}/{name}",
                patient="unknown" if patients is None else patients[name],
                image=image,
                mask=mask,
            )
    if (root / UNLABELLED).is_dir():
        for image in files(root / UNLABELLED, IMAGE_ENDINGS):
            name = f"unlabelled/{stem(image)}"
            yield ScanFiles(name=name, patient="unknown-unlabelled", image=image)


def _volumes(folder: Path) -> Iterator[ScanFiles]:
    image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
    if image.is_file():
        if not mask.is_file():
            raise FileNotFoundError(f"{mask}: missing, the masks of tr_im.nii.gz; download it too")
        yield ScanFiles(name="tr_im", patient="unknown", image=image, mask=mask, stacked=False)
    if (folder / "rp_im").is_dir():
        volumes = files(folder / "rp_im", VOLUME_ENDINGS)
        masks = files(folder / "rp_msk", VOLUME_ENDINGS)
        for volume, its_mask in pair(volumes, masks, all_labelled=True):
            name = f"rp_im/{stem(volume)}"
            yield ScanFiles(name=name, patient="unknown-volumes", image=volume, mask=its_mask)


def _patients(path: Path) -> dict[str, str] | None:
    """Read the user's table of image -> patient, if there is one."""
    if not path.is_file():
        return None
    table = read_table(path, ("image", "patient"))
    return dict(zip(table["image"], table["patient"], strict=True))


MEDSEG = Source(
    name="medseg",
    title="MedSeg COVID-19 CT segmentation: 100 journal images (or COVID-SemiSeg), 9 volumes",
    layout=(
        "tr_im.nii.gz, tr_mask.nii.gz, rp_im/1.nii.gz, rp_msk/1.nii.gz; or "
        "[Dataset/]TrainingSet/MultiClassInfection-Train/Imgs/0.jpg and .../GT/0.png, "
        "TestingSet/MultiClassInfection-Test/ alike, and patients.csv (image, patient) if "
        "patients are known"
    ),
    landmarks=("tr_im.nii.gz", "rp_im", "TrainingSet", "Dataset/TrainingSet"),
    rule={
        0: frozenset({BACKGROUND, HEALTHY}),
        1: frozenset({GGO}),
        2: frozenset({CONSOLIDATION}),
        3: frozenset({BACKGROUND}),  # pleural effusion
        38: frozenset({GGO}),  # COVID-SemiSeg's red and green, where a copy was saved as grey
        75: frozenset({CONSOLIDATION}),
    },
    find=_find,
    caution=(
        "The patients of these images are not published, so without patients.csv all count as one "
        "patient and cannot be split: train on all of them or test on all of them. COVID-SemiSeg's "
        "own split has the same patients on both sides."
    ),
    licence=(
        "CC0, as published on Figshare. The images come from journals' and societies' web pages, "
        "the volumes from Radiopaedia, whose terms allow non-commercial use with attribution only."
    ),
    citation=(
        "MedSeg, Jenssen, Sakinis. MedSeg Covid Dataset 1 and 2. Figshare, 2021. "
        "https://doi.org/10.6084/m9.figshare.13521488.v2, "
        "https://doi.org/10.6084/m9.figshare.13521509.v2; for the split of COVID-SemiSeg: Fan et "
        "al. Inf-Net: automatic COVID-19 lung infection segmentation from CT images. IEEE TMI "
        "39(8), 2020. https://doi.org/10.1109/TMI.2020.2996645"
    ),
    homepage="https://medicalsegmentation.com/covid19/",
    archives=(
        Archive("tr_im.nii.gz", IMAGES_DOI, megabytes=150),
        Archive("tr_mask.nii.gz", IMAGES_DOI, megabytes=1),
        Archive("rp_im.zip", VOLUMES_DOI, megabytes=310),
        Archive("rp_msk.zip", VOLUMES_DOI, megabytes=1),
    ),
)
"""MedSeg and COVID-SemiSeg as unpacked."""
