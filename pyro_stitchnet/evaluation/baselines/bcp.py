"""BCP: bidirectional copy-paste between labelled and unlabelled slices."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, set_loss
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.training.average import Teacher

__all__ = ["BidirectionalCopyPaste"]

SIDE = 2 / 3  # of the slice, of the box that changes places


class BidirectionalCopyPaste(Supervised):
    """A box of an unlabelled slice pasted into a labelled one, and the other way round.

    Bai et al., CVPR 2023: the unlabelled part has the teacher's labels and half the weight of the
    true ones; before, the network learns from labelled slices pasted into each other. Of the
    teacher's labels all are kept, where BCP keeps the largest connected part of an organ: lesions
    are many.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: float = 0.5,
        decay: float = 0.99,
        pretraining_steps: int = 200,
    ) -> None:
        """Take the student.

        Args:
            network: the student.
            weight: of pixels with a teacher's label, beside those with a true one.
            decay: of the teacher's average.
            pretraining_steps: steps on labelled slices alone.
        """
        super().__init__(network)
        self.teacher = Teacher(network, decay)
        self.weight, self.pretraining_steps = weight, pretraining_steps

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The loss of the pasted slices."""
        mute = batch.unlabelled
        x, allowed = batch.x[~mute], batch.allowed[~mute]
        box = _box(x.shape[-2:]).to(x.device)
        if step <= self.pretraining_steps or not mute.any():
            other, other_allowed = x.roll(1, 0), allowed.roll(1, 0)
            mixed = torch.where(box, other, x)
            known = torch.where(box[..., None], other_allowed, allowed)
            return set_loss(self.logits(mixed), known)
        # As many unlabelled slices as labelled ones, some twice where there are fewer.
        places = torch.arange(len(x), device=x.device) % int(mute.sum())
        other = batch.x[mute][places]
        labels = self.teacher.probabilities(other).argmax(1)
        guessed = nn.functional.one_hot(labels, len(LABELS)).bool()
        anything = torch.ones_like(allowed)
        total = x.new_zeros(())
        for inside in (box, ~box):  # where the unlabelled slice is
            logits = self.logits(torch.where(inside, other, x))
            where = inside[..., None]
            true = set_loss(logits, torch.where(where, anything, allowed))
            total = (
                total + true + self.weight * set_loss(logits, torch.where(where, guessed, anything))
            )
        return total

    def stepped(self) -> None:
        """Move the teacher."""
        self.teacher.update_parameters(self.network)


def _box(shape: torch.Size) -> Tensor:
    """A box anywhere in the slice, bool (1, H, W)."""
    sides = [int(SIDE * side) for side in shape]
    top, left = (int(torch.randint(n - side + 1, ())) for n, side in zip(shape, sides, strict=True))
    box = torch.zeros(1, *shape, dtype=torch.bool)
    box[:, top : top + sides[0], left : left + sides[1]] = True
    return box
