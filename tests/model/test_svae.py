"""The hierarchy of z: Table 2, one shared module, the ladder's posterior, free bits."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import kl_divergence

from pyro_stitchnet.model.distributions import product_of_normals
from pyro_stitchnet.model.objective import estimator, negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import SVAE, check_size
from pyro_stitchnet.presets import Objective, preset

TABLE_2_Z = {1: (1, 176, 176), 2: (1, 88, 88), 3: (1, 44, 44), 4: (1, 22, 22), 5: (1, 11, 11)}
TABLE_2_D = {
    1: (32, 176, 176),
    2: (64, 88, 88),
    3: (128, 44, 44),
    4: (256, 22, 22),
    5: (512, 11, 11),
}


@pytest.fixture
def tiny() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


@pytest.mark.parametrize("name", ["article", "reference"])
def test_table_2_at_352(name: str) -> None:
    """z and d have the article's sizes, in inference and in generation."""
    net = StitchNet(preset(name).model).eval()
    x = torch.rand(1, 352, 352)
    seen: dict[int, tuple[int, ...]] = {}
    for level, expand in enumerate(net.svae.expand, 1):
        expand.register_forward_hook(
            lambda m, i, d, level=level: seen.__setitem__(level, tuple(d.shape[1:]))
        )
    with torch.no_grad():
        guide = poutine.trace(net.guide).get_trace(x)
        picture = net.picture(guide.nodes["z1"]["value"])
        encoded = net.svae.encoder(x[:, None])
    for level, shape in TABLE_2_Z.items():
        assert guide.nodes[f"z{level}"]["value"].shape[-3:] == shape
        assert tuple(encoded[level - 1].shape[1:]) == TABLE_2_D[level]
    assert seen == TABLE_2_D
    assert picture.log_pi.shape == (1, 352, 352, 4)
    assert picture.styles.batch_shape == (1, 352, 352, 4)


def test_one_crush_serves_both_directions(tiny: StitchNet) -> None:
    """The same module object answers for the encoder's d and the decoder's d~."""
    roles: dict[int, list[bool]] = {}
    for level, crush in enumerate(tiny.svae.crush, 1):
        crush.register_forward_pre_hook(
            lambda m, args, kwargs, level=level: roles.setdefault(level, []).append(
                kwargs["generating"]
            ),
            with_kwargs=True,
        )
    negative_elbo(tiny, torch.rand(2, 32, 32))
    assert roles == {
        1: [False, True],
        2: [False, True],
        3: [False, True],
        4: [False, True],
        5: [False],
    }


def test_parameters_of_the_reference_module_by_module() -> None:
    """facts.md's counts, 12,037,646 in all."""

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    net = StitchNet(preset("reference").model)
    svae = net.svae
    assert [count(m) for m in svae.crush] == [21_362, 84_194, 334_274, 662_402, 1_300_226]
    assert [count(m) for m in svae.expand] == [82_992, 329_568, 274_368, 468_480, 1_302_144]
    assert [count(m) for m in svae.up] == [70_112, 279_488, 65_216, 257_408]
    assert count(svae.decoder) == 17_648
    assert [count(m) for m in net.heads] == [3_576 + 1_572] + [3_576 + 393] * 8
    encoder = svae.encoder
    stages = [
        count(part) + count(projection) + (count(encoder.returns[n - 1]) if n else 0)
        for n, (part, projection) in enumerate(zip(encoder.parts, encoder.projections, strict=True))
    ]
    assert stages == [30_720, 102_480, 224_928, 1_064_384, 5_028_352]
    assert count(net) == 12_037_646


def test_posterior_is_the_product_of_estimate_and_prior(tiny: StitchNet) -> None:
    tiny.eval()
    x = torch.rand(2, 64, 64)
    trace = poutine.trace(tiny.guide).get_trace(x)
    estimates = tiny.svae.bottom_up(x)
    for level in (4, 3, 2, 1):
        prior = tiny.svae.prior(level, trace.nodes[f"z{level + 1}"]["value"])
        expected = product_of_normals(estimates[level - 1], prior)
        q = trace.nodes[f"z{level}"]["fn"].base_dist
        assert torch.allclose(q.loc[:, 0, 0], expected.loc, atol=1e-5)
        assert torch.allclose(q.scale[:, 0, 0], expected.scale, atol=1e-5)
        assert (q.scale[:, 0, 0] <= prior.scale).all()  # evidence can only sharpen


def test_one_pass_changes_nothing_but_the_work(tiny: StitchNet) -> None:
    x, objective = torch.rand(2, 32, 32), Objective(labels="marginal")
    tiny.eval()
    calls = []
    for expand in tiny.svae.expand:
        expand.register_forward_hook(lambda *_: calls.append(1))

    def loss(together: bool) -> tuple[float, int]:
        calls.clear()
        torch.manual_seed(0)
        elbo = estimator(objective)
        if together:
            with tiny.svae.one_pass():
                value = elbo.loss(tiny.model, tiny.guide, x, None, objective)
        else:
            value = elbo.loss(tiny.model, tiny.guide, x, None, objective)
        return value, len(calls)

    (once, few), (twice, many) = loss(True), loss(False)
    assert once == pytest.approx(twice, rel=1e-6)
    assert (few, many) == (5, 9)


def test_one_pass_never_answers_for_another_z(tiny: StitchNet) -> None:
    tiny.eval()
    with torch.no_grad(), tiny.svae.one_pass():
        means = [
            tiny.svae.prior(4, torch.full((1, 1, 1, 1, 2, 2), float(v))).loc.mean().item()
            for v in range(20)
        ]
    assert len(set(means)) == 20


def test_kl_weight_scales_the_z_terms_alone(tiny: StitchNet) -> None:
    tiny.eval()
    x = torch.rand(2, 32, 32)

    def loss(weight: float) -> float:
        torch.manual_seed(0)
        return negative_elbo(tiny, x, None, Objective(labels="marginal", kl_weight=weight)).item()

    one, half, least = loss(1.0), loss(0.5), loss(1e-6)
    assert half == pytest.approx((one + least) / 2, abs=1e-5)
    assert one != pytest.approx(least, abs=1e-4)


def test_free_bits_charge_what_a_level_falls_short(tiny: StitchNet) -> None:
    """With an allowance above every KL the bound loses SUM (allowance - KL) exactly."""
    tiny.eval()
    x, free = torch.rand(2, 32, 32), 5.0

    def loss(free_bits: float) -> float:
        torch.manual_seed(0)
        objective = Objective(labels="marginal", free_bits=free_bits)
        return negative_elbo(tiny, x, None, objective).item()

    torch.manual_seed(0)
    guide = poutine.trace(tiny.guide).get_trace(x)
    model = poutine.trace(poutine.replay(tiny.model, trace=guide)).get_trace(x)
    short = 0.0
    for level in range(1, 6):
        q, p = guide.nodes[f"z{level}"]["fn"], model.nodes[f"z{level}"]["fn"]
        pixels = (32 // 2**level) ** 2
        kl = kl_divergence(q, p).mean().item() / pixels
        assert kl < free
        short += (free - kl) * pixels
    assert loss(free) - loss(0.0) == pytest.approx(short / 32**2, rel=1e-4)
    assert loss(1e-9) == pytest.approx(loss(0.0), abs=1e-6)


def test_free_bits_leave_a_level_no_gradient_in_expectation() -> None:
    """Under the allowance, -KL - (free - KL) is constant: the mean gradient of q's mean is 0."""
    from pyro_stitchnet.model.svae import _pay_free_bits, _sample_map

    loc = torch.full((4, 1, 2, 2), 0.3, requires_grad=True)
    q, p = (
        pyro.distributions.Normal(loc, 0.9),
        pyro.distributions.Normal(torch.zeros(4, 1, 2, 2), 1.0),
    )

    def guide() -> None:
        with pyro.plate("slices", 4, dim=-3):
            _pay_free_bits("free", q, p, 10.0)
            _sample_map("z", q)

    def model() -> None:
        with pyro.plate("slices", 4, dim=-3):
            _sample_map("z", p)

    gradients: list[float] = []
    for _ in range(500):
        loc.grad = None
        pyro.infer.Trace_ELBO(max_plate_nesting=3).differentiable_loss(model, guide).backward()
        assert loc.grad is not None
        gradients.append(loc.grad.mean().item())
    mean = sum(gradients) / len(gradients)
    assert abs(mean) < 0.1 < 0.3  # 0.3 = d KL / d loc, what it would be without the allowance


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((1, 100, 128), "96 or 128"),
        ((1, 128, 353), "352 or 384"),
        ((1, 20, 32), "to 32"),
        ((1, 1, 64, 64), r"\(N, H, W\)"),
    ],
)
def test_wrong_sizes_are_refused_with_right_ones(shape: tuple[int, ...], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_size(shape)


@pytest.mark.parametrize("size", [(32, 32), (64, 160)])
def test_any_multiple_of_32(tiny: StitchNet, size: tuple[int, int]) -> None:
    assert negative_elbo(tiny, torch.rand(2, *size)).isfinite()


def test_svae_alone_is_a_model_and_a_guide() -> None:
    """Without StitchNet on top: priors and posteriors of all five levels."""
    svae = SVAE(preset("tiny").model)
    with pyro.plate("slices", 2, dim=-3):
        trace = poutine.trace(svae.model).get_trace((2, 64, 64), Objective())
    assert [n for n in trace.stochastic_nodes if n.startswith("z")] == [
        "z5",
        "z4",
        "z3",
        "z2",
        "z1",
    ]
