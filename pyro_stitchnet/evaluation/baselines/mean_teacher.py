"""Mean Teacher: the student agrees with the moving average of its own weights."""

from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import ramp

__all__ = ["MeanTeacher"]


class MeanTeacher(Supervised):
    """Squared difference of student and teacher on every slice, ramped up.

    Tarvainen & Valpola, NeurIPS 2017, with SSL4MIS' settings for slices: decay .99, weight 0.1,
    the weight's rise exp(-5 (1 - t)^2). The student sees the strong view, the teacher the weak one.
    """

    strong_views = 1

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: float = 0.1,
        ramp_steps: int = 200,
        decay: float = 0.99,
    ) -> None:
        """Take the student.

        Args:
            network: the student.
            weight: of the agreement beside the labels' loss.
            ramp_steps: over which it rises.
            decay: of the teacher's average.
        """
        super().__init__(network)
        self.teacher = Teacher(network, decay)
        self.weight, self.ramp_steps = weight, ramp_steps

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The labels' loss and the disagreement."""
        student = self.logits(batch.strong[0]).softmax(1)
        differences = (student - self.teacher.probabilities(batch.x)).square().mean(1)
        agreement = self.disagreement(differences, batch, step)
        return super().loss(batch, step) + self.weight * ramp(step, self.ramp_steps) * agreement

    def disagreement(self, differences: Tensor, batch: Batch, step: int) -> Tensor:
        """The mean over all pixels of ``differences``, (N, H, W)."""
        return differences.mean()

    def stepped(self) -> None:
        """Move the teacher."""
        self.teacher.update_parameters(self.network)

    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher
