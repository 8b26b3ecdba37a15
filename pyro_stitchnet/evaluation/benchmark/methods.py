"""Every method of the benchmark by name: how to build it, and what it uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from pyro_stitchnet.evaluation.baselines import networks
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.evaluation.baselines.bcp import BidirectionalCopyPaste
from pyro_stitchnet.evaluation.baselines.brightness import SplitByBrightness
from pyro_stitchnet.evaluation.baselines.cps import CrossPseudoSupervision
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.evaluation.baselines.pseudo_labels import PseudoLabels
from pyro_stitchnet.evaluation.baselines.ua_mt import UncertaintyAwareMeanTeacher
from pyro_stitchnet.evaluation.baselines.unimatch import FixMatch, UniMatch
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import ModelConfig, preset
from pyro_stitchnet.training.learner import Learner
from pyro_stitchnet.training.self_training import learner_of

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        build: a new learner, of the start of MobileNetV2 (None: random) and options of the method.
        unlabelled: whether it learns from unlabelled slices.
        optimiser: what it says of the optimiser, over the benchmark's.
    """

    build: Callable[..., Learner]
    unlabelled: bool = False
    optimiser: Mapping[str, Any] = field(default_factory=dict)


def _over(learner: Callable[..., Learner], weights: str | None, **options: Any) -> Learner:
    return learner(UNet(weights), **options)


def _two(weights: str | None, **options: Any) -> Learner:
    return CrossPseudoSupervision(UNet(weights), UNet(weights), **options)


def _scratch(network: Callable[[], Any], weights: str | None) -> Learner:
    return Supervised(network())


def _stitchnet(weights: str | None, preset_name: str, **options: Any) -> Learner:
    chosen = preset(preset_name)
    networks = {f.name for f in fields(ModelConfig)} & set(options)
    model = replace(chosen.model, **{name: options.pop(name) for name in networks})
    # Only a MobileNetV2 of full width has published weights; a segmenter's is one.
    whole = model.width == 1 or model.segmenter
    model = replace(model, weights=weights if whole else None)
    return learner_of(StitchNet(model), replace(chosen.objective, **options))


def _stitchnet_method(name: str) -> Method:
    own = preset(name).optimiser
    return Method(
        partial(_stitchnet, preset_name=name),
        unlabelled=True,
        optimiser={"learning_rate": own.learning_rate, "clip_value": own.clip_value},
    )


STITCHNETS = ("article", "reference", "guided", "tiny")

METHODS: Mapping[str, Method] = {
    "unet": Method(partial(_over, SplitByBrightness)),
    "segnet": Method(partial(_scratch, networks.SegNet)),
    "nnunet": Method(partial(_scratch, networks.plain_unet)),
    "pseudo-labels": Method(partial(_over, PseudoLabels), unlabelled=True),
    "mean-teacher": Method(partial(_over, MeanTeacher), unlabelled=True),
    "ua-mt": Method(partial(_over, UncertaintyAwareMeanTeacher), unlabelled=True),
    "cps": Method(_two, unlabelled=True),
    "fixmatch": Method(partial(_over, FixMatch), unlabelled=True),
    "unimatch": Method(partial(_over, UniMatch), unlabelled=True),
    "bcp": Method(partial(_over, BidirectionalCopyPaste), unlabelled=True),
    **{
        f"stitchnet-{name}": _stitchnet_method(name)
        for name in ("article", "reference", "guided", "tiny")
    },
}
"""The methods that a specification may name."""
