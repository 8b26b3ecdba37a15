"""Labels of a CT series as a DICOM Segmentation, which viewers lay over the series.

Of the series' headers only what this module lists is taken over: where the slices lie, and which
objects they are, since a Segmentation without references to its images cannot be shown over them.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pyro_stitchnet.data.scans.common import without_warnings
from pyro_stitchnet.figures import COLOURS
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY

__all__ = ["CODES", "write_seg"]

CODES = {
    HEALTHY: ("Lung without lesion", codes.SCT.AnatomicalStructure, codes.SCT.Lung),
    GGO: (
        "Ground-glass opacity",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.DCM.GroundGlassOpacity,
    ),
    CONSOLIDATION: (
        "Consolidation",
        codes.SCT.MorphologicallyAbnormalStructure,
        Code("95436008", "SCT", "Lung consolidation"),
    ),
}
"""Label, category and type of each segment, from CID 7150, DICOM's chest terms and SNOMED CT."""

PLACE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "Rows", "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "SpecificCharacterSet",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""What is taken over of each slice."""

WHOSE = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""What a Segmentation must have, and has empty."""

NEEDED = ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient")


def write_seg(
    path: Path, labels: np.ndarray, files: Sequence[Path], *, scan: str, model: str, keep: bool
) -> str:
    """Write labels as a DICOM Segmentation.

    Args:
        path: a file to write.
        labels: 0 to 3, uint8 (slices, rows, columns), of the files one by one.
        files: of the series.
        scan: stands for the patient's ID.
        model: what made the labels.
        keep: whether to name the patient as the series does.

    Returns:
        Why none was written: the series lacks what a Segmentation refers to, or has no labels; ""
        where it was.

    Raises:
        OSError: it cannot be written.
    """
    if not labels.any():
        return "no voxel has a label"
    tags = [*PLACE, *WHOSE]
    with without_warnings():
        heads = [
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags) for file in files
        ]
        for name in NEEDED:
            if not all(head.get(name) for head in heads):
                return f"the series has no {name}"
        algorithm = hd.AlgorithmIdentificationSequence(
            name="StitchNet",
            family=codes.DCM.ArtificialIntelligence,
            version=version("pyro-stitchnet"),
            parameters={"model": model},
        )
        made = Segmentation(
            source_images=[_reduced(head, scan, keep) for head in heads],
            pixel_array=labels,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[
                SegmentDescription(
                    segment_number=number,
                    segment_label=label,
                    segmented_property_category=category,
                    segmented_property_type=kind,
                    algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                    algorithm_identification=algorithm,
                    anatomic_regions=None if number == HEALTHY else [codes.SCT.Lung],
                    display_color=hd.color.CIELabColor.from_string(COLOURS[number])
                    if number in COLOURS
                    else None,
                    tracking_uid=hd.UID(),
                    tracking_id=f"{label} of {scan}",
                )
                for number, (label, category, kind) in CODES.items()
            ],
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="pyro_stitchnet",
            manufacturer_model_name="StitchNet",
            software_versions=version("pyro-stitchnet"),
            device_serial_number="0",
            content_label="STITCHNET",
            content_description="For research use only",
            series_description="StitchNet: for research use only",
        )
        made.save_as(path)
    return ""


def _reduced(head: pydicom.Dataset, scan: str, keep: bool) -> pydicom.Dataset:
    """A header with nothing but what is listed in this module."""
    reduced = pydicom.Dataset()
    for name in PLACE:
        if name in head:
            reduced[name] = head[name]
    for name in WHOSE:
        setattr(reduced, name, head.get(name, "") if keep else "")
    if not reduced.PatientID:
        reduced.PatientID = scan
    return reduced
