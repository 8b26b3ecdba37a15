"""The cost of a segmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import Table, Work
from networks import UNET, NetworkMeasurement

from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities, segment


@dataclass
class Segment(NetworkMeasurement):
    """The segmentation of a batch without gradients, compared with a U-Net's labels.

    "quick labels" are the classifier's q(y | x), or p(y | z) in a model without a classifier; the
    other rows read the posterior.
    """

    presets: tuple[str, ...] = ("guided", "tiny", "article")
    sizes: tuple[int, ...] = (128, 256)  # multiples of 32, of 64 for `guided`
    samples: int = 8  # draws of z, compared with one
    views: int = 8  # compared with one

    def run(self) -> None:
        self.print_origin()
        table = Table(UNET)
        for name in self.presets:
            for size in self.sizes:
                case = f"`{name}`, {self.batch} slices of {size}"
                table.add(case, self.time(self.works(name, size)))

    def works(self, name: str, size: int) -> dict[str, Work]:
        net, unet, fabric = self.learner(name).net.eval(), self.unet().eval(), self.fabric()
        x = self.random_batch(size).x

        def ours(
            read: Callable[..., object],
            read_out: ReadOut = "posterior",
            samples: int = 1,
            views: int = 1,
        ) -> Work:
            options = ReadOutOptions(read_out, samples, views, batch_size=self.batch)

            def work() -> None:
                with fabric.autocast():
                    read(net, x, options)

            return work

        def theirs() -> None:
            with torch.no_grad(), fabric.autocast():
                unet(x[:, None]).argmax(1)

        return {
            UNET: theirs,
            "quick labels": ours(probabilities, "prior" if net.classifier is None else "guide"),
            "labels": ours(probabilities),
            f"labels, {self.views} views": ours(probabilities, views=self.views),
            "labels and styles": ours(segment),
            f"labels and styles, {self.samples} draws": ours(segment, samples=self.samples),
        }
