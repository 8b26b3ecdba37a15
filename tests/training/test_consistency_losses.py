"""The losses of perturbed views, by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.training import consistency_losses
from pyro_stitchnet.training.consistency_losses import cross_entropy, strong_views_loss

K = 4


def test_cut_mix_takes_view_label_and_weight_from_the_same_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    box = torch.zeros(2, 3, dtype=torch.bool)
    box[0, :2] = True
    monkeypatch.setattr(consistency_losses, "random_box", lambda _: box)
    strong, labels = torch.rand(2, 3, 2, 3), torch.randint(K, (3, 2, 3))
    weight = torch.rand(3, 2, 3)
    slope = torch.randn(K, 1, 1)

    def logits(x: Tensor) -> Tensor:
        return slope * x.unsqueeze(1)

    total = 0.0
    for view in strong:
        for n in range(3):
            for i in range(2):
                for j in range(3):
                    source = (n - 1) % 3 if box[i, j] else n
                    log_p = (slope.flatten() * view[source, i, j]).log_softmax(0)
                    total -= float(weight[source, i, j] * log_p[labels[source, i, j]])
    result = strong_views_loss(logits, strong, labels, weight)
    assert float(result) == pytest.approx(total / strong.numel(), rel=1e-5)


def test_one_slice_is_not_mixed() -> None:
    x, labels, weight = torch.rand(1, 1, 2, 2), torch.randint(K, (1, 2, 2)), torch.rand(1, 2, 2)
    scores = torch.randn(1, K, 2, 2)
    expected = functional.cross_entropy(scores, labels, reduction="none") * weight
    result = strong_views_loss(lambda _: scores, x, labels, weight)
    torch.testing.assert_close(result, expected.mean())


def test_cross_entropy_without_slices_is_zero() -> None:
    assert float(cross_entropy(torch.rand(0, K, 2, 2), torch.zeros(0, 2, 2).long())) == 0
