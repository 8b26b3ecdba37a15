"""UA-MT: Mean Teacher that trusts the teacher only where it is sure."""

import math

import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.training.learner import ramp

__all__ = ["UncertaintyAwareMeanTeacher"]

DRAWS = 4
NOISE = 0.1  # standard deviation in grey units, clipped at twice that
LEAST = 0.75  # of the greatest entropy is trusted from the start


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """The teacher's mean over noisy copies of a slice has an entropy; above a threshold it is mute.

    Yu et al., MICCAI 2019, and SSL4MIS' settings: the threshold rises from 3/4 of the greatest
    entropy to all of it. Four noisy copies for its eight, and no dropout, since the U-Net has none.
    """

    def disagreement(self, differences: Tensor, batch: Batch, step: int) -> Tensor:
        """The mean over the pixels where the teacher is sure."""
        noise = torch.randn(DRAWS, *batch.x.shape, device=batch.x.device) * NOISE
        noisy = (batch.x + noise.clamp(-2 * NOISE, 2 * NOISE)).clamp(0, 1).flatten(0, 1)
        p = self.teacher.probabilities(noisy).unflatten(0, (DRAWS, -1)).mean(0)
        entropy = -(p * (p + 1e-6).log()).sum(1)
        rise = LEAST + (1 - LEAST) * ramp(step, self.ramp_steps)
        sure = entropy < rise * math.log(len(LABELS))
        return (differences * sure).sum() / sure.sum().clamp_min(1)
