"""The state of a training run: all that its next step needs, in memory and on disk."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.runtime import torch_files
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.runtime.settings import differences
from pyro_stitchnet.runtime.threads import chosen_by_user
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.average import Average
from pyro_stitchnet.training.learner import Learner

__all__ = ["State", "check_same_run"]

FORMAT = "state 6"


class State:
    """The state of a run.

    Attributes:
        learner: the networks.
        optimiser: learning rate and clipping.
        fabric: processes and precision.
        adam: the optimiser, with its moments.
        average: the moving average of the weights, or None.
        step: number of steps made.
        skipped: number of steps whose loss or gradient was not finite.
        in_a_row: number of the last steps that were skipped.
        seconds: of training up to the start of the last step, with validations and earlier parts.
        rows: of the log, see :func:`~pyro_stitchnet.training.loop.train`.
        resumed: the steps at which the run was resumed.
    """

    def __init__(
        self, learner: Learner, optimiser: OptimiserConfig, fabric: Fabric | None = None
    ) -> None:
        """Start a new run.

        Args:
            learner: the networks, on the device to train on.
            optimiser: learning rate and clipping.
            fabric: processes and precision, launched; one process at 32 bits by default.
        """
        # A U-Net's step takes a fifth less on CPUs. The StitchNet does not set this itself: Pyro's
        # parameter store copies weights in this format (tests/model/test_pyro_traps.py).
        self.learner = learner.to(memory_format=torch.channels_last)
        for network in learner.networks():  # group norm takes twice as long in this format
            if any(isinstance(module, nn.GroupNorm) for module in network.modules()):
                network.to(memory_format=torch.contiguous_format)
        self.optimiser = optimiser
        self.fabric = fabric or make_fabric(str(next(learner.parameters()).device))
        # Fused: a loop over a thousand small tensors takes a tenth of a step. Scaled gradients
        # cannot be clipped before a fused Adam.
        scaled = bool(self.fabric.strategy.precision.state_dict())
        trained = [p for p in learner.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(trained, lr=optimiser.learning_rate, fused=not scaled)
        self.average: Average | None = None
        if optimiser.ema:
            self.average = Average(learner, optimiser.ema)
        self.step = self.skipped = self.in_a_row = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.resumed: list[int] = []
        self._best: tuple[float, int, dict[str, Tensor]] | None = None

    @property
    def log(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows)

    @property
    def best_step(self) -> int:
        """The step of the best weights on validation; without validation, the last one."""
        return self.step if self._best is None else self._best[1]

    @property
    def evaluated(self) -> Learner:
        """The networks to evaluate: those of the averaged weights, where there is an average."""
        return self.learner if self.average is None else cast(Learner, self.average.module)

    def count(self, finite: bool) -> None:
        """Count a step, applied or skipped because it was not finite."""
        self.step += 1
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1

    def offer(self, score: float) -> None:
        """Keep the evaluated weights as the best if no earlier ones scored higher.

        A score that is not a number counts as the lowest.
        """
        score = -math.inf if math.isnan(score) else score
        if self._best is None or score >= self._best[0]:
            self._best = score, self.step, copy.deepcopy(self.evaluated.state_dict())

    def restore_best(self) -> None:
        """Load the best weights, and leave training mode."""
        best = self.evaluated.state_dict() if self._best is None else self._best[2]
        self.learner.load_state_dict(best)
        self.learner.eval()

    def save(self, path: Path, config: Mapping[str, Any]) -> None:
        """Write all that the next step needs, the random state included, atomically.

        Args:
            path: a file; its folder must exist.
            config: plain data that the run depends on; :meth:`load` compares it.
        """
        device = self.fabric.device
        cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        content = {
            "format": FORMAT,
            "config": dict(config),
            "learner": self.learner.state_dict(),
            "adam": self.adam.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": [torch.get_rng_state(), *cuda],
            "best": self._best,
            "threads": torch.get_num_threads(),
            **{name: getattr(self, name) for name in _PLAIN},
        }
        torch_files.write(content, path)

    def load(self, path: Path, config: Mapping[str, Any]) -> None:
        """Resume from what :meth:`save` wrote; on the CPU to the same bits as without the stop.

        Args:
            path: the file.
            config: the same data of the resumed run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or of a run with other options; the message lists them.
        """
        content = checkpoint.read(path, FORMAT)
        _check_same(path, content.get("config"), config)
        try:
            self._restore(content)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a state of this run's networks ({error})") from error

    def _restore(self, content: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(content["learner"])
        self.adam.load_state_dict(content["adam"])
        self.fabric.strategy.precision.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        for name in _PLAIN:
            setattr(self, name, content[name])
        self._best = content["best"]
        if not chosen_by_user():
            torch.set_num_threads(content["threads"])  # sums of other parts round differently
        self.resumed = [*self.resumed, self.step]
        cpu, *cuda = content["random"]
        torch.set_rng_state(cpu)
        device = self.fabric.device
        if device.type == "cuda" and cuda:  # every process draws as the first
            torch.cuda.set_rng_state(cuda[0], device)


_PLAIN = ("step", "skipped", "in_a_row", "seconds", "rows", "resumed")


def check_same_run(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a state of a run with other options, without changing anything.

    Args:
        path: what :meth:`State.save` wrote.
        config: what the run now depends on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of a run with other options; the message lists them.
    """
    try:
        content = checkpoint.read(path, FORMAT)
    except ValueError as error:
        raise ValueError(
            f"{error}, or delete it: --resume then takes the state before it, if --keep-last kept "
            "one"
        ) from error
    _check_same(path, content.get("config"), config)


def _check_same(path: Path, before: Any, config: Mapping[str, Any]) -> None:
    if not isinstance(before, dict):
        raise ValueError(f"{path}: lacks the options of its run; start a new run")
    if differ := differences(before, config):
        raise ValueError(
            f"{path}: the options differ from those of the run: {'; '.join(differ)}; give the "
            "same ones, or choose another --out"
        )
