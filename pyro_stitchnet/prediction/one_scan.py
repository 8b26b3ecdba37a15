"""One scan from its files to a folder of results: what a worker does at a time."""

import errno
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_stitchnet.data.scans.nifti import write_nifti
from pyro_stitchnet.data.scans.privacy import without_identifiers
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.scans.volume import from_axial
from pyro_stitchnet.prediction.inputs import Input
from pyro_stitchnet.prediction.maps import ENCODINGS, make_maps
from pyro_stitchnet.prediction.scan_report import REPORT, SLICES, make_report, slices_table
from pyro_stitchnet.prediction.segmenter import Options, Segmenter, load
from pyro_stitchnet.runtime.files import naming, write_atomically

__all__ = ["MAPS", "Model", "Outcome", "ScanUnit", "keep_loaded", "loaded"]

MAPS = ("labels", "lesion_probability", "uncertainty")
"""Maps that every scan gets."""

SEG = "segmentation.dcm"

# Nothing that the next scan would not meet, too.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Model:
    """What each worker loads once.

    Attributes:
        path: the checkpoint.
        device: where it goes.
        options: how it is asked.
        lungs: as for :func:`~pyro_stitchnet.prediction.segmenter.load`.
        size: likewise.
        digest: what the checkpoint must be; a worker that lives long would go on with an older one
            of the same path.
    """

    path: Path
    device: str = "auto"
    options: Options | None = None
    lungs: str | None = None
    size: int | None = None
    digest: str = ""

    def load(self) -> Segmenter:
        """The model; errors are those of `load`."""
        made = load(
            self.path, device=self.device, options=self.options, lungs=self.lungs, size=self.size
        )
        if self.digest not in ("", made.digest):
            raise ValueError(f"{self.path}: has changed meanwhile; run the same command again")
        return made


@dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        scan: its name.
        source: its file or folder, as far as it may be told.
        reason: why it failed; "" where it did not.
    """

    scan: str
    source: str
    reason: str = ""


@dataclass(frozen=True)
class ScanUnit:
    """A scan to segment.

    Attributes:
        given: its files.
        scan: its name.
        out: folder of all results.
        model: the model.
        extras: maps beside :data:`MAPS`: "scan", "healthy".
        seg: whether DICOM input gets a DICOM SEG.
        keep: whether results may hold what identifies the patient.
        threads: for the model; None leaves them as they are.
    """

    given: Input
    scan: str
    out: Path
    model: Model
    extras: tuple[str, ...] = ()
    seg: bool = True
    keep: bool = False
    threads: int | None = None

    def __call__(self) -> Outcome:
        """Segment it; what is wrong with it is returned, not raised.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        if (self.out / self.scan / REPORT).exists():  # done by a worker that then died
            return Outcome(self.scan, self._said(str(self.given.path)))
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        segmenter = loaded(self.model)
        try:
            self._segment(segmenter)
        except Exception as error:  # a folder of thousands goes on after any bad scan
            if isinstance(error, OSError) and error.errno in FATAL:
                raise
            return self.failed(str(error) or type(error).__name__)
        return Outcome(self.scan, self._said(str(self.given.path)))

    def failed(self, reason: str) -> Outcome:
        """The outcome of a scan that cannot be segmented."""
        return Outcome(self.scan, self._said(str(self.given.path)), self._said(reason))

    def _said(self, text: str) -> str:
        return text if self.keep else without_identifiers(text, self.given.identifiers)

    def _segment(self, segmenter: Segmenter) -> None:
        final = self.out / self.scan
        temporary = self.out / f".{self.scan}.{secrets.token_hex(4)}.tmp"
        work = temporary / "work"
        try:
            with naming(self.out):
                work.mkdir(parents=True)
                stack = read_stack(self.given.path, work / "slices.raw", series=self.given.series)
                totals, spools = make_maps(segmenter, stack, work, names=(*MAPS, *self.extras))
                files = {name: f"{name}.nii.gz" for name in spools}
                for name, spool in spools.items():
                    write_nifti(temporary / files[name], spool, ENCODINGS[name], stack.affine)
                report = make_report(
                    self.scan, self._said(self.given.path.name), self.given.key, segmenter, stack,
                    totals, files,
                )  # fmt: skip
                if self.seg and stack.files:
                    self._write_seg(temporary / SEG, spools["labels"], stack, report)
                shutil.rmtree(work)
                slices = slices_table(stack, totals).to_csv(index=False)
                write_atomically(temporary / SLICES, slices)
                write_atomically(temporary / REPORT, json.dumps(report, indent=2) + "\n")
                if not (final / REPORT).exists():  # else another worker had the same scan
                    temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_seg(self, path: Path, spool: Spool, stack: Stack, report: dict[str, Any]) -> None:
        """The labels as DICOM; tells the report."""
        from pyro_stitchnet.prediction.dicom_seg import write_seg  # highdicom takes a second

        labels = np.ascontiguousarray(from_axial(spool.mapped(), stack.affine).T)
        try:
            said = write_seg(
                path, labels, stack.files, scan=self.scan, model=report["model"], keep=self.keep
            )
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            # What highdicom says of a strange series; its labels are good all the same.
            said = self._said(f"highdicom refuses the series ({error})")
            path.unlink(missing_ok=True)
        if said:
            report["warnings"].append(f"No DICOM SEG: {said}.")
        else:
            report["files"]["segmentation"] = SEG


_kept: dict[Model, Segmenter] = {}  # the last, in each process


def loaded(model: Model) -> Segmenter:
    """The model, loaded once in each process."""
    if model not in _kept:
        keep_loaded(model, model.load())
    return _kept[model]


def keep_loaded(model: Model, segmenter: Segmenter) -> None:
    """Have :func:`loaded` give this one."""
    _kept.clear()
    _kept[model] = segmenter
