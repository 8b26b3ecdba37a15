"""One scan, from its files to a folder of results: the unit of work of a worker process."""

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
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.prediction.inputs import ScanInput
from pyro_stitchnet.prediction.maps import ENCODINGS, make_maps
from pyro_stitchnet.prediction.output_files import MAPS, REPORT, SEG, SLICES, map_file
from pyro_stitchnet.prediction.scan_report import make_report, slices_table
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter
from pyro_stitchnet.runtime.files import naming, write_atomically

__all__ = ["ModelSource", "Outcome", "ScanUnit", "cache_model", "cached_model"]

# Errors that every further scan would meet too.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint and how to load it; each worker loads it once.

    Attributes:
        path: the checkpoint.
        device: "auto" uses a GPU if there is one.
        options: read-out options.
        lungs: as for :func:`pyro_stitchnet.load`.
        size: as for :func:`pyro_stitchnet.load`.
        digest: expected SHA-256 of the checkpoint; "" accepts any. It keeps a long-lived worker
            from using an older checkpoint of the same path.
    """

    path: Path
    device: str = "auto"
    options: ReadOutOptions | None = None
    lungs: str | None = None
    size: int | None = None
    digest: str = ""

    def load(self) -> SliceSegmenter:
        """Load the model.

        Raises:
            ValueError: the checkpoint is not that of ``digest``; and the errors of
                :func:`pyro_stitchnet.load`.
        """
        segmenter = SliceSegmenter.from_checkpoint(
            self.path, device=self.device, options=self.options, lungs=self.lungs, size=self.size
        )
        if self.digest not in ("", segmenter.digest):
            raise ValueError(f"{self.path}: changed during the run; run the same command again")
        return segmenter


@dataclass(frozen=True)
class Outcome:
    """Success or failure of a scan.

    Attributes:
        scan: its name.
        source: its file or folder, without identifiers unless they are kept.
        reason: why it failed; "" on success.
    """

    scan: str
    source: str
    reason: str = ""


@dataclass(frozen=True)
class ScanUnit:
    """A scan to segment.

    Attributes:
        scan_input: its files.
        scan: its name.
        out: the results folder.
        model: the model.
        extras: optional maps to write: "scan", "healthy".
        seg: whether to write a DICOM SEG for DICOM input.
        keep_identifiers: whether results may identify the patient.
        threads: of torch, in this process; None leaves the number unchanged.
    """

    scan_input: ScanInput
    scan: str
    out: Path
    model: ModelSource
    extras: tuple[str, ...] = ()
    seg: bool = True
    keep_identifiers: bool = False
    threads: int | None = None

    def __call__(self) -> Outcome:
        """Segment the scan. An error of this scan is returned as the outcome's reason.

        Raises:
            OSError: the disk is full or read-only.
        """
        if (self.out / self.scan / REPORT).exists():  # finished by a worker that died afterwards
            return self._outcome()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        segmenter = cached_model(self.model)
        try:
            self._segment(segmenter)
        except Exception as error:  # one bad scan must not stop a folder of thousands
            if isinstance(error, OSError) and error.errno in FATAL:
                raise
            return self.failed(str(error) or type(error).__name__)
        return self._outcome()

    def failed(self, reason: str) -> Outcome:
        """The outcome of a scan that cannot be segmented."""
        return self._outcome(self._without_identifiers(reason))

    def _outcome(self, reason: str = "") -> Outcome:
        return Outcome(self.scan, self._without_identifiers(str(self.scan_input.path)), reason)

    def _without_identifiers(self, text: str) -> str:
        """The text, with identifiers removed unless they are to be kept."""
        if self.keep_identifiers:
            return text
        return without_identifiers(text, self.scan_input.identifiers)

    def _segment(self, segmenter: SliceSegmenter) -> None:
        final = self.out / self.scan
        temporary = self.out / f".{self.scan}.{secrets.token_hex(4)}.tmp"
        work = temporary / "work"
        try:
            with naming(self.out):
                work.mkdir(parents=True)
                stack = read_stack(
                    self.scan_input.path, work / "slices.raw", series=self.scan_input.series
                )
                totals, spools = make_maps(segmenter, stack, work, names=(*MAPS, *self.extras))
                files = {name: map_file(name) for name in spools}
                for name, spool in spools.items():
                    write_nifti(temporary / files[name], spool, ENCODINGS[name], stack.affine)
                source = self._without_identifiers(self.scan_input.path.name)
                report = make_report(
                    self.scan, source, self.scan_input.key, segmenter, stack, totals, files
                )
                if self.seg and stack.files:
                    self._write_seg(temporary / SEG, spools["labels"], stack, report)
                shutil.rmtree(work)
                slices = slices_table(stack, totals).to_csv(index=False)
                write_atomically(temporary / SLICES, slices)
                write_atomically(temporary / REPORT, json.dumps(report, indent=2) + "\n")
                if not (final / REPORT).exists():  # another worker may have finished the same scan
                    temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_seg(self, path: Path, spool: Spool, stack: Stack, report: dict[str, Any]) -> None:
        """Write the labels as DICOM and add the file, or a warning, to the report."""
        from pyro_stitchnet.prediction.dicom_seg import write_seg  # importing highdicom takes 1 s

        labels = np.ascontiguousarray(from_axial(spool.mapped(), stack.affine).T)
        try:
            problem = write_seg(
                path, labels, stack.files, scan=self.scan, model=report["model"],
                keep_identifiers=self.keep_identifiers,
            )  # fmt: skip
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            # highdicom rejects unusual series; the other results are still valid.
            problem = self._without_identifiers(f"highdicom rejects the series ({error})")
            path.unlink(missing_ok=True)
        if problem:
            report["warnings"].append(f"No DICOM SEG: {problem}.")
        else:
            report["files"]["segmentation"] = SEG


_cache: dict[ModelSource, SliceSegmenter] = {}  # the last model of this process


def cached_model(model: ModelSource) -> SliceSegmenter:
    """The model, loaded once per process."""
    if model not in _cache:
        cache_model(model, model.load())
    return _cache[model]


def cache_model(model: ModelSource, segmenter: SliceSegmenter) -> None:
    """Make :func:`cached_model` return this model, in place of the last one."""
    _cache.clear()
    _cache[model] = segmenter
