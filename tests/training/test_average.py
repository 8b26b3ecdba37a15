"""The moving average: its decay, its buffers, and the teacher's mode."""

import torch
from torch import nn

from pyro_stitchnet.training.average import Average, Teacher


def test_the_decay_rises_to_its_value() -> None:
    network = nn.Linear(1, 1)
    average = Average(network, 0.5)
    differences, expected = [], 0.0
    for n in range(30):
        nn.init.constant_(network.weight, float(n))
        average.update_parameters(network)
        decay = 0.0 if n == 0 else min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        differences.append(float(average.module.state_dict()["weight"]) - expected)
    assert max(map(abs, differences)) < 1e-4


def test_after_a_few_steps_little_of_the_initial_weights_is_left() -> None:
    """With a constant decay of .99 it would be .99^100 = .37."""
    network = nn.Linear(1, 1)
    average = Average(network, 0.99)
    nn.init.constant_(network.weight, 1.0)
    average.update_parameters(network)
    nn.init.constant_(network.weight, 0.0)
    for _ in range(100):
        average.update_parameters(network)
    assert float(average.module.state_dict()["weight"]) < 1e-6


def test_buffers_are_averaged_and_counts_are_copied() -> None:
    network = nn.BatchNorm1d(1)
    average = Average(network, 0.5)
    for count, mean in enumerate((0.0, 11.0), 1):
        state = {"running_mean": torch.tensor([mean]), "num_batches_tracked": torch.tensor(count)}
        network.load_state_dict(network.state_dict() | state)
        average.update_parameters(network)
    buffers = average.module.state_dict()
    torch.testing.assert_close(buffers["running_mean"], torch.tensor([9.0]))
    assert int(buffers["num_batches_tracked"]) == 2


def test_a_teacher_stays_in_evaluation_mode_without_gradients() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1))
    teacher = Teacher(network, 0.5)
    assert not teacher.train().training
    assert not teacher.module.training
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.rand(2, 8, 8)
    p = teacher.probabilities(x)
    expected = network.eval()(x[:, None]).softmax(1)
    torch.testing.assert_close(p, expected.detach())
