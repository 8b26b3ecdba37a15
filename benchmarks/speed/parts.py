"""The share of each network in a training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import Table, Work
from networks import NetworkMeasurement
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from pyro_stitchnet.model.stitchnet import StitchNet

WHOLE, PRODUCTS = "whole step", "matrix products"
PRODUCT_SIZE = 2048

Call = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


@dataclass
class Parts(NetworkMeasurement):
    """Forward and backward pass of each network of a preset, compared with the whole step's.

    Records the calls of every network in one step, and repeats them with the same inputs. What the
    parts leave over is the likelihood, Pyro, and passes without gradients. Operations are those of
    convolutions and matrix products. Large matrix products of as many operations as the whole step
    show how fast it could be.
    """

    preset: str = "guided"
    sizes: tuple[int, ...] = (128,)

    def run(self) -> None:
        self.print_origin()
        table = Table(WHOLE, "GFLOP a slice")
        for size in self.sizes:
            works = self.works(size)
            operations = {name: flops(work) / self.batch / 1e9 for name, work in works.items()}
            operations[PRODUCTS] = operations[WHOLE]
            works[PRODUCTS] = self.products(operations[WHOLE] * self.batch * 1e9)
            case = f"`{self.preset}`, {self.batch} slices of {size}"
            shown = {name: f"{value:.2f}" for name, value in operations.items()}
            table.add(case, self.time(works), shown)

    def works(self, size: int) -> dict[str, Work]:
        learner, data, fabric = self.learner(self.preset), self.random_batch(size), self.fabric()

        def whole() -> None:
            with fabric.autocast():
                loss = learner.loss(data, 1).loss
            loss.backward()

        works: dict[str, Work] = {WHOLE: whole}
        for name, calls in recorded(networks(learner.net), whole).items():

            def work(calls: list[Call] = calls) -> None:
                with fabric.autocast():
                    outputs = [call(*arguments, **named) for call, arguments, named in calls]
                tensors = [t for output in outputs for t in flat(output)]
                torch.stack([t.float().sum() for t in tensors]).sum().backward()

            works[name] = work
        return works

    def products(self, operations: float) -> Work:
        """Products of large matrices with a number of operations in all."""
        fabric = self.fabric()
        one, other = torch.rand(2, PRODUCT_SIZE, PRODUCT_SIZE, device=fabric.device)
        number = max(round(operations / (2 * PRODUCT_SIZE**3)), 1)

        def work() -> None:
            with fabric.autocast():
                for _ in range(number):
                    one @ other

        return work


def networks(net: StitchNet) -> dict[str, list[nn.Module]]:
    """The networks of a model: encoder, levels of z, decoder, heads."""
    svae = net.svae
    found: dict[str, list[nn.Module]] = {}
    if net.classifier is not None:
        found["classifier"] = [net.classifier]
    found["encoder"] = [svae.encoder]
    for level in range(len(svae.crush), 0, -1):
        lists = (svae.crush, svae.expand, svae.up, svae.prior_crush or ())
        found[f"z{level}"] = [modules[level - 1] for modules in lists if level <= len(modules)]
    return {**found, "decoder": [svae.decoder], "heads": list(net.heads)}


def recorded(groups: dict[str, list[nn.Module]], step: Work) -> dict[str, list[Call]]:
    """The calls with gradients of each group in a step, their inputs detached."""
    calls: dict[str, list[Call]] = {name: [] for name in groups}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            if torch.is_grad_enabled():
                calls[name].append((module, tuple(map(detached, arguments)), named))

        return record

    handles = [
        module.register_forward_pre_hook(recorder(name), with_kwargs=True)
        for name, modules in groups.items()
        for module in modules
    ]
    step()
    for handle in handles:
        handle.remove()
    return {name: made for name, made in calls.items() if made}


def detached(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def flat(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def flops(work: Work) -> int:
    mapping = {torch.ops.aten.convolution_backward: backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


def backward_flops(
    gradient: list[int], x: list[int], weight: list[int], *options: Any, out_shape: Any
) -> int:
    """Operations of a convolution's gradients: torch counts groups as if there were none."""
    *_, transposed, _, _, wanted = options
    return sum(wanted[:2]) * conv_flop_count(x, weight, gradient, transposed=transposed)
