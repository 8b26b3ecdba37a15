"""Networks and random slices that the commands on training and segmentation share."""

from dataclasses import dataclass, replace
from typing import Any

import segmentation_models_pytorch as smp
import torch
from lightning_fabric import Fabric
from measure import Measurement, Work
from torch import nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper, compile_networks

UNET = "U-Net"


@dataclass
class NetworkMeasurement(Measurement):
    """A measurement of networks; their weights are random, which costs as much as trained ones."""

    batch: int = 4  # slices
    device: str = "auto"
    precision: Precision = "32"
    compile: bool = False
    checkpointing: bool = False  # compute activations of the presets again, to save memory

    def fabric(self) -> Fabric:
        return make_fabric(self.device, precision=self.precision)

    def learner(self, name: str, objective: Objective | None = None) -> Any:
        """A preset's model and loss."""
        torch.manual_seed(self.seed)
        net = checkpoint.build(replace(preset(name).model, checkpointing=self.checkpointing))
        net = net.to(self.fabric().device, memory_format=torch.channels_last)
        learner = learner_of(net, objective or preset(name).objective)
        if self.compile:
            compile_networks(learner.networks())
        return learner

    def training_step(self, name: str, size: int, objective: Objective | None = None) -> Work:
        """The library's step of a preset on random slices."""
        data, learner = self.random_batch(size), self.learner(name, objective)
        step = Stepper(State(learner, preset(name).optimiser, self.fabric()))
        return lambda: step([data])

    def unet(self) -> nn.Module:
        """segmentation-models-pytorch's U-Net over MobileNetV2."""
        torch.manual_seed(self.seed)
        unet = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=len(LABELS))
        unet = unet.to(self.fabric().device, memory_format=torch.channels_last)
        if self.compile:
            unet.compile()
        return unet

    def random_batch(self, size: int) -> Batch:
        """Random slices and a strong view of each; the first half has labels."""
        torch.manual_seed(self.seed)
        labelled = self.batch // 2
        allowed = torch.ones(self.batch, size, size, len(LABELS), dtype=torch.bool)
        y = torch.randint(len(LABELS), (labelled, size, size))
        allowed[:labelled] = nn.functional.one_hot(y, len(LABELS)).bool()
        x = torch.rand(self.batch, size, size)
        return Batch(x, allowed, x.sqrt()[None]).to(self.fabric().device)
