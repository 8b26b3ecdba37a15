"""The moving average: of what it is one, and how soon it forgets the start."""

import torch
from torch import nn

from pyro_stitchnet.training.average import Average


def test_the_decay_grows_to_the_wanted_one() -> None:
    network = nn.Linear(1, 1)
    average = Average(network, 0.5)
    found, wanted = [], 0.0
    for n in range(30):
        nn.init.constant_(network.weight, float(n))
        average.update_parameters(network)
        kept = 0.0 if n == 0 else min(0.5, (1 + n) / (10 + n))
        wanted = kept * wanted + (1 - kept) * n
        found.append(float(average.module.state_dict()["weight"]) - wanted)
    assert max(map(abs, found)) < 1e-4


def test_after_a_few_steps_little_of_the_start_is_left() -> None:
    """A constant decay of .99 would keep .99^100 = .37 of it."""
    network = nn.Linear(1, 1)
    average = Average(network, 0.99)
    nn.init.constant_(network.weight, 1.0)
    average.update_parameters(network)
    nn.init.constant_(network.weight, 0.0)
    for _ in range(100):
        average.update_parameters(network)
    assert float(average.module.state_dict()["weight"]) < 1e-6


def test_buffers_are_averaged_and_counts_are_the_last() -> None:
    network = nn.BatchNorm1d(1)
    average = Average(network, 0.5)
    for count, mean in enumerate((0.0, 11.0), 1):
        state = {"running_mean": torch.tensor([mean]), "num_batches_tracked": torch.tensor(count)}
        network.load_state_dict(network.state_dict() | state)
        average.update_parameters(network)
    found = average.module.state_dict()
    torch.testing.assert_close(found["running_mean"], torch.tensor([9.0]))
    assert int(found["num_batches_tracked"]) == 2
