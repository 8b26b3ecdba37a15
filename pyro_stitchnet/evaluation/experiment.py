"""A training run with its figures, its TensorBoard log and its evaluation on the test patients."""

from pathlib import Path

import pandas as pd

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.coverage import Coverage
from pyro_stitchnet.evaluation.evaluate import evaluate
from pyro_stitchnet.figures import save_figure, training_curves
from pyro_stitchnet.figures.tensorboard import TensorBoard
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.posterior import seeded
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import csv_text
from pyro_stitchnet.training.callbacks import Callback, Run
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.run import run
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.validation import bits_per_dimension

__all__ = ["BITS", "experiment"]

BITS = "bits_per_dimension.csv"
"""The file of the test scores of an SVAE without labels: a row per slice."""


def experiment(config: TrainConfig) -> Path:
    """Train a model, draw its curves and evaluate it on the test patients.

    In addition to the files of :func:`~pyro_stitchnet.training.run.run` it writes ``curves.png``;
    with ``tensorboard``, the log for TensorBoard under ``tensorboard/``; and with folds, under
    ``test/``, the files of :func:`~pyro_stitchnet.evaluation.evaluate.evaluate`, or :data:`BITS` of
    an SVAE without labels.

    Args:
        config: the configuration.

    Returns:
        The folder of the results.

    Raises:
        OSError, ValueError, FloatingPointError, KeyboardInterrupt: as
            :func:`~pyro_stitchnet.training.run.run`.
    """
    callbacks: list[Callback] = [_Curves(), _TestScores()]
    if config.tensorboard:
        callbacks.append(TensorBoard(config.out / "tensorboard"))
    return run(config, callbacks)


class _Curves(Callback):
    """Draws the log."""

    def finish(self, run: Run, state: State) -> None:
        """Write ``curves.png``."""
        save_figure(training_curves(state.log), run.config.out / "curves.png")


class _TestScores(Callback):
    """Evaluates the best weights on the test patients."""

    def finish(self, run: Run, state: State) -> None:
        """Write the folder ``test``, unless all patients were trained on."""
        if not run.config.folds:
            return
        test, out = run.slices["test"].load(), run.config.out / "test"
        if isinstance(run.net, SliceVAE):
            _write_bits(run.net, test, out)
        else:
            given = Dataset(run.config.data).manifest
            given = given[given["patient"].isin(set(test.patients))]
            coverage = Coverage.of_slices(given, given["complete"])
            info = {name: one for name, one in run.record.items() if name != "hashes"}
            evaluate(run.net, test, out, info=info, coverage=coverage)


def _write_bits(net: SliceVAE, slices: Slices, out: Path) -> None:
    """Write bits per dimension of every slice, by the evidence lower bound."""
    device = next(net.parameters()).device
    with seeded(0, device):
        bits = bits_per_dimension(net, slices.images.to(device))
    table = pd.DataFrame({"name": slices.names, "patient": slices.patients, "bits": bits.cpu()})
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / BITS, csv_text(table))
