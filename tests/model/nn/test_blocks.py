"""The blocks against the article's shapes and the reference code's parameter counts."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_stitchnet.model.nn.blocks import (
    Crush,
    Down,
    Expand,
    Head,
    LightSmooth,
    ResBlock,
    Smooth,
    Transpose,
    Up,
    UpStep,
    start_as_identity,
)
from pyro_stitchnet.model.nn.norm import TwoRoleBatchNorm2d, norm, set_role

CHANNELS = (32, 64, 128, 256, 512)  # of d1..d5, Table 2


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("norm_kind", ["batch", "group"])
@pytest.mark.parametrize("f", [16, 64, 128])
@pytest.mark.parametrize("block", [Smooth, LightSmooth, Down, Up])
def test_blocks_keep_the_size(
    block: Callable[[int, int, str], nn.Module], f: int, norm_kind: str
) -> None:
    assert block(24, f, norm_kind)(torch.randn(2, 24, 6, 10)).shape == (2, f, 6, 10)


@pytest.mark.parametrize("norm_kind", ["batch", "group"])
@pytest.mark.parametrize("f", [16, 64, 128])
@pytest.mark.parametrize("block", [Transpose, UpStep])
def test_transposing_blocks_double_the_size(
    block: Callable[[int, int, str], nn.Module], f: int, norm_kind: str
) -> None:
    assert block(24, f, norm_kind)(torch.randn(2, 24, 3, 5)).shape == (2, f, 6, 10)


@pytest.mark.parametrize("norm_kind", ["batch", "group"])
@pytest.mark.parametrize("f", [32, 256])
def test_shapes_of_the_mappings(f: int, norm_kind: str) -> None:
    assert ResBlock(f, norm_kind)(torch.randn(2, f, 3, 5)).shape == (2, f, 3, 5)
    assert Expand(f, norm_kind)(torch.randn(2, 1, 3, 5)).shape == (2, f, 3, 5)
    assert Head(f, 8, 4, norm_kind)(torch.randn(2, f, 3, 5)).shape == (2, 4, 3, 5)
    for out in Crush(f, norm_kind)(torch.randn(2, f, 3, 5), generating=False):
        assert out.shape == (2, 1, 3, 5)


@pytest.mark.parametrize(
    ("f", "crush", "expand"),
    [
        (32, 21_362, 82_992),
        (64, 84_194, 329_568),
        (128, 334_274, 274_368),
        (256, 662_402, 468_480),
        (512, 1_300_226, 1_302_144),
    ],
)
def test_crush_and_expand_have_the_reference_codes_parameters(
    f: int, crush: int, expand: int
) -> None:
    assert parameters(Crush(f)) == crush
    assert parameters(Expand(f)) == expand


def test_steps_between_levels_have_the_reference_codes_parameters() -> None:
    steps = [parameters(UpStep(above, f)) for f, above in itertools.pairwise(CHANNELS)]
    assert steps == [70_112, 279_488, 65_216, 257_408]
    assert parameters(UpStep(CHANNELS[0], 16)) == 17_648


@pytest.mark.parametrize(("outputs", "last"), [(1, 393), (4, 1_572)])
def test_heads_have_the_reference_codes_parameters(outputs: int, last: int) -> None:
    head = Head(16, 8, outputs)
    assert parameters(head[-1]) == last
    assert parameters(head) == 3_576 + last


def test_the_first_maps_of_a_head_are_its_first() -> None:
    head, x = Head(16, 8, 12, "group"), torch.randn(2, 16, 6, 10)
    torch.testing.assert_close(head(x, 4), head(x)[:, :4])


@pytest.mark.parametrize("f", [16, 128])
def test_a_res_block_with_a_zero_last_convolution_is_the_identity(f: int) -> None:
    block, x = ResBlock(f), torch.randn(2, f, 6, 6)
    before = x.clone()
    assert not torch.allclose(block(x), x)
    last = [m for m in block.modules() if isinstance(m, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    assert torch.equal(block(x), before)
    assert torch.equal(x, before), "the block changed its input in place"


@pytest.mark.parametrize("f", [16, 128])
def test_every_res_block_of_a_network_starts_as_the_identity(f: int) -> None:
    network = Expand(f)
    start_as_identity(network)
    blocks = [block for block in network.modules() if isinstance(block, ResBlock)]
    assert len(blocks) == 5
    for block in blocks:
        first = block.residual[0]
        assert isinstance(first, TwoRoleBatchNorm2d)
        x = torch.randn(2, first.num_features, 6, 10)
        assert block(x).equal(x)


@pytest.mark.parametrize("deviation", [0.135, 0.5])
def test_a_crush_starts_at_a_deviation(deviation: float) -> None:
    torch.manual_seed(0)
    crush = Crush(32)
    crush.start_at(deviation)
    with torch.no_grad():
        mean, log_variance = crush(torch.randn(4, 32, 12, 12), generating=False)
    assert mean.abs().mean() < 0.3
    assert (log_variance / 2).exp().mean() == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize("block", [Smooth, LightSmooth, Transpose])
def test_wide_blocks_are_bottlenecks(block: Callable[[int, int], nn.Module]) -> None:
    f = 128
    spatial = [
        m
        for m in block(f, f).modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.kernel_size != (1, 1)
    ]
    assert spatial
    assert all(m.in_channels == m.out_channels == f // 4 for m in spatial)


@pytest.mark.parametrize("block", [Smooth, LightSmooth])
def test_narrow_blocks_are_not(block: Callable[[int, int], nn.Module]) -> None:
    kernels = {m.kernel_size for m in block(64, 64).modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {(3, 3)}


def test_gradients_reach_every_parameter() -> None:
    for channels, block in (
        (8, Smooth(8, 16)),
        (8, UpStep(8, 128)),
        (1, Expand(32)),
        (16, Head(16, 8, 4)),
    ):
        block(torch.randn(2, channels, 6, 6)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


# --- One module in two roles ----------------------------------------------------------------------


def two_distributions(f: int) -> tuple[Tensor, Tensor]:
    """Features as of the encoder and of the decoder, with another mean and spread."""
    inferred, generated = torch.randn(2, 4, f, 12, 12)
    return inferred, 3 + 5 * generated


def test_crush_is_the_same_function_in_both_roles() -> None:
    crush, d = Crush(32), torch.randn(4, 32, 6, 6)
    for one, other in zip(crush(d, generating=False), crush(d, generating=True), strict=True):
        assert torch.equal(one, other)


def test_the_roles_share_all_parameters() -> None:
    crush, d = Crush(32), torch.randn(4, 32, 6, 6)
    gradients = []
    for generating in (False, True):
        crush.zero_grad()
        mean, log_variance = crush(d, generating=generating)
        (mean.square().sum() + log_variance.square().sum()).backward()
        gradients.append([p.grad.clone() for p in crush.parameters() if p.grad is not None])
        assert len(gradients[-1]) == len(list(crush.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_each_role_keeps_its_own_running_statistics() -> None:
    crush = Crush(32)
    inferred, generated = two_distributions(32)
    for _ in range(100):  # 0.9**100: nothing of the start is left
        crush(inferred, generating=False)
        crush(generated, generating=True)
    trained = [crush(inferred, generating=False), crush(generated, generating=True)]
    crush.eval()
    for d, right, (mean, log_variance) in zip(
        (inferred, generated), (False, True), trained, strict=True
    ):
        own, others = crush(d, generating=right), crush(d, generating=not right)
        for expected, a, b in zip((mean, log_variance), own, others, strict=True):
            assert (a - expected).abs().max() < 0.1 * expected.std()
            assert (b - expected).abs().mean() > 10 * (a - expected).abs().mean()


def test_evaluation_normalises_with_the_statistics_of_the_role() -> None:
    layer = TwoRoleBatchNorm2d(3)
    inferred, generated = two_distributions(3)
    for generating, d in ((False, inferred), (True, generated)):
        set_role(layer, generating=generating)
        for _ in range(200):
            layer(d)
    layer.eval()
    x = torch.randn(2, 3, 4, 4)
    for generating, d in ((False, inferred), (True, generated)):
        set_role(layer, generating=generating)
        mean, var = d.mean((0, 2, 3), keepdim=True), d.var((0, 2, 3), keepdim=True)
        torch.testing.assert_close(layer(x), (x - mean) / (var + layer.eps).sqrt())


def test_both_roles_statistics_are_in_the_state_dict() -> None:
    crush = Crush(32)
    inferred, generated = two_distributions(32)
    crush(inferred, generating=False)
    crush(generated, generating=True)
    copy = Crush(32)
    copy.load_state_dict(crush.state_dict())
    crush.eval(), copy.eval()
    for generating in (False, True):
        for one, other in zip(
            crush(generated, generating=generating),
            copy(generated, generating=generating),
            strict=True,
        ):
            assert torch.equal(one, other)


# --- Normalisation --------------------------------------------------------------------------------


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="'layer' is unknown; choose 'batch' or 'group'"):
        norm("layer", 8)


@pytest.mark.parametrize("channels", range(1, 100))
def test_group_norm_fits_any_number_of_channels(channels: int) -> None:
    layer = norm("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert channels % layer.num_groups == 0
    assert 1 <= layer.num_groups <= 8
    assert layer.num_groups == 1 or channels // layer.num_groups >= 4


def test_group_norm_does_not_mix_a_batch_and_batch_norm_does() -> None:
    x = torch.randn(3, 16, 8, 8)
    other = torch.cat([x[:1], 9 * torch.randn(2, 16, 8, 8)])
    group, batch = Smooth(16, 16, "group"), Smooth(16, 16, "batch")
    torch.testing.assert_close(group(x)[0], group(other)[0])
    assert (batch(x)[0] - batch(other)[0]).abs().max() > 0.1


def test_group_norm_is_the_same_in_training_and_evaluation() -> None:
    block, x = Smooth(16, 16, "group"), torch.randn(3, 16, 8, 8)
    trained = block(x)
    assert torch.equal(block.eval()(x), trained)
