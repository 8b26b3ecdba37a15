"""BCP: bidirectional copy-paste between labelled and unlabelled slices."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, label_loss
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.runtime.ranges import CountOrZero, Decay, Weight, checked_arguments
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import LossOutput

__all__ = ["BidirectionalCopyPaste"]

SIDE = 2 / 3  # side of the exchanged box, as a share of the slice


class BidirectionalCopyPaste(Supervised):
    """A box of an unlabelled slice is pasted into a labelled one, and vice versa.

    Bai et al., CVPR 2023: the unlabelled part has the teacher's labels, at half the weight of true
    labels; before that, the network is trained on labelled slices pasted into each other. All of
    the teacher's labels are kept, where BCP keeps the largest connected part of an organ, since
    there are many lesions.
    """

    @checked_arguments
    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Weight = 0.5,
        decay: Decay = 0.99,
        pretraining_steps: CountOrZero = 200,
    ) -> None:
        """Create the teacher.

        Args:
            network: the student.
            weight: factor on the loss of the teacher's labels.
            decay: of the teacher's moving average.
            pretraining_steps: first steps, on labelled slices alone.
        """
        super().__init__(network)
        self.teacher = Teacher(network, decay)
        self.weight, self.pretraining_steps = weight, pretraining_steps

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the loss of the pasted slices."""
        unlabelled = batch.unlabelled
        x, allowed = batch.x[~unlabelled], batch.allowed[~unlabelled]
        box = _box(x.shape[-2:]).to(x.device)
        if step <= self.pretraining_steps or not unlabelled.any():
            other, other_allowed = x.roll(1, 0), allowed.roll(1, 0)
            mixed = torch.where(box, other, x)
            mixed_allowed = torch.where(box[..., None], other_allowed, allowed)
            return LossOutput(label_loss(self.logits(mixed), mixed_allowed))
        # As many unlabelled slices as labelled ones; some are repeated if there are fewer.
        indices = torch.arange(len(x), device=x.device) % int(unlabelled.sum())
        other = batch.x[unlabelled][indices]
        labels = self.teacher.probabilities(other).argmax(1)
        pseudo_labels = nn.functional.one_hot(labels, len(LABELS)).bool()
        all_labels = torch.ones_like(allowed)
        total = x.new_zeros(())
        for inside in (box, ~box):  # the region taken from the unlabelled slice
            logits = self.logits(torch.where(inside, other, x))
            mask = inside[..., None]
            true = label_loss(logits, torch.where(mask, all_labels, allowed))
            pseudo = label_loss(logits, torch.where(mask, pseudo_labels, all_labels))
            total = total + true + self.weight * pseudo
        return LossOutput(total)

    def stepped(self) -> None:
        """Update the teacher."""
        self.teacher.update_parameters(self.network)


def _box(shape: torch.Size) -> Tensor:
    """Return a box at a random place of the slice, bool (1, H, W)."""
    sides = [int(SIDE * side) for side in shape]
    top, left = (int(torch.randint(n - side + 1, ())) for n, side in zip(shape, sides, strict=True))
    box = torch.zeros(1, *shape, dtype=torch.bool)
    box[:, top : top + sides[0], left : left + sides[1]] = True
    return box
