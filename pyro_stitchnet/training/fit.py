"""The assembly of a training: batches, processes, optimiser and loop."""

from collections.abc import Mapping, Sequence

from lightning_fabric import Fabric

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices, SliceSet
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.training.callbacks import Callback, StateKeeper
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.learner import Learner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import compile_networks

__all__ = ["fit"]

STATISTICS = 8
"""Training batches from which batch-norm statistics are recomputed before an evaluation."""


def fit(
    learner: Learner,
    slices: Mapping[str, SliceSet],
    config: TrainConfig,
    *,
    validation: Slices | None = None,
    fabric: Fabric | None = None,
    callbacks: Sequence[Callback] = (),
    resume: StateKeeper | None = None,
) -> State:
    """Train a learner; afterwards it has its best weights.

    Args:
        learner: new networks, or those of the run to resume.
        slices: "labelled" and "unlabelled" slices to train on; either may be empty.
        config: how to train. Data, model, objective, folds and label budget are not read. With
            ``start`` the weights count as trained.
        validation: slices by which the weights are chosen; None keeps the last weights.
        fabric: launched processes; by default those that ``config`` describes, one process.
        callbacks: called during the run.
        resume: the states to resume from; None starts a new training.

    Raises:
        ValueError: a stream of batches has no slices, or a number is out of range.
        FloatingPointError: 20 steps in a row were not finite.
        KeyboardInterrupt: the run was stopped; its message has the step.
    """
    fabric = fabric or make_fabric(config.device, precision=config.precision)
    unlabelled = config.unlabelled_per_batch if slices["unlabelled"] else 0
    labelled = config.labelled_per_batch
    if not learner.uses_labels:  # one stream of all slices
        labelled, unlabelled = 0, config.labelled_per_batch + config.unlabelled_per_batch
    streams = TwoStreams(
        slices["labelled"],
        slices["unlabelled"],
        (labelled, unlabelled),
        seed=config.seed,
        augment=config.augment,
        affine=config.affine,
        paste=config.paste,
        strong_views=learner.strong_views,
        rank=fabric.global_rank,
        processes=fabric.world_size,
    )
    if resume is None:
        learner.begin(slices["labelled"], steps=config.steps, new=config.start is None)
    learner.to(fabric.device)
    state = State(learner, config.optimiser, fabric)
    if resume is not None:
        state.load(resume.kept()[-1], resume.config)
    if config.compile:
        compile_networks(learner.networks())
    train(
        state,
        streams.batches(first=state.step * config.accumulate, workers=config.workers),
        config.steps,
        statistics=[streams[i].to(fabric.device) for i in range(STATISTICS)],
        validation=validation,
        callbacks=callbacks,
        accumulate=config.accumulate,
        log_every=config.log_every,
        validate_every=config.validate_every,
        keep_every=config.keep_every,
        patience=config.patience,
        minutes=config.minutes,
        fast=config.fast,
    )
    return state
