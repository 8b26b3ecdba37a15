"""The score by which weights are chosen."""

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.metrics.scores import slice_scores
from pyro_stitchnet.posterior import seeded
from pyro_stitchnet.training.learner import Learner

__all__ = ["validate"]


def validate(learner: Learner, slices: Slices) -> dict[str, float]:
    """Mean Dice (F1 of eq. 1) of each lesion over the slices where it is defined, and of both.

    A lesion that no slice has or is given counts 0 in the mean of both.
    """
    device = next(learner.parameters()).device
    with seeded(0, device):  # the same draws of z at every validation
        labels = learner.predict(slices.images.to(device)).argmax(1).cpu()
    mean = slice_scores(slices.labels(), labels).groupby("lesion")["f1"].mean()
    lesions = mean[["GGO", "CON"]]
    return {
        "validation/dice_ggo": float(lesions["GGO"]),
        "validation/dice_consolidation": float(lesions["CON"]),
        "validation/dice": float(lesions.fillna(0).mean()),
    }
