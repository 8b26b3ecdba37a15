"""One optimiser step, on one process or many, at any precision."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Adam

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.training.learner import Learner, LossOutput
from pyro_stitchnet.training.state import State

__all__ = ["Stepper", "compile_networks"]


class Stepper:
    """Steps of a run: gradients over all processes, clipped, and applied if they are finite."""

    def __init__(self, state: State) -> None:
        """Set up the model for the run's processes and precision."""
        self.state, fabric = state, state.fabric
        self._through = fabric.setup_module(_Through(state.learner), move_to_device=False)
        self._adam = cast(Adam, fabric.setup_optimizers(state.adam))
        # In 16 bits gradients are scaled up; the scaler skips a step whose scale was too large, and
        # lowers the scale.
        self._scaled = bool(fabric.strategy.precision.state_dict())

    def __call__(self, batches: Sequence[Batch]) -> tuple[float, float, LossOutput]:
        """Make one step; the model does not change where loss or gradient is not finite.

        Args:
            batches: this process's; the loss is the mean over them.

        Returns:
            The loss over all processes, the norm of the whole gradient before clipping by norm, and
            the output of the last batch.
        """
        state, fabric = self.state, self.state.fabric
        state.adam.zero_grad()
        buffers = [b.clone() for b in state.learner.buffers()]  # batch norm's running statistics
        total = torch.zeros((), device=batches[0].x.device)
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            with fabric.no_backward_sync(self._through, enabled=not last):
                loss, output = self._loss(batch)
                loss = loss / len(batches)
                fabric.backward(loss)
            total += loss.detach()
        total = torch.as_tensor(fabric.all_reduce(total, reduce_op="mean"))
        if self._scaled:
            fabric.strategy.precision.unscale_gradients(state.adam)
        norm = _clip(state)
        finite = bool(total.isfinite() and norm.isfinite())
        if finite or self._scaled:
            self._adam.step()
        if not finite:
            for buffer, before in zip(state.learner.buffers(), buffers, strict=True):
                buffer.copy_(before)
        else:
            state.learner.stepped()
            if state.average is not None:
                state.average.update_parameters(state.learner)
        return float(total), float(norm), output

    def _loss(self, batch: Batch) -> tuple[Tensor, LossOutput]:
        outputs: list[LossOutput] = []

        def compute() -> Tensor:
            outputs.append(self.state.learner.loss(batch, self.state.step + 1))
            return outputs[0].loss

        # The caller counts losses that are not finite: Pyro's checks would raise or warn.
        with pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered")
            return self._through(compute), outputs[0]


class _Through(nn.Module):
    """Runs a function of the networks as a forward pass, where Fabric and DDP hook in.

    It takes a function and not the batch: Fabric casts every tensor argument to half precision, and
    likelihoods need the slices in 32 bits.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def _clip(state: State) -> Tensor:
    """Clip the gradients; return the norm of the whole gradient before.

    Each tensor has its own norm, as in Keras and in Pyro's optimisers: at the start the gradient of
    the batch-normalised encoder is orders of magnitude larger than that of the heads, and with one
    norm over all the heads would not learn.
    """
    parameters = list(state.learner.parameters())
    if state.optimiser.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, state.optimiser.clip_value)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.norm() for g in gradients])
    shrink = (state.optimiser.clip_norm / (norms + 1e-6)).clamp_max(1)
    for gradient, factor in zip(gradients, shrink.unbind(), strict=True):
        gradient.mul_(factor)
    return norms.norm()


def compile_networks(networks: Iterable[nn.Module], *, backend: str = "inductor") -> None:
    """Compile networks in place; the names of their weights do not change.

    Args:
        networks: of a learner.
        backend: of torch.compile.
    """
    # Blocks of one class share their code, which every level compiles for its own shapes, with and
    # without gradients: beyond the default limit of 8 the later ones would silently not compile.
    torch._dynamo.config.recompile_limit = 64
    for network in networks:
        network.compile(backend=backend)
