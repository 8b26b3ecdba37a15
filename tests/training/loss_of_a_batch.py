"""Print loss, gradient and batch statistics of one batch, of which each process has its rows.

In 64 bits: the article's chain of batch norms amplifies differences of rounding a thousandfold.
"""

import json
import os
from dataclasses import replace

import torch

from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.distributed import all_mean, leave, own_rows

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
if "RANK" in os.environ:
    torch.distributed.init_process_group("gloo")
tiny = preset("tiny")
torch.manual_seed(0)
net = StitchNet(replace(tiny.model, norm="batch"))
x = torch.rand(4, 64, 64)
allowed = torch.ones(4, 64, 64, 4, dtype=torch.bool)
allowed[:2] = torch.nn.functional.one_hot(torch.randint(4, (2, 64, 64)), 4).bool()
torch.manual_seed(1)
rows = own_rows(4)
loss = bound(net, x[rows], allowed[rows], replace(tiny.objective, free_bits=0.5)).loss
loss.backward()
norms = [all_mean(p.grad).norm() for p in net.parameters() if p.grad is not None]
mean = float(all_mean(loss.detach()))
if os.environ.get("RANK", "0") == "0":
    statistics = sum(float(b.abs().sum()) for b in net.buffers() if b.is_floating_point())
    gradient = float(torch.stack(norms).norm())
    print(json.dumps({"loss": mean, "gradient": gradient, "statistics": statistics}))
leave()
