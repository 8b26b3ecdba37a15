"""The cost of a training step."""

from dataclasses import dataclass

import torch
from measure import Table, Work, peak_memory
from networks import UNET, NetworkMeasurement
from torch import nn

from pyro_stitchnet.labels import LABELS


@dataclass
class Step(NetworkMeasurement):
    """A training step of presets, compared with a U-Net's.

    All on the same random slices, half of them labelled, with fused Adam and channels last. The
    U-Net is segmentation-models-pytorch's over MobileNetV2, with cross-entropy on all slices. Peak
    memory is that of a process of its own on the CPU, torch's own on a GPU.
    """

    presets: tuple[str, ...] = ("guided", "tiny", "article")
    sizes: tuple[int, ...] = (128, 256)  # multiples of 32, of 64 for `guided`
    memory: bool = True

    def run(self) -> None:
        self.print_origin()
        table = Table(UNET, "peak GB" if self.memory else "")
        for size in self.sizes:
            works = {UNET: (self.supervised_step, size)}
            works |= {name: (self.training_step, name, size) for name in self.presets}
            times = self.time(
                {name: make(*arguments) for name, (make, *arguments) in works.items()}
            )
            peaks = {name: peak_memory(*work) for name, work in works.items() if self.memory}
            table.add(f"{self.batch} slices of {size}", times, peaks)

    def supervised_step(self, size: int) -> Work:
        """The U-Net's step."""
        unet, data, fabric = self.unet(), self.random_batch(size), self.fabric()
        adam = torch.optim.Adam(unet.parameters(), fused=True)
        y = torch.randint(len(LABELS), data.x.shape, device=fabric.device)

        def step() -> None:
            adam.zero_grad()
            with fabric.autocast():
                logits = unet(data.x[:, None])
            nn.functional.cross_entropy(logits.float(), y).backward()
            adam.step()

        return step
