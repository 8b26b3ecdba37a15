"""Where does a training step's time go?

    OMP_NUM_THREADS=2 python benchmarks/profile_step.py --preset article --size 128

Runs training steps (forward, backward, clipping, Adam) of a preset on random slices, half of them
labelled, under torch.profiler. Prints the operators with the largest own time as a Markdown table;
on a GPU, the GPU's time.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.devices import Precision
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper


@dataclass
class Config:
    preset: str = "article"
    size: int = 128
    batch: int = 4
    steps: int = 3
    seed: int = 0
    device: str = "auto"
    precision: Precision = "32"
    top: int = 20  # operators to show
    trace: Path | None = None  # file for a trace, for chrome://tracing


def random_batch(size: int, batch: int, device: torch.device) -> Batch:
    """Random slices and a strong view of each; the first half has labels."""
    allowed = torch.ones(batch, size, size, len(LABELS), dtype=torch.bool)
    y = torch.randint(len(LABELS), (batch // 2, size, size))
    allowed[: batch // 2] = torch.nn.functional.one_hot(y, len(LABELS)).bool()
    x = torch.rand(batch, size, size)
    return Batch(x, allowed, x.sqrt()[None]).to(device)


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    fabric = make_fabric(config.device, precision=config.precision)
    chosen = preset(config.preset)
    net = StitchNet(chosen.model).to(fabric.device)
    state = State(learner_of(net, chosen.objective), chosen.optimiser, fabric)
    batch = random_batch(config.size, config.batch, fabric.device)
    step = Stepper(state)
    gpu = fabric.device.type == "cuda"

    def steps() -> None:
        for _ in range(config.steps):
            step([batch])
        if gpu:
            torch.cuda.synchronize()

    step([batch])  # allocates, chooses kernels
    start = time.perf_counter()
    steps()
    seconds = (time.perf_counter() - start) / config.steps
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu
    with profile(activities=activities) as profiler:
        steps()
    if config.trace:
        profiler.export_chrome_trace(str(config.trace))

    def own(event: torch.autograd.profiler_util.FunctionEventAvg) -> float:
        return event.self_device_time_total if gpu else event.self_cpu_time_total

    events = sorted(profiler.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in events)
    print("; ".join(f"{key} {value}" for key, value in provenance().items()))
    print(f"\n{config.preset}, {config.batch} slices of {config.size}: {seconds:.3f} s a step\n")
    print("| operator | of the step | ms a step | calls a step |\n|---|---:|---:|---:|")
    for event in events[: config.top]:
        milliseconds = own(event) / 1000 / config.steps
        print(
            f"| {event.key} | {own(event) / total:.1%} | {milliseconds:.1f} | "
            f"{event.count / config.steps:.0f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
