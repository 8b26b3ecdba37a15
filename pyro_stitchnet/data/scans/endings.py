"""Endings of the files that hold scans, in lower case."""

__all__ = ["IMAGE_ENDINGS", "NIFTI_ENDINGS", "VOLUME_ENDINGS"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
"""Image files: one slice each."""

NIFTI_ENDINGS = (".nii", ".nii.gz")
"""NIfTI."""

VOLUME_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".nhdr", ".mha", ".mhd")
"""Volumes with spacing and orientation: NIfTI, NRRD and MetaImage."""
