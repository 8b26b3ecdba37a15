"""One scan, from its files to a folder of results: the unit of work of a worker process."""

import errno
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_stitchnet.data.preprocessing.steps import LungMethod
from pyro_stitchnet.data.scans.nifti import write_nifti
from pyro_stitchnet.data.scans.not_scans import read_scan
from pyro_stitchnet.data.scans.privacy import identifiers, without_identifiers, without_paths
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.volume import from_axial
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.prediction.inputs import ScanInput
from pyro_stitchnet.prediction.maps import ENCODINGS, make_maps
from pyro_stitchnet.prediction.output_files import (
    CHECKSUMS,
    MAPS,
    PLAN,
    REPORT,
    SEG,
    SLICES,
    map_file,
)
from pyro_stitchnet.prediction.scan_report import make_report, slices_table
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter
from pyro_stitchnet.runtime.checksums import sha256, write_json
from pyro_stitchnet.runtime.files import naming, temporary_path, write_atomically
from pyro_stitchnet.runtime.text import csv_text, escaped

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
    lungs: LungMethod | None = None
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
        reason: why it failed, for the terminal; "" on success.
        written: the same for the results, without identifiers unless they are kept.
    """

    scan: str
    reason: str = ""
    written: str = ""


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
            OSError: the disk is full or read-only, or the results folder is gone.
        """
        with _one_at_a_time:
            return self._outcome()

    def _outcome(self) -> Outcome:
        if (self.out / self.scan / REPORT).exists():  # finished by a worker that died afterwards
            return Outcome(self.scan)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        segmenter = cached_model(self.model)
        try:
            self._segment(segmenter)
        except Exception as error:  # one bad scan must not stop a folder of thousands
            if isinstance(error, OSError) and error.errno in FATAL:
                raise
            check_still_there(self.out)
            return self.failed(str(error) or type(error).__name__)
        return Outcome(self.scan)

    def failed(self, reason: str) -> Outcome:
        """The outcome of a scan that cannot be segmented."""
        return Outcome(self.scan, reason, self._anonymous(reason))

    def _anonymous(self, text: str) -> str:
        """The text for the results, without identifiers unless they are to be kept."""
        if self.keep_identifiers:
            return escaped(text)
        path, files = self.scan_input.path, []
        folders = self.scan_input.folders or (path,)
        with suppress(OSError):  # then there is nothing to read identifiers from
            files = sorted(f for folder in folders for f in folder.iterdir() if f.is_file())
        text = without_paths(text, self.scan, path, files)
        return escaped(without_identifiers(text, identifiers(files or [path])))

    def _segment(self, segmenter: SliceSegmenter) -> None:
        final = self.out / self.scan
        temporary = temporary_path(self.out / self.scan)
        work = temporary / "work"
        image = self.scan_input.image
        try:
            with naming(self.out):
                temporary.mkdir()
                work.mkdir()
                stack = read_scan(image, work / "slices.raw", series=self.scan_input.series)
                totals, spools = make_maps(segmenter, stack, work, names=(*MAPS, *self.extras))
                files = {name: map_file(name) for name in spools}
                for name, spool in spools.items():
                    write_nifti(
                        temporary / files[name], spool, ENCODINGS[name], stack.affine, stack.nifti
                    )
                report = make_report(self.scan, segmenter, stack, totals, files)
                if self.keep_identifiers:
                    report["source"] = escaped(str(self.scan_input.path))
                if self.seg and stack.files:
                    self._write_seg(temporary / SEG, spools["labels"], stack, report)
                shutil.rmtree(work)
                write_atomically(temporary / SLICES, csv_text(slices_table(stack, totals)))
                report[CHECKSUMS] = {f.name: sha256(f) for f in sorted(temporary.iterdir())}
                write_json(temporary / REPORT, report)
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
            problem = self._anonymous(f"highdicom rejects the series ({error})")
            path.unlink(missing_ok=True)
        if problem:
            report["warnings"].append(f"No DICOM SEG: {problem}.")
        else:
            report["files"]["segmentation"] = SEG


def check_still_there(out: Path) -> None:
    """Stop a run whose results folder was removed.

    Raises:
        FileNotFoundError: the folder was removed.
    """
    if not (out / PLAN).is_file():
        raise FileNotFoundError(
            f"{out}: was removed while results were written to it; run the same command again"
        )


_one_at_a_time = threading.Lock()  # a dask worker has threads; a model and Pyro's state are shared

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
