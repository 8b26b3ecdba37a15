"""The cost of a training step and of a segmentation, compared with plain PyTorch and a U-Net.

    OMP_NUM_THREADS=2 python benchmarks/step_speed.py --presets article tiny --sizes 128 192

Contenders of a training step, on the same random slices, half of them labelled:

* ``enumerated``: the library's step, the labels summed out by Pyro's TraceEnum_ELBO;
* ``marginal``: the same number in closed form;
* ``plain``: the same networks and loss without Pyro (``plain_torch.py``), compared for equality;
* ``guided``: the step of a preset with a classifier q(y | x), in place of the above;
* ``unet``: segmentation_models_pytorch's U-Net over MobileNetV2, cross-entropy on all slices.

All use fused Adam and channels last, as the library does; the first three also its clipping. Every
round times every contender once, in turn, so that noise affects all equally. The tables have the
median over rounds, and the median of the rounds' ratios with its quartiles. Peak memory is that of
a separate process on the CPU, or torch's allocation on a GPU.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import plain_torch
import segmentation_models_pytorch as smp
import torch
import tyro
from profile_step import random_batch
from torch import nn

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.label_terms import Enumerated, Marginal
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.devices import Precision
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper, compile_networks

Work = Callable[[], object]
STEPS = ("enumerated", "marginal", "plain", "unet")
GUIDED_STEPS = ("guided", "unet")


@dataclass
class Config:
    presets: tuple[str, ...] = ("article", "tiny")
    sizes: tuple[int, ...] = (128, 192, 256, 352)  # multiples of 32
    batch: int = 4
    rounds: int = 7
    device: str = "auto"
    precision: Precision = "32"
    compile: bool = False
    memory: bool = True
    seed: int = 0


@dataclass
class Setting:
    """One preset, one size and one batch for all contenders."""

    config: Config
    preset: str
    size: int
    batch: int

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.seed)
        self.fabric = make_fabric(self.config.device, precision=self.config.precision)
        self.device = self.fabric.device
        self.data = random_batch(self.size, self.batch, self.device)

    def net(self) -> StitchNet:
        torch.manual_seed(self.config.seed)
        net = StitchNet(preset(self.preset).model)
        net = net.to(self.device, memory_format=torch.channels_last)
        if self.config.compile:
            compile_networks(net)
        return net

    def unet(self) -> nn.Module:
        unet = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=len(LABELS))
        unet = unet.to(self.device, memory_format=torch.channels_last)
        if self.config.compile:
            unet.compile()
        return unet

    def autocast(self) -> AbstractContextManager:
        return self.fabric.autocast()

    def step(self, name: str) -> Work:
        """A training step of a contender."""
        chosen = preset(self.preset)
        if name == "unet":
            unet = self.unet()
            adam = torch.optim.Adam(unet.parameters(), fused=True)
            y = torch.randint(len(LABELS), self.data.x.shape, device=self.device)

            def supervised() -> None:
                adam.zero_grad()
                with self.autocast():
                    logits = unet(self.data.x[:, None])
                nn.functional.cross_entropy(logits.float(), y).backward()
                adam.step()

            return supervised
        if name == "plain":
            net = self.net()
            adam = torch.optim.Adam(net.parameters(), chosen.optimiser.learning_rate, fused=True)

            def plain() -> None:
                adam.zero_grad()
                with self.autocast():
                    loss = plain_torch.loss(net, self.data.x, self.data.allowed, chosen.objective)
                loss.backward()
                clip(net, chosen.optimiser.clip_norm)
                adam.step()

            return plain
        labels = chosen.objective.labels
        if name != "guided":
            term = {"enumerated": Enumerated, "marginal": Marginal}[name]
            labels = term(labels.label_weight)
        objective = replace(chosen.objective, labels=labels, kl_warmup=0)
        learner = learner_of(self.net(), objective)
        state = State(learner, chosen.optimiser, self.fabric)
        stepper = Stepper(state)
        return lambda: stepper([self.data])

    def predictions(self) -> dict[str, Work]:
        """Labels of the batch, without gradients."""
        net, unet, x = self.net().eval(), self.unet().eval(), self.data.x

        # the cheapest read-out, without styles
        cheap: ReadOut = "prior" if net.classifier is None else "guide"

        def ours(
            read: Callable[..., object], read_out: ReadOut = "posterior", samples: int = 1
        ) -> Work:
            options = ReadOutOptions(read_out, samples, batch_size=len(x))

            def work() -> None:
                with self.autocast():
                    read(net, x, options)

            return work

        def theirs() -> None:
            with torch.no_grad(), self.autocast():
                unet(x[:, None]).argmax(1)

        return {
            "labels": ours(probabilities, cheap),
            "labels, 4 draws": ours(probabilities, cheap, samples=4),
            "labels and styles": ours(segment),
            "unet": theirs,
        }


def clip(net: nn.Module, most: float) -> None:
    """Clip tensor by tensor, as the library does."""
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, list((most / (norms + 1e-6)).clamp_max(1).unbind()))


def check_plain(setting: Setting) -> float:
    """The relative difference of the plain loss from the library's on the same draws of z."""
    objective = preset(setting.preset).objective
    objective = replace(objective, labels=Marginal(objective.labels.label_weight))
    net, x, allowed = setting.net().eval(), setting.data.x, setting.data.allowed
    with torch.no_grad():
        torch.manual_seed(1)
        ours = float(bound(net, x, allowed, objective).loss)
        torch.manual_seed(1)
        plain = float(plain_torch.loss(net, x, allowed, objective))
    difference = abs(ours - plain) / abs(ours)
    if difference > 1e-5:
        raise SystemExit(f"the plain loss is {plain}, the library's {ours}: they differ")
    return difference


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rounds(contenders: Mapping[str, Work], count: int) -> dict[str, np.ndarray]:
    """Seconds of each contender in each round, after a warm-up round."""
    times = [[seconds(work) for work in contenders.values()] for _ in range(count + 1)]
    return dict(zip(contenders, np.array(times[1:]).T, strict=True))


def ratio(times: np.ndarray, other: np.ndarray) -> str:
    low, middle, high = np.quantile(times / other, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def peak_memory(config: Config, name: str, size: int, batch: int, contender: str) -> float:
    """Peak GB of two training steps; to be run in a separate process."""
    setting = Setting(config, name, size, batch)
    work = setting.step(contender)
    work(), work()
    if setting.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # Not that of getrusage, which a process inherits from its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def memory(config: Config, *what: object) -> float | None:
    if not config.memory:
        return None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(peak_memory, config, *what).result()  # type: ignore[arg-type]


def compare(config: Config) -> None:
    print("| preset | size | step | seconds | / plain | / unet | peak GB |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name in config.presets:
        for size in config.sizes:
            setting = Setting(config, name, size, config.batch)
            guided = preset(name).model.classifier
            if not guided:
                check_plain(setting)
            steps = GUIDED_STEPS if guided else STEPS
            times = rounds({step: setting.step(step) for step in steps}, config.rounds)
            for step, taken in times.items():
                most = memory(config, name, size, config.batch, step)
                print(
                    f"| {name} | {size} | {step} | {np.median(taken):.3f} | "
                    f"{'' if guided else ratio(taken, times['plain'])} | "
                    f"{ratio(taken, times['unet'])} | "
                    f"{'' if most is None else f'{most:.2f}'} |",
                    flush=True,
                )
    print("\n| preset | size | prediction | slices/s | time / unet's |\n|---|---:|---|---:|---:|")
    for name in config.presets:
        for size in config.sizes:
            times = rounds(Setting(config, name, size, config.batch).predictions(), config.rounds)
            for what, taken in times.items():
                rate = config.batch / np.median(taken)
                against = ratio(taken, times["unet"])
                print(f"| {name} | {size} | {what} | {rate:.1f} | {against} |", flush=True)


def head(config: Config) -> str:
    """Versions, date and settings of the run."""
    about = "; ".join(f"{key} {value}" for key, value in provenance().items())
    return (
        f"{about}; OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'unset')}; "
        f"segmentation-models-pytorch {version('segmentation-models-pytorch')}; batch "
        f"{config.batch}, {config.rounds} rounds, precision {config.precision}\n"
    )


def main(config: Config) -> None:
    print(head(config))
    compare(config)


if __name__ == "__main__":
    main(tyro.cli(Config))
