"""Test a trained model of a benchmark: its predictions, their scores and columns."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.base import Predictor, Supervised
from pyro_stitchnet.evaluation.baselines.brightness import splits
from pyro_stitchnet.evaluation.benchmark.columns import dice_columns, variant_name
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.spec import Entry, Spec
from pyro_stitchnet.evaluation.style_metrics import style_metrics
from pyro_stitchnet.metrics.calibration import calibration
from pyro_stitchnet.metrics.distances import hausdorff95
from pyro_stitchnet.metrics.scores import INFECTION, slice_scores
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities, seeded
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.posterior.options import Decision
from pyro_stitchnet.posterior.views import average_views
from pyro_stitchnet.training.batch_norm import batch_statistics, statistics_of
from pyro_stitchnet.training.learner import ElboLearner, Learner

__all__ = ["generative_columns", "predict_and_score"]


def predict_and_score(
    learner: Learner,
    slices: Mapping[str, Slices],
    other_hospital: Slices | None,
    spec: Spec,
    entry: Entry,
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Test every predictor of a learner with every decision.

    Args:
        learner: the trained networks.
        slices: "labelled", from which predictors may fit parameters, and "test".
        other_hospital: slices whose infection is tested too.
        spec: read-out, decisions and steps.
        entry: the method.

    Returns:
        The columns and the scores of every slice, for each variant.
    """
    options, test, step = spec.read_out, slices["test"], spec.steps_of(entry)
    device = next(learner.parameters()).device
    tested = []
    chosen = ("", *METHODS[entry.method].predictors)
    for name, predictor in _predictors(learner, slices["labelled"], options).items():
        if name not in chosen:
            continue
        begun = time.monotonic()
        p = _predict(predictor, test, device, options)
        per_slice = (time.monotonic() - begun) / len(test)
        statistics = {}
        if isinstance(learner, ElboLearner):
            statistics = _statistics_columns(learner, predictor, test, step, options)
        other_p = None
        if other_hospital is not None:
            other_p = _predict(predictor, other_hospital, device, options)
        for decision in spec.decisions:
            variant = variant_name(name, decision)
            scores = _scores(_decide(p, decision, options), test)
            row = {
                "variant": variant,
                **dice_columns(scores),
                **calibration(p, test.labels()),
                **(statistics if decision == "likeliest" else {}),
                "seconds_a_slice": per_slice,
            }
            scores["set"] = "test"
            if other_hospital is not None and other_p is not None:
                infection = _infection_scores(_decide(other_p, decision, options), other_hospital)
                infected = infection["truth_pixels"] > 0
                row["other_hospital_infection"] = infection["f1"][infected].mean()
                infection["set"] = "other_hospital"
                scores = pd.concat([scores, infection], ignore_index=True)
            tested.append((row, scores.assign(variant=variant)))
    return tested


def generative_columns(learner: Learner, test: Slices, options: ReadOutOptions) -> dict[str, float]:
    """Return the metrics of a StitchNet's styles; none for other learners."""
    if not isinstance(learner, ElboLearner):
        return {}
    one_view = replace(options, views=1)  # views are averaged outside
    with seeded(options.seed, next(learner.parameters()).device):
        return style_metrics(learner.net, test, one_view)


def _predictors(
    learner: Learner, labelled: Slices, options: ReadOutOptions
) -> Mapping[str, Predictor]:
    """Return the predictors of a trained learner by name.

    "" of a StitchNet is q(y | x), or p(y | z) without a classifier.
    """
    if isinstance(learner, Supervised):
        return {"": learner.probabilities, **splits(learner.probabilities, labelled)}
    assert isinstance(learner, ElboLearner)
    net = learner.net

    def predictor(read_out: ReadOut) -> Predictor:
        # Views are averaged outside, as for the other methods.
        chosen = replace(options, read_out=read_out, views=1)
        return lambda x: probabilities(net, x, chosen)

    default = predictor("guide" if net.classifier else "prior")
    return {"": default, "posterior": predictor("posterior")}


def _statistics_columns(
    learner: ElboLearner, predictor: Predictor, test: Slices, step: int, options: ReadOutOptions
) -> dict[str, float]:
    """Return the lesion Dice where batch norm has statistics of the test slices.

    ``batch``: those of each batch, as in training mode. ``own``: running statistics recomputed from
    the test slices, in evaluation mode. Where these two agree, evaluation mode itself
    loses nothing.
    """
    per_batch = min(options.batch_size, len(test))
    streams = TwoStreams(test, None, (per_batch, 0), seed=options.seed, augment=False)
    batches = [streams[i] for i in range(2 * math.ceil(len(test) / per_batch))]
    device = next(learner.parameters()).device
    modes = {
        "batch": batch_statistics(learner),
        "own": statistics_of(learner, [batch.to(device) for batch in batches], step),
    }
    columns: dict[str, float] = {}
    for name, mode in modes.items():
        with mode:
            p = _predict(predictor, test, device, options)
        dice = _scores(_decide(p, "likeliest", options), test).groupby("lesion")["f1"].mean()
        columns |= {
            f"dice_ggo_{name}_statistics": dice["GGO"],
            f"dice_con_{name}_statistics": dice["CON"],
        }
    return columns


def _predict(
    predictor: Predictor, slices: Slices, device: torch.device, options: ReadOutOptions
) -> Tensor:
    with seeded(options.seed, device):
        return average_views(predictor, slices.images.to(device), options.views).cpu()


def _decide(p: Tensor, decision: Decision, options: ReadOutOptions) -> Tensor:
    return decide(without_specks(p, decision, options.least_patch), decision)


def _scores(labels: Tensor, slices: Slices) -> pd.DataFrame:
    """Return the scores of every slice and group, with the Hausdorff distance of each lesion."""
    truth = slices.labels()
    scores = slice_scores(truth, labels, slices.names, slices.patients)
    for lesion, distances in hausdorff95(truth, labels).items():
        scores.loc[scores["lesion"] == lesion, "hd95"] = distances
    return scores


def _infection_scores(labels: Tensor, slices: Slices) -> pd.DataFrame:
    """Return the scores of GGO and consolidation together."""
    truth = slices.infection()
    return slice_scores(truth, labels, slices.names, slices.patients, groups=[INFECTION])
