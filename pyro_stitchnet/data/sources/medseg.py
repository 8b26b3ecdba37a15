"""MedSeg's 100 journal pictures, as a volume or as split for COVID-SemiSeg, and its 9 volumes.

None tells whose they are: the pictures are of more than 40 patients, some of them several times,
and of the volumes, from Radiopaedia, two may be of one patient. COVID-SemiSeg's ``LungInfection-*``
sets label the pictures of ``MultiClassInfection-*`` once more, less finely, and are not read, nor
are its pseudo-labels, which no person drew.
"""

from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.sources._table import read_table
from pyro_stitchnet.data.sources.base import Scan, Source
from pyro_stitchnet.data.sources.paths import MEDICAL, PICTURES, files, pair, stem
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY

__all__ = ["MEDSEG"]

LABELLED = ("TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test")
UNLABELLED = "TrainingSet/LungInfection-Train/Pseudo-label/Imgs"


def _find(folder: Path) -> Iterator[Scan]:
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
        pictures, masks = files(part / "Imgs", PICTURES), files(part / "GT", PICTURES)
        for image, mask in pair(pictures, masks, all_labelled=True):
            if patients is not None and stem(image) not in patients:
                raise ValueError(
                    f"{folder / 'patients.csv'}: no row for picture {stem(image)} ({image}); add it"
                )
            yield Scan(
                name=f"{part.name}/{stem(image)}",
                patient="unknown" if patients is None else patients[stem(image)],
                image=image,
                mask=mask,
            )
    if (root / UNLABELLED).is_dir():
        for image in files(root / UNLABELLED, PICTURES):
            yield Scan(name=f"unlabelled/{stem(image)}", patient="unknown-unlabelled", image=image)


def _volumes(folder: Path) -> Iterator[Scan]:
    image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
    if image.is_file():
        if not mask.is_file():
            raise FileNotFoundError(f"{mask}: missing, the masks of tr_im.nii.gz; download it too")
        yield Scan(name="tr_im", patient="unknown", image=image, mask=mask, stacked=False)
    if (folder / "rp_im").is_dir():
        images, masks = files(folder / "rp_im", MEDICAL), files(folder / "rp_msk", MEDICAL)
        for image, found in pair(images, masks, all_labelled=True):
            yield Scan(
                name=f"rp_im/{stem(image)}", patient="unknown-volumes", image=image, mask=found
            )


def _patients(path: Path) -> dict[str, str] | None:
    """Picture -> patient, if the user has told them."""
    if not path.is_file():
        return None
    table = read_table(path, ("picture", "patient"))
    return dict(zip(table["picture"], table["patient"], strict=True))


MEDSEG = Source(
    name="medseg",
    title="MedSeg COVID-19 CT segmentation: 100 journal pictures (or COVID-SemiSeg), 9 volumes",
    layout=(
        "tr_im.nii.gz, tr_mask.nii.gz, rp_im/1.nii.gz, rp_msk/1.nii.gz; or "
        "[Dataset/]TrainingSet/MultiClassInfection-Train/Imgs/0.jpg and .../GT/0.png, "
        "TestingSet/MultiClassInfection-Test/ alike, and patients.csv (picture, patient) if "
        "patients are known"
    ),
    landmarks=("tr_im.nii.gz", "rp_im", "TrainingSet", "Dataset/TrainingSet"),
    meanings={
        0: frozenset({BACKGROUND, HEALTHY}),
        1: frozenset({GGO}),
        2: frozenset({CONSOLIDATION}),
        3: frozenset({BACKGROUND}),  # pleural effusion
        38: frozenset({GGO}),  # COVID-SemiSeg's red and green, where a copy was saved as grey
        75: frozenset({CONSOLIDATION}),
    },
    find=_find,
    caution=(
        "Whose pictures these are is not published, so without patients.csv all are one patient "
        "and cannot be split: train on all of them or test on all of them. COVID-SemiSeg's own "
        "split has the same patients on both sides."
    ),
    licence="for non-commercial use with attribution; see the homepage",
    citation=(
        "MedSeg, COVID-19 CT segmentation dataset, 2020; split: Fan et al. Inf-Net: automatic "
        "COVID-19 lung infection segmentation from CT images. IEEE TMI 39(8), 2020. "
        "https://doi.org/10.1109/TMI.2020.2996645"
    ),
    homepage="https://medicalsegmentation.com/covid19/",
)
"""MedSeg and COVID-SemiSeg as unpacked."""
