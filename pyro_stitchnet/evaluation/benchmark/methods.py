"""The methods of the benchmark: how to build each, and whether it uses unlabelled slices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from pyro_stitchnet.data.datasets.slices import SliceSet
from pyro_stitchnet.evaluation.baselines import networks
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.evaluation.baselines.bcp import BidirectionalCopyPaste
from pyro_stitchnet.evaluation.baselines.cps import CrossPseudoSupervision
from pyro_stitchnet.evaluation.baselines.denoising import pretrain_unet
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.evaluation.baselines.pseudo_labels import PseudoLabels
from pyro_stitchnet.evaluation.baselines.ua_mt import UncertaintyAwareMeanTeacher
from pyro_stitchnet.evaluation.baselines.unimatch import FixMatch, UniMatch
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.config import TrainConfig, merge_label_term
from pyro_stitchnet.training.learner import ElboLearner, Learner
from pyro_stitchnet.training.pretraining import pretrain
from pyro_stitchnet.training.run import learner_of

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        build: makes a new learner from MobileNetV2's initial weights (None: random) and options.
        unlabelled: whether it learns from unlabelled slices.
        pretrain: trains a learner on the unlabelled slices before the labels, if it can.
        optimiser: fields of the optimiser's configuration that differ from the benchmark's; never
            the learning rate, which only an entry may change.
        predictors: names of the predictors that are tested besides the usual one: "posterior" of a
            StitchNet; of the others see
            :func:`~pyro_stitchnet.evaluation.baselines.brightness.splits`.
    """

    build: Callable[..., Learner]
    unlabelled: bool = False
    pretrain: Callable[[Any, Mapping[str, SliceSet], TrainConfig], None] | None = None
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    predictors: tuple[str, ...] = ("levels",)


def _denoise(learner: Supervised, slices: Mapping[str, SliceSet], config: TrainConfig) -> None:
    assert isinstance(learner.network, UNet)
    pretrain_unet(learner.network, slices, config)


def _pretrain_svae(
    learner: ElboLearner, slices: Mapping[str, SliceSet], config: TrainConfig
) -> None:
    pretrain(learner.net, slices, config)


def _unet(learner: Callable[..., Learner], weights: str | None, **options: Any) -> Learner:
    return learner(UNet(weights), **options)


def _two_unets(weights: str | None, **options: Any) -> Learner:
    return CrossPseudoSupervision(UNet(weights), UNet(weights), **options)


def _supervised(network: Callable[[], Any], weights: str | None) -> Learner:
    return Supervised(network())


def _stitchnet(weights: str | None, preset_name: str, **options: Any) -> Learner:
    """Build a preset; options are fields of its model, its label term or its objective by name."""
    chosen = preset(preset_name)
    model = _changed(chosen.model, options)
    # Published weights exist for MobileNetV2 of full width, as in the classifier.
    full_width = model.width == 1 or model.classifier
    model = replace(model, weights=weights if full_width else None)
    labels = merge_label_term(chosen.objective.labels, options.pop("labels", {}))
    objective = _changed(replace(chosen.objective, labels=_changed(labels, options)), options)
    if options:
        raise ValueError(f"{preset_name} has no option {next(iter(options))!r}")
    return learner_of(StitchNet(model), objective)


def _changed(config: Any, options: dict[str, Any]) -> Any:
    """Replace fields of a configuration by the options of their names, which are removed."""
    names = {f.name for f in fields(config)} & set(options)
    return replace(config, **{name: options.pop(name) for name in names})


def _stitchnet_method(name: str) -> Method:
    return Method(
        partial(_stitchnet, preset_name=name),
        unlabelled=True,
        pretrain=_pretrain_svae,
        optimiser={"clip_value": preset(name).optimiser.clip_value},
        predictors=("posterior",),
    )


METHODS: Mapping[str, Method] = {
    "unet": Method(
        partial(_unet, Supervised),
        pretrain=_denoise,
        predictors=("threshold", "gaussian", "levels"),
    ),
    "segnet": Method(partial(_supervised, networks.SegNet)),
    "nnunet": Method(partial(_supervised, networks.plain_unet)),
    "pseudo-labels": Method(partial(_unet, PseudoLabels), unlabelled=True),
    "mean-teacher": Method(partial(_unet, MeanTeacher), unlabelled=True),
    "ua-mt": Method(partial(_unet, UncertaintyAwareMeanTeacher), unlabelled=True),
    "cps": Method(_two_unets, unlabelled=True),
    "fixmatch": Method(partial(_unet, FixMatch), unlabelled=True),
    "unimatch": Method(partial(_unet, UniMatch), unlabelled=True),
    "bcp": Method(partial(_unet, BidirectionalCopyPaste), unlabelled=True),
    **{
        f"stitchnet-{name}": _stitchnet_method(name)
        for name in ("article", "reference", "guided", "tiny")
    },
}
"""The methods that a specification may name."""
