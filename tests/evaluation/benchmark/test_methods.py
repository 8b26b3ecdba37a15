"""Options of a StitchNet in a benchmark reach its model, label term and objective."""

import pytest
import torch

from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.self_training import SelfTraining


def built(name: str, **options: object) -> ElboLearner:
    with torch.device("meta"):
        learner = METHODS[f"stitchnet-{name}"].build(None, **options)
    assert isinstance(learner, ElboLearner)
    return learner


def test_options_are_fields_of_model_label_term_or_objective() -> None:
    learner = built("tiny", width=0.5, label_weight=10, kl_warmup=3)
    tiny = preset("tiny")
    assert learner.net.config.width == 0.5
    assert learner.net.config.channels == tiny.model.channels
    assert learner.objective.labels == Marginal(label_weight=10)
    assert learner.objective.kl_warmup == 3
    assert learner.objective.free_bits == tiny.objective.free_bits


@pytest.mark.parametrize(
    "options",
    [
        {"labels": {"kind": "marginal", "label_weight": 50}},
        {"labels": "marginal", "label_weight": 50},
    ],
)
def test_the_label_term_is_chosen_by_kind(options: dict[str, object]) -> None:
    assert built("article", **options).objective.labels == Marginal(label_weight=50)


def test_consistency_weight_decides_on_self_training() -> None:
    assert isinstance(built("guided", consistency_weight=1), SelfTraining)
    assert not isinstance(built("guided"), SelfTraining)


def test_an_option_of_another_label_term_is_refused() -> None:
    with pytest.raises(ValueError, match="'dice_weight'"):
        built("tiny", dice_weight=1)
