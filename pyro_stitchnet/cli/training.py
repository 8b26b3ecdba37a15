"""The command that trains a model: `train`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from pyro_stitchnet.cli._results import print_scores
from pyro_stitchnet.model.label_terms import LABEL_TERMS
from pyro_stitchnet.presets import PRESETS
from pyro_stitchnet.training.config import TrainConfig, from_yaml, merge_label_term

__all__ = ["Start", "defaults", "train"]


@dataclass(frozen=True)
class Start:
    """The defaults of the other options.

    Attributes:
        preset: sets the defaults of the options below, in place of the preset that --config names;
            "guided" if neither names one.
        config: a YAML file of options, which change the preset's, such as config.yaml of a run.
        labels: how labels enter the bound; the preset's if left out. Its options are listed below.
    """

    preset: Literal[tuple(PRESETS)] | None = None  # type: ignore[valid-type]
    config: Path | None = None
    labels: Literal[tuple(LABEL_TERMS)] | None = None  # type: ignore[valid-type]


def defaults(arguments: Sequence[str]) -> TrainConfig:
    """Return the defaults of the options of `train`, which those of :class:`Start` determine.

    Raises:
        OSError, ValueError: as :func:`~pyro_stitchnet.training.config.from_yaml`.
    """
    if sum(one.partition("=")[0] == "--config" for one in arguments) > 1:
        raise ValueError("--config is given twice; put all options into one file")
    start, _ = tyro.cli(Start, args=arguments, return_unknown_args=True, add_help=False)
    config = from_yaml(start.config, start.preset)
    if start.labels is None:
        return config
    term = merge_label_term(config.objective.labels, start.labels)
    return replace(config, objective=replace(config.objective, labels=term))


def train(
    start: tyro.conf.OmitArgPrefixes[Start],
    config: tyro.conf.AvoidSubcommands[tyro.conf.OmitArgPrefixes[TrainConfig]],
) -> None:
    """Train a model on a dataset and evaluate it on unseen patients."""
    from pyro_stitchnet.evaluation.experiment import experiment
    from pyro_stitchnet.runtime.distributed import rank

    out = experiment(config)
    if rank() == 0:
        print_scores(out / "test")
        print(f"model, log, curves, tables and figures: {out}")
