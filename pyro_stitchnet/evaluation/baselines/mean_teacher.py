"""Mean Teacher: consistency with the moving average of the network's weights."""

from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.runtime.ranges import CountOrZero, Decay, Weight, checked_arguments
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import LossOutput, ramp

__all__ = ["MeanTeacher"]


class MeanTeacher(Supervised):
    """Squared difference of student and teacher on every slice, ramped up.

    Tarvainen & Valpola, NeurIPS 2017, with SSL4MIS' settings for slices: decay .99, weight 0.1,
    the weight's rise exp(-5 (1 - t)^2). That rise ends after 200 steps here, in SSL4MIS with the
    training. The student sees the strong view, the teacher the weak one. As in the paper, labelled
    slices count too; SSL4MIS leaves them out.
    """

    strong_views = 1

    @checked_arguments
    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Weight = 0.1,
        ramp_steps: CountOrZero = 200,
        decay: Decay = 0.99,
    ) -> None:
        """Create the teacher.

        Args:
            network: the student.
            weight: factor on the consistency loss.
            ramp_steps: steps over which that factor rises.
            decay: of the teacher's moving average.
        """
        super().__init__(network)
        self.teacher = Teacher(network, decay)
        self.weight, self.ramp_steps = weight, ramp_steps

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the loss of the labels plus the consistency loss."""
        student = self.logits(batch.strong[0]).softmax(1)
        differences = (student - self.teacher.probabilities(batch.x)).square().mean(1)
        weight = self.weight * ramp(step, self.ramp_steps)
        consistency = self.consistency(differences, batch, step)
        return LossOutput(self.supervised_loss(batch) + weight * consistency)

    def consistency(self, differences: Tensor, batch: Batch, step: int) -> Tensor:
        """Return the mean of squared differences (N, H, W) over all pixels."""
        return differences.mean()

    def stepped(self) -> None:
        """Update the teacher."""
        self.teacher.update_parameters(self.network)

    def inference_network(self) -> nn.Module:
        """Return the teacher."""
        return self.teacher.module
