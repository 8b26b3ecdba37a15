"""The hierarchy of z: Table 2, one shared module, the ladder's posterior, free bits."""

from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import kl_divergence

from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.distributions import product_of_normals
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import SVAE, _add_free_bits, _sample_map, check_size
from pyro_stitchnet.presets import preset

TABLE_2_Z = {1: (1, 176, 176), 2: (1, 88, 88), 3: (1, 44, 44), 4: (1, 22, 22), 5: (1, 11, 11)}
TABLE_2_D = {
    1: (32, 176, 176),
    2: (64, 88, 88),
    3: (128, 44, 44),
    4: (256, 22, 22),
    5: (512, 11, 11),
}


@pytest.fixture
def tiny(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net("tiny")


@pytest.mark.parametrize("name", ["article", "reference"])
def test_table_2_at_352(name: str) -> None:
    """z and d have the article's sizes, in inference and in generation."""
    with torch.device("meta"):  # shapes without the arithmetic
        net, x = StitchNet(preset(name).model).eval(), torch.rand(1, 352, 352)
    shapes: dict[int, tuple[int, ...]] = {}
    for level, expand in enumerate(net.svae.expand, 1):
        expand.register_forward_hook(
            lambda m, i, d, level=level: shapes.__setitem__(level, tuple(d.shape[1:]))
        )
    with torch.no_grad(), pyro.validation_enabled(False):
        guide = poutine.trace(net.guide).get_trace(x)
        picture = net.picture(guide.nodes["z1"]["value"])
        encoded = net.svae.encoder(x[:, None])
    for level, shape in TABLE_2_Z.items():
        assert guide.nodes[f"z{level}"]["value"].shape[-3:] == shape
        assert tuple(encoded[level - 1].shape[1:]) == TABLE_2_D[level]
    assert shapes == TABLE_2_D
    assert picture.log_pi.shape == (1, 352, 352, 4)
    assert picture.styles.batch_shape == (1, 352, 352, 4)


def test_one_crush_serves_both_directions() -> None:
    """One module maps the encoder's d and the decoder's d~."""
    tiny = StitchNet(preset("tiny").model)
    roles: dict[int, list[bool]] = {}
    for level, crush in enumerate(tiny.svae.crush, 1):
        crush.register_forward_pre_hook(
            lambda m, args, kwargs, level=level: roles.setdefault(level, []).append(
                kwargs["generating"]
            ),
            with_kwargs=True,
        )
    bound(tiny, torch.rand(2, 32, 32))
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


def test_one_pass_changes_only_the_number_of_evaluations(tiny: StitchNet) -> None:
    x, objective = torch.rand(2, 32, 32), Objective(Marginal())
    calls: list[int] = []
    hooks = [
        expand.register_forward_hook(lambda *_: calls.append(1)) for expand in tiny.svae.expand
    ]

    def loss(program: Callable[[], float]) -> tuple[float, int]:
        calls.clear()
        torch.manual_seed(0)
        return program(), len(calls)

    def separately() -> float:
        elbo = objective.labels.elbo()
        return elbo.loss(tiny.model, tiny.guide, x, None, objective) / x.numel()

    (one, few), (other, many) = (
        loss(lambda: bound(tiny, x, None, objective).loss.item()),
        loss(separately),
    )
    for hook in hooks:
        hook.remove()
    assert one == pytest.approx(other, rel=1e-5)
    assert (few, many) == (5, 10)


def test_one_pass_keeps_the_priors_of_each_z_apart(tiny: StitchNet) -> None:
    with torch.no_grad(), tiny.memo.one_pass():
        means = [
            tiny.svae.prior(4, torch.full((1, 1, 1, 1, 2, 2), float(v))).loc.mean().item()
            for v in range(20)
        ]
    assert len(set(means)) == 20


def test_kl_weight_scales_the_z_terms_alone(tiny: StitchNet) -> None:
    x = torch.rand(2, 32, 32)

    def loss(weight: float) -> float:
        torch.manual_seed(0)
        return bound(tiny, x, None, Objective(Marginal(), kl_weight=weight)).loss.item()

    one, half, least = loss(1.0), loss(0.5), loss(1e-6)
    assert half == pytest.approx((one + least) / 2, abs=1e-5)
    assert one != pytest.approx(least, abs=1e-4)


def test_free_bits_add_the_difference_from_each_levels_kl(tiny: StitchNet) -> None:
    """With an allowance above every KL the bound loses SUM (allowance - KL) exactly."""
    x, free = torch.rand(2, 32, 32), 5.0

    def loss(free_bits: float) -> float:
        torch.manual_seed(0)
        return bound(tiny, x, None, Objective(Marginal(), free_bits=free_bits)).loss.item()

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
    loc = torch.full((4, 1, 2, 2), 0.3, requires_grad=True)
    q, p = (
        pyro.distributions.Normal(loc, 0.9),
        pyro.distributions.Normal(torch.zeros(4, 1, 2, 2), 1.0),
    )

    def guide() -> None:
        with pyro.plate("slices", 4, dim=-3):
            _add_free_bits("free", q, p, 10.0)
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
def test_wrong_sizes_are_refused_with_the_nearest_valid_ones(
    shape: tuple[int, ...], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_size(shape)


@pytest.mark.parametrize("size", [(32, 32), (64, 160)])
def test_any_multiple_of_32(tiny: StitchNet, size: tuple[int, int]) -> None:
    assert bound(tiny, torch.rand(2, *size)).loss.isfinite()


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
