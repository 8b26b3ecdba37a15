"""The cost of Pyro in a training step."""

from dataclasses import dataclass, replace

import plain_torch
import torch
from measure import Table, Work
from networks import NetworkMeasurement
from torch import nn

from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.label_terms import Enumerated, Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.presets import preset

PLAIN = "plain PyTorch"
TERMS = {"closed form": Marginal, "Pyro's enumeration": Enumerated}


@dataclass
class Enumeration(NetworkMeasurement):
    """A training step whose labels are summed out by Pyro, compared with plain PyTorch.

    On the same random slices, half of them labelled: the same networks and loss without Pyro
    (`plain_torch.py`), the closed form of the sum over labels, and TraceEnum_ELBO's enumeration.
    The command fails if the plain loss differs from the library's on the same draws of z.
    """

    presets: tuple[str, ...] = ("tiny", "article")  # those without a classifier
    sizes: tuple[int, ...] = (128, 256)  # multiples of 32

    def run(self) -> None:
        self.print_origin()
        table = Table(PLAIN)
        for name in self.presets:
            for size in self.sizes:
                self.check(name, size)
                works = {PLAIN: self.plain(name, size)}
                for term in TERMS:
                    works[term] = self.training_step(name, size, self.objective(name, term))
                table.add(f"`{name}`, {self.batch} slices of {size}", self.time(works))

    def objective(self, name: str, term: str) -> Objective:
        """A preset's objective with another label term."""
        objective = preset(name).objective
        if not isinstance(objective.labels, Enumerated | Marginal):
            raise SystemExit(f"{name}: its labels are not summed out; take another preset")
        labels = TERMS[term](objective.labels.label_weight)
        return replace(objective, labels=labels, kl_warmup=0)

    def check(self, name: str, size: int) -> None:
        """Compare the plain loss with the library's on the same draws of z.

        Raises:
            SystemExit: they differ.
        """
        net, data = self.learner(name).net.eval(), self.random_batch(size)
        objective = self.objective(name, "closed form")
        with torch.no_grad():
            torch.manual_seed(1)
            ours = float(bound(net, data.x, data.allowed, objective).loss)
            torch.manual_seed(1)
            plain = float(plain_torch.loss(net, data.x, data.allowed, objective))
        if abs(ours - plain) > 1e-5 * abs(ours):
            raise SystemExit(f"the plain loss is {plain}, the library's {ours}: they differ")

    def plain(self, name: str, size: int) -> Work:
        """The step by hand: the same networks, loss, clipping and Adam."""
        net, data, fabric = self.learner(name).net, self.random_batch(size), self.fabric()
        objective, optimiser = self.objective(name, "closed form"), preset(name).optimiser
        adam = torch.optim.Adam(net.parameters(), optimiser.learning_rate, fused=True)

        def step() -> None:
            adam.zero_grad()
            with fabric.autocast():
                loss = plain_torch.loss(net, data.x, data.allowed, objective)
            loss.backward()
            clip(net, optimiser.clip_norm)
            adam.step()

        return step


def clip(net: nn.Module, most: float) -> None:
    """Clip tensor by tensor, as the library does."""
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, list((most / (norms + 1e-6)).clamp_max(1).unbind()))
