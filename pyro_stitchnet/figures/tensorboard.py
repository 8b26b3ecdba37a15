"""A log for TensorBoard: the metrics of a run, and figures of some validation slices."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.figures import segmentations, styles
from pyro_stitchnet.posterior import seeded, segment
from pyro_stitchnet.runtime.text import escaped
from pyro_stitchnet.training.callbacks import Callback, Run
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.state import State

__all__ = ["TensorBoard"]

DRAWN = 4  # validation slices


class TensorBoard(Callback):
    """Writes the rows of the log, and figures of some slices after each validation.

    Args:
        folder: for its files.
        slices: to draw, of a model with labels; by default the first validation slices of a run.
    """

    def __init__(self, folder: Path, slices: Slices | None = None) -> None:
        if (name := str(folder)) != escaped(name):
            raise ValueError(
                f"{folder}: TensorBoard needs a path of UTF-8; give another --out, or "
                "--no-tensorboard"
            )
        self.folder, self.slices = folder, slices

    def start(self, run: Run) -> None:
        """Read the slices to draw, if the run has validation slices and labels."""
        validation = run.slices["validation"]
        if self.slices is None and len(validation) and run.config.model.stitched:
            self.slices = validation.take(range(min(DRAWN, len(validation)))).load()

    def begin(self, state: State, steps: int) -> None:
        """Open the files; entries after the step that is resumed are overwritten."""
        self._writer = SummaryWriter(str(self.folder), purge_step=state.step + 1)

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Write a row; after a validation, the figures too."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, state.step)
        if self.slices is None or "validation/dice" not in row:
            return
        learner, device = state.evaluated, state.fabric.device
        assert isinstance(learner, ElboLearner)
        with seeded(0, device):
            result = segment(learner.net, self.slices.images.to(device))
        images, truth = self.slices.images.numpy(), self.slices.labels().numpy()
        labels, names = result.labels.cpu().numpy(), self.slices.names
        self._writer.add_figure(
            "segmentations",
            segmentations(images, truth, {"StitchNet": labels}, names=names),
            state.step,
        )
        style_maps, stitched = result.styles.cpu().numpy(), result.stitched.cpu().numpy()
        self._writer.add_figure(
            "styles", styles(images, truth, labels, style_maps, stitched, names=names), state.step
        )

    def end(self, state: State) -> None:
        """Close the files."""
        self._writer.close()
