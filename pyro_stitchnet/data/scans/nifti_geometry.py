"""The geometry of a NIfTI file: one affine in mm, and a copy of what the header states.

A header can state the position of the voxels three times: by the sform, an affine; by the qform, a
rotation and the voxels' sizes; and by the sizes alone, without orientation. The rule is nibabel's.
The sform is used if it has a code and is a valid affine, else the qform on the same conditions,
else the sizes, with the first axis to the patient's left, the second to the front and the third to
the head. Other programs have other rules. So a header whose forms differ, or that has none, is read
with a warning. Maps of the scan copy the header's geometry, so every program shows a map on top of
the scan.
"""

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from pyro_stitchnet.data.scans.volume import FLATTEST

__all__ = ["SAME_PLACE", "NiftiGeometry", "distance", "repeat_geometry"]

SAME_PLACE = 0.1
"""Two affines differ if they put a voxel further apart, in voxels."""

UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in the units of NIfTI: unknown, metre, millimetre, micron."""

CODES = range(1, 6)
"""Codes that say what a form is relative to; 0 means that there is no such form."""

QUATERNION = ("quatern_b", "quatern_c", "quatern_d")

FIELDS = (
    *("pixdim", "qform_code", "sform_code", *QUATERNION),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""The fields of a header that state the geometry, besides the unit."""


@dataclass(frozen=True)
class NiftiGeometry:
    """The position of the voxels that a header states.

    Attributes:
        affine: by the rule, RAS+, mm, (4, 4).
        others: the affines that other programs may take instead, mm.
        spaced: whether the file states the distances between voxels; if not, they are 1.
        warnings: doubts, in sentences.
        block: a header with this geometry and nothing else, see :func:`repeat_geometry`.
    """

    affine: np.ndarray
    others: tuple[np.ndarray, ...]
    spaced: bool
    warnings: tuple[str, ...]
    block: bytes

    @classmethod
    def of(cls, header: nib.Nifti1Header) -> "NiftiGeometry":
        """Read the geometry of a header, of NIfTI-1 or NIfTI-2.

        Raises:
            ValueError: the header's unit of length does not exist.
        """
        unit = int(header["xyzt_units"]) & 7
        if unit not in UNITS:
            raise ValueError(f"its unit of length has the code {unit}, which does not exist")
        to_mm = np.diag([UNITS[unit]] * 3 + [1.0])
        shape = (*header.get_data_shape(), 1, 1)[:3]
        sform, qform = _sform(header), _qform(header, shape)
        stated = [form for form in (sform, qform) if form is not None]
        warnings = list(_warnings(header, sform, qform, shape))
        spaced = True
        if stated:
            affine, *others = stated
            others = [form for form in others if distance(affine, form, shape) > SAME_PLACE]
        else:
            sizes = _sizes(header, shape)
            spaced = bool(np.isfinite(sizes).all() and sizes.all())
            if not spaced:
                sizes, to_mm = np.ones(3), np.eye(4)
            left, front, head = sizes
            affine = np.diag([-left, front, head, 1.0])
            affine[:3, 3] = affine[:3, :3] @ (1 - np.array(shape)) / 2
            others = [np.diag([-left, -front, head, 1.0])]  # ITK's
        return cls(
            to_mm @ affine,
            tuple(to_mm @ form for form in others),
            spaced,
            tuple(warnings),
            _copied(header, nib.Nifti1Header(), shape).binaryblock,
        )

    @classmethod
    def from_block(cls, block: bytes) -> "NiftiGeometry":
        """Read a ``block``."""
        return cls.of(nib.Nifti1Header(block, check=False))


def repeat_geometry(block: bytes, header: nib.Nifti1Header) -> None:
    """Copy the geometry of a ``block`` to a header: both forms, codes and unit."""
    _copied(nib.Nifti1Header(block, check=False), header, header.get_data_shape())


def distance(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance of a voxel's two positions, in voxels of the first affine."""
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
    with np.errstate(all="ignore"):
        apart = np.abs(apply_affine(np.linalg.inv(one) @ other, corners) - corners).max()
    return float(apart) if np.isfinite(apart) else np.inf


def _copied(
    source: nib.Nifti1Header, to: nib.Nifti1Header, shape: tuple[int, ...]
) -> nib.Nifti1Header:
    to.set_data_shape(shape)
    for name in FIELDS:
        with np.errstate(over="ignore"):  # the numbers of NIfTI-2 are longer
            to[name] = source[name].astype(to[name].dtype)
    to["xyzt_units"] = source["xyzt_units"] & 7
    return to


def _sform(header: nib.Nifti1Header) -> np.ndarray | None:
    """Return the sform in the file's unit; None if it has no code or is no valid affine."""
    affine: np.ndarray = header.get_sform()
    return affine if int(header["sform_code"]) in CODES and _valid(affine) else None


def _qform(header: nib.Nifti1Header, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the qform in the file's unit; None if it has no code or is no valid affine."""
    if int(header["qform_code"]) not in CODES:
        return None
    copy = header.copy()
    copy["pixdim"][1:4] = _sizes(header, shape)
    copy["pixdim"][0] = -1 if copy["pixdim"][0] == -1 else 1  # 0 means 1
    length = math.hypot(*(float(copy[name]) for name in QUATERNION))
    if 1 < length < 1.001:  # rounded numbers, which nibabel refuses and other programs correct
        for name in QUATERNION:
            copy[name] /= length
    try:
        with np.errstate(all="ignore"):
            affine: np.ndarray = copy.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError):  # not a rotation
        return None
    return affine if _valid(affine) else None


def _sizes(header: nib.Nifti1Header, shape: tuple[int, ...]) -> np.ndarray:
    """Return the voxels' sizes in the file's unit; 1 mm for a missing one of a single slice."""
    sizes: np.ndarray = np.abs(header["pixdim"][1:4].astype(float))
    sizes[(sizes == 0) & (np.array(shape) == 1)] = 1 / UNITS[int(header["xyzt_units"]) & 7]
    return sizes


def _valid(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all():
        return False
    with np.errstate(all="ignore"):
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        return bool(sizes.all() and abs(np.linalg.det(affine[:3, :3] / sizes)) > FLATTEST)


def _warnings(
    header: nib.Nifti1Header,
    sform: np.ndarray | None,
    qform: np.ndarray | None,
    shape: tuple[int, ...],
) -> list[str]:
    """Return doubts about a header's forms."""
    found = []
    for name, form, other in (("sform", sform, qform), ("qform", qform, sform)):
        if header[f"{name}_code"] and form is None and other is not None:
            used = "sform" if name == "qform" else "qform"
            found.append(f"The {name} of the NIfTI header is invalid: the {used} is used.")
    if sform is None and qform is None:
        found.append(
            "The NIfTI header states no orientation (no valid sform or qform): left and right, and "
            "front and back, are guesses."
        )
    elif sform is not None and qform is not None and distance(sform, qform, shape) > SAME_PLACE:
        differ = ""
        if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
            differ += ", one mirrors the other: left and right may be exchanged"
        if not np.allclose(voxel_sizes(sform), voxel_sizes(qform), rtol=0.01):
            differ += ", the voxels' sizes too: volumes may be wrong"
        found.append(
            f"The sform and the qform of the NIfTI header differ{differ}; the sform is used, other "
            "programs may use the qform."
        )
    elif sform is not None and qform is None:
        sizes = voxel_sizes(sform)
        many = np.array(shape) > 1
        if not np.allclose(sizes[many], _sizes(header, shape)[many], rtol=0.01, atol=0):
            found.append(
                "The sform and the voxel sizes (pixdim) of the NIfTI header differ; the sform is "
                "used, other programs may use the sizes."
            )
    return found
