"""Labels of a CT series as a DICOM Segmentation, which viewers overlay on the series.

Only the header tags listed in this module are copied from the series: the geometry of the slices,
and their UIDs, because viewers need references to the images to overlay a Segmentation on them.
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
from pyro_stitchnet.labels import COLOURS, CONSOLIDATION, GGO, HEALTHY

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
"""Name, category and type of each segment, from CID 7150, DICOM's chest terms and SNOMED CT."""

COPIED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "Rows", "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "SpecificCharacterSet",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""Tags that are copied from each slice."""

PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Tags that a Segmentation must have; their values are empty unless identifiers are kept."""

REQUIRED = ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient")
"""Tags without which no Segmentation can be written."""


def write_seg(
    path: Path, labels: np.ndarray, files: Sequence[Path], *, scan: str, model: str,
    keep_identifiers: bool,
) -> str:  # fmt: skip
    """Write labels as a DICOM Segmentation.

    Args:
        path: a file to write.
        labels: 0 to 3, uint8 (slices, rows, columns), a slice per file.
        files: the files of the series.
        scan: used as the patient ID.
        model: a description of the model.
        keep_identifiers: whether to copy the patient's data from the series.

    Returns:
        "" on success; otherwise the reason why no file was written: there are no labels, or the
        series lacks a tag of :data:`REQUIRED`.

    Raises:
        OSError: the file cannot be written.
    """
    if not labels.any():
        return "no voxel has a label"
    tags = [*COPIED, *PATIENT]
    with without_warnings():
        heads = [
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags) for file in files
        ]
        for name in REQUIRED:
            if not all(head.get(name) for head in heads):
                return f"the series has no {name}"
        algorithm = hd.AlgorithmIdentificationSequence(
            name="StitchNet",
            family=codes.DCM.ArtificialIntelligence,
            version=version("pyro-stitchnet"),
            parameters={"model": model},
        )
        segmentation = Segmentation(
            source_images=[_reduced(head, scan, keep_identifiers) for head in heads],
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
        segmentation.save_as(path)
    return ""


def _reduced(head: pydicom.Dataset, scan: str, keep_identifiers: bool) -> pydicom.Dataset:
    """A header with only the tags listed in this module."""
    reduced = pydicom.Dataset()
    for name in COPIED:
        if name in head:
            reduced[name] = head[name]
    for name in PATIENT:
        setattr(reduced, name, head.get(name, "") if keep_identifiers else "")
    if not reduced.PatientID:
        reduced.PatientID = scan
    return reduced
