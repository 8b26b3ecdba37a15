"""The cost of `stitchnet predict`."""

import cProfile
import pstats
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from measure import Measurement, Table, Work, peak_memory
from scans import chest, decoded, write_dicom, write_nifti

from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities, segment
from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.training import checkpoint

DECODING, NETWORK, WHOLE = "decode and resize", "network alone", "`stitchnet predict`"


@dataclass
class Predict(Measurement):
    """`stitchnet predict` for one scan of 512 x 512, compared with its network alone.

    The scan is a synthetic chest. The model is that of a preset with random weights, which take as
    long as trained ones, or a checkpoint. Peak memory is that of a process of its own. The command
    fails if the scan was not segmented.
    """

    rounds: int = 3
    slices: int = 100
    size: int = 256  # rows and columns of the model's slices
    preset: str = "guided"
    model: Path | None = None  # a checkpoint instead
    format: Literal["dicom", "nifti"] = "dicom"
    read_out: ReadOut = "posterior"
    samples: int = 1
    batch_size: int = 8
    precision: Precision = "32"
    healthy: bool = False  # also the map of the healthy style
    memory: bool = True
    profile: bool = False  # one more prediction: the functions that take longest

    def run(self) -> None:
        self.print_origin()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.write(folder)
            makers = {DECODING: self.decoding, NETWORK: self.network, WHOLE: self.predicting}
            times = self.time({name: make(folder) for name, make in makers.items()})
            peaks = {n: peak_memory(make, folder) for n, make in makers.items() if self.memory}
            case = f"{self.slices} {self.format} slices, `{self.model or self.preset}`"
            Table(NETWORK, "peak GB" if self.memory else "").add(case, times, peaks)
            if self.profile:
                with cProfile.Profile() as profile:
                    self.predicting(folder)()
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)

    def write(self, folder: Path) -> None:
        """Write the scan, and the model unless there is a checkpoint."""
        hu = chest(self.slices, self.seed)
        (folder / "scans").mkdir()
        if self.format == "nifti":
            write_nifti(hu, folder / "scans/scan.nii.gz", (0.7, 1.25))
        else:
            write_dicom(hu, folder / "scans/scan")
        if self.model is None:
            torch.manual_seed(self.seed)
            net = StitchNet(replace(preset(self.preset).model, weights=None))
            steps = asdict(Preprocessing(size=self.size))
            checkpoint.save(net, folder / "model.pt", dataset={"preprocessing": steps})

    def source(self, folder: Path) -> ModelSource:
        options = ReadOutOptions(
            self.read_out,
            self.samples,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        return ModelSource(self.model or folder / "model.pt", options=options, lungs="classical")

    def decoding(self, folder: Path) -> Work:
        return lambda: sum(1 for _ in decoded(folder / "scans", self.size))

    def network(self, folder: Path) -> Work:
        """The network of all slices, already in memory."""
        segmenter = self.source(folder).load()
        size = segmenter.preprocessing.size
        grey = np.stack(list(decoded(folder / "scans", size)))
        x = torch.from_numpy((grey - grey.min()) / np.ptp(grey)).to(segmenter.device)
        read = segment if self.healthy else probabilities
        return partial(read, segmenter.net, x, segmenter.options)

    def predicting(self, folder: Path) -> Work:
        source = self.source(folder)
        extras = ("scan", "healthy") if self.healthy else ("scan",)

        def work() -> None:
            with tempfile.TemporaryDirectory() as out:
                inputs = list((folder / "scans").iterdir())
                done = predict_scans(
                    inputs, source, Path(out, "out"), workers=0, progress=False, extras=extras
                )
                if done.segmented != 1:
                    raise SystemExit(f"the scan was not segmented: {done.failed}")

        return work
