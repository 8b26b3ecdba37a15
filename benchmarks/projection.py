"""Estimated time of one H100 for a pass through the article's 444,034 slices: arithmetic only.

    python benchmarks/projection.py --presets article tiny guided --size 256

Counts the floating-point operations of a training step, forward and backward, with torch's counter
(convolutions and matrix products), and divides them by a share of the card's stated peak in bf16.
Nothing is measured on a GPU. MobileNetV2's depthwise convolutions are bound by memory, so a low
share is likely.
"""

from dataclasses import dataclass

import torch
import tyro
from profile_step import random_batch
from torch.utils.flop_counter import FlopCounterMode

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.run import learner_of

SLICES = 444_034  # unlabelled ones of the article, from CC-CCII
PEAK = 989e12  # operations a second: H100 SXM, bf16, dense, by NVIDIA's data sheet
SHARES = (0.02, 0.1, 0.3)  # of the peak


@dataclass
class Config:
    presets: tuple[str, ...] = ("article", "tiny", "guided")
    size: int = 256
    batch: int = 8
    seed: int = 0


def main(config: Config) -> None:
    print("; ".join(f"{key} {value}" for key, value in provenance().items()), end="\n\n")
    print("| preset | size | GFLOP a slice |", end="")
    print("".join(f" hours a pass at {share:.0%} of the peak |" for share in SHARES))
    print("|---|---:|---:|" + "---:|" * len(SHARES))
    for name in config.presets:
        torch.manual_seed(config.seed)
        chosen = preset(name)
        learner = learner_of(StitchNet(chosen.model), chosen.objective)
        batch = random_batch(config.size, config.batch, torch.device("cpu"))
        with FlopCounterMode(display=False) as counter:
            learner.loss(batch, 1).loss.backward()
        a_slice = counter.get_total_flops() / config.batch
        hours = [SLICES * a_slice / (share * PEAK) / 3600 for share in SHARES]
        numbers = "".join(f" {value:.2f} |" for value in hours)
        print(f"| `{name}` | {config.size} | {a_slice / 1e9:.1f} |{numbers}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
