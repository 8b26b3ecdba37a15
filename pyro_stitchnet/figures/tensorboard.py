"""A run for TensorBoard to show: the log's figures, and what the model makes of some slices."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.figures import segmentations, styles
from pyro_stitchnet.posterior import seeded, segment
from pyro_stitchnet.training.callbacks import Callback
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.state import State

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes the log's figures, and pictures of some validation slices, for TensorBoard.

    Args:
        folder: for its files.
        slices: whose segmentations and styles to draw at each validation, if there are any.
    """

    def __init__(self, folder: Path, slices: Slices | None) -> None:
        self.folder, self.slices = folder, slices

    def begin(self, state: State, steps: int) -> None:
        """Open the files; what a killed run wrote beyond its last state is written over."""
        self._writer = SummaryWriter(str(self.folder), purge_step=state.step + 1)

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Write a row; after a validation, the pictures too."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, state.step)
        if self.slices is None or "validation/dice" not in row:
            return
        learner = state.answer
        assert isinstance(learner, ElboLearner)  # only they have styles to draw
        with seeded(0, state.fabric.device):
            answer = segment(learner.net, self.slices.images.to(state.fabric.device))
        images, truth = self.slices.images.numpy(), self.slices.labels().numpy()
        labels, names = answer.labels.cpu().numpy(), self.slices.names
        self._writer.add_figure(
            "segmentations",
            segmentations(images, truth, {"StitchNet": labels}, names=names),
            state.step,
        )
        stitched = answer.stitched.cpu().numpy()
        self._writer.add_figure(
            "styles",
            styles(images, truth, labels, answer.styles.cpu().numpy(), stitched, names=names),
            state.step,
        )

    def end(self, state: State) -> None:
        """Close the files."""
        self._writer.close()
