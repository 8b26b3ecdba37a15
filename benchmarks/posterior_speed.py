"""The cost of more draws of z: seconds of `segment` with S draws over those with one.

    OMP_NUM_THREADS=1 python benchmarks/posterior_speed.py --presets guided article

Every round times each number of draws once, in turn. Prints medians over rounds, and the median of
the rounds' ratios to one draw.
"""

import time
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
import tyro

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.provenance import provenance


@dataclass
class Config:
    presets: tuple[str, ...] = ("guided", "article", "tiny")
    sizes: tuple[int, ...] = (128, 256)
    slices: int = 4
    draws: tuple[int, ...] = (1, 8)  # the others are compared with the first
    rounds: int = 5
    device: str = "auto"
    clock: Literal["wall", "cpu"] = "wall"  # "cpu": of this process, for a shared machine


def main(config: Config) -> None:
    device = choose_device(config.device)
    clock = time.process_time if config.clock == "cpu" else time.perf_counter
    rows = []
    for name in config.presets:
        net = StitchNet(preset(name).model).to(device)
        for size in config.sizes:
            x = torch.rand(config.slices, size, size, device=device)
            segment(net, x)
            for turn in range(config.rounds):
                for draws in config.draws:
                    begun = clock()
                    segment(net, x, ReadOutOptions(samples=draws))
                    if device.type == "cuda":
                        torch.cuda.synchronize()
                    seconds = clock() - begun
                    rows.append((name, size, turn, draws, seconds))
    table = pd.DataFrame(rows, columns=["preset", "size", "round", "draws", "seconds"])
    wide = table.pivot(index=["preset", "size", "round"], columns="draws", values="seconds")
    ratios = wide.div(wide[config.draws[0]], axis=0).drop(columns=config.draws[0])
    medians = wide.groupby(["preset", "size"], sort=False).median()
    print(f"{config.slices} slices; {config.clock} clock; {provenance()}")
    print(
        medians.round(3)
        .join(ratios.groupby(["preset", "size"]).median().round(2).add_suffix(" draws / one"))
        .to_string()
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
