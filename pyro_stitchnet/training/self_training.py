"""Self-training of q(y | x): its target is the posterior where a pixel may have several labels."""

import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import ElboLearner, LossOutput, ramp

__all__ = ["SelfTraining"]

DECAY = 0.99  # of the teacher's average


class SelfTraining(ElboLearner):
    """The bound, the classifier's loss, and a consistency loss with the posterior of y.

    Where a pixel may have several labels A, q(y | x) of a strong view of the slice is drawn, in
    squared difference, to ::

        r(y)  in proportion to  1[y in A] q'(y | x)

    of its weak view. q' is the moving average of q, with its infection divided into GGO and
    consolidation by the tissue levels, as in
    :meth:`~pyro_stitchnet.model.stitchnet.StitchNet.log_separated`. This is Mean Teacher (Tarvainen
    & Valpola, NeurIPS 2017) whose teacher also sees the grey values, and a step of expectation
    maximisation with q' as the prior of y. Unlabelled slices and label sets such as "infection" are
    the same case.

    r is not sharpened.
    """

    strong_views = 1

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, which must have a classifier, and its objective.

        Raises:
            ValueError: the model has no classifier, or the label term is not "guided".
        """
        super().__init__(net, objective)
        if net.classifier is None or not isinstance(objective.labels, Guided):
            raise ValueError(
                "posterior_weight needs q(y | x) in the guide; set classifier=True and labels "
                "'guided'"
            )
        self.teacher = Teacher(net.classifier, DECAY)

    @property
    def classifier(self) -> UNet:
        """The network of q(y | x)."""
        assert self.net.classifier is not None
        return self.net.classifier

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """The negative bound in nats per pixel, the classifier's loss, and the consistency loss."""
        net, labels, allowed = self.net, self.objective.labels, batch.allowed
        assert isinstance(labels, Guided)
        assert self.classifier_loss is not None
        several = allowed.sum(-1) > 1  # pixels with more than one possible label
        labelled, ambiguous = ~batch.unlabelled, several.flatten(1).any(1)  # slices
        with net.memo.one_pass():
            # The bound uses the teacher's q. Slices with one label per pixel do not depend on it.
            teacher_log_q = torch.zeros(allowed.shape, device=batch.x.device)
            if ambiguous.any():
                teacher_log_q[ambiguous] = self._teacher_log_q(batch.x[ambiguous])
            result = self.bound(batch, self.objective.at_step(step), teacher_log_q)
        loss = result.loss
        log_q = torch.zeros_like(teacher_log_q)
        if labelled.any():  # by themselves, as in a supervised U-Net
            labelled_log_q = self._student_log_q(batch.x[labelled])
            loss = loss + self.classifier_loss(labelled_log_q, allowed[labelled])
            log_q[labelled] = labelled_log_q.detach()
        if ambiguous.any():
            scores = net.log_separated(batch.x[ambiguous], teacher_log_q[ambiguous])
            scores = scores.masked_fill(~allowed[ambiguous], -torch.inf)
            # Several times faster than over a last axis of four.
            target = scores.movedim(-1, 0).softmax(0).movedim(0, -1)
            q = self._student_log_q(batch.strong[0, ambiguous]).exp()
            differences = (q - target).square().sum(-1)[several[ambiguous]]
            weight = labels.posterior_weight * ramp(step, labels.posterior_warmup)
            loss = loss + weight * differences.mean()
        return LossOutput(loss, result, log_q[self.in_bound(batch)])

    def pass_for_statistics(self, batch: Batch, step: int) -> None:
        """Pass the slices as they are, without strong views."""
        super().loss(batch, step)

    def stepped(self) -> None:
        """Move the teacher's average."""
        self.teacher.update_parameters(self.classifier)

    def _student_log_q(self, x: Tensor) -> Tensor:
        """log q(y | x) of slices (N, H, W), (N, H, W, K), in 32 bits."""
        return self.classifier(x.unsqueeze(1)).float().log_softmax(1).movedim(1, -1)

    def _teacher_log_q(self, x: Tensor) -> Tensor:
        return self.teacher.log_probabilities(x).movedim(1, -1)
