"""UA-MT: Mean Teacher restricted to pixels where the teacher is certain."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import SliceSet
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.training.learner import ramp

__all__ = ["UncertaintyAwareMeanTeacher"]

DRAWS = 4
NOISE = 0.1  # standard deviation in grey units, clipped at twice that
LEAST = 0.75  # initial threshold, as a share of the largest entropy


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Pixels count if the entropy of the teacher's mean over noisy copies is below a threshold.

    Yu et al., MICCAI 2019: over the whole training the threshold rises from 3/4 of the largest
    entropy to all of it. That of SSL4MIS is for two labels, ln 2; here there are four, ln 4. Four
    noisy copies instead of eight, and no dropout: the U-Net has none.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, **options: Any) -> None:
        """Take the options of Mean Teacher."""
        super().__init__(network, **options)
        self.register_buffer("steps", torch.tensor(0))  # of the training

    def begin(self, labelled: SliceSet, *, steps: int, new: bool = True) -> None:
        """Take the number of steps over which the threshold rises."""
        self.steps.fill_(steps)

    def consistency(self, differences: Tensor, batch: Batch, step: int) -> Tensor:
        """Return the mean of ``differences`` over the pixels where the teacher is certain."""
        if not self.steps:
            raise RuntimeError("call begin before training: the threshold rises over its steps")
        noise = torch.randn(DRAWS, *batch.x.shape, device=batch.x.device) * NOISE
        noisy = (batch.x + noise.clamp(-2 * NOISE, 2 * NOISE)).clamp(0, 1).flatten(0, 1)
        p = self.teacher.probabilities(noisy).unflatten(0, (DRAWS, -1)).mean(0)
        entropy = -(p * (p + 1e-6).log()).sum(1)
        threshold = LEAST + (1 - LEAST) * ramp(step, int(self.steps))
        certain = entropy < threshold * math.log(len(LABELS))
        return (differences * certain).sum() / certain.sum().clamp_min(1)
