"""Alarms ring for what they are about and stay silent otherwise; bad steps are explained."""

import math
import re

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.health import alarms, why_not_finite

WELL = {
    "elbo/kl": 1.0,
    **{f"kl/z{n}": 0.1 for n in range(1, 6)},
    "style_gap/ggo-consolidation": 0.2,
    "unlabelled_style_gap/ggo-consolidation": 0.0,
    "told/ggo": 0.10,
    "told_share/ggo": 0.06,
}


@pytest.mark.parametrize(
    ("ill", "name", "words"),
    [
        ({"kl/z2": 5e-5}, "collapse/z2", "z2 says almost nothing.*8.0e-04 nats.*--free-bits"),
        ({"style_gap/ggo-consolidation": 0.009}, "styles/ggo-consolidation", "are alike.*0.0090"),
        ({"told_share/ggo": 0.04}, "share/ggo", "ggo is predicted on 4.00%.*is on 10.00%"),
    ],
)
def test_each_alarm_rings_for_its_own_cause(ill: dict[str, float], name: str, words: str) -> None:
    assert alarms([WELL] * 30) == {}
    found = alarms([{**WELL, **ill}] * 10)
    assert list(found) == [name]
    assert re.search(words, found[name])


def test_one_bad_batch_or_a_short_log_rings_nothing() -> None:
    ill = {**WELL, "told_share/ggo": 0.0}
    assert alarms([ill] * 9) == {}
    assert alarms([{"loss": 1.0}] * 30) == {}
    assert alarms([ill] * 5 + [WELL] * 9 + [ill]) == {}
    assert "share/ggo" in alarms([WELL] * 30 + [ill] * 10)


def test_a_step_that_is_not_finite_is_explained() -> None:
    net = StitchNet(preset("tiny").model)
    x = torch.full((2, 64, 64), 0.5)
    x[1, 3, 4] = math.nan
    batch = Batch(x, torch.ones(2, 64, 64, 4, dtype=torch.bool), names=["good", "bad"])
    assert why_not_finite(net, batch) == "not finite: bad: its grey values"
    fine = Batch(batch.x[:1], batch.allowed[:1])
    assert "it is the gradient" in why_not_finite(net, fine)
    with torch.no_grad():
        for weights in net.svae.up[0].parameters():  # makes d~1 of z2, so the prior of z1
            weights.fill_(math.inf)
    said = why_not_finite(net, fine)
    assert said.startswith("not finite: 0: ")
    assert "kl/z1" in said
    assert "kl/z5" not in said
