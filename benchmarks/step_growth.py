"""How does a training step's cost grow with size, batch, labels and levels?

    OMP_NUM_THREADS=2 python benchmarks/step_growth.py --presets tiny --sizes 128 192

Uses the options of ``step_speed.py``. Times the step with the closed form, its networks level by
level, and the likelihood alone for 2 to 16 labels.
"""

from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
import tyro
from step_speed import Config, Setting, Work, head, memory, rounds
from torch import Tensor

from pyro_stitchnet.model.config import Likelihood
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.fabric import make_fabric


def growth(config: Config) -> None:
    """The growth of the closed form's step, its likelihood and its levels."""
    for name in config.presets:
        settings = [(size, config.batch) for size in config.sizes]
        settings += [(config.sizes[0], batch) for batch in (1, 2, 4, 8, 16)]
        print(f"\n| {name}: size | batch | seconds a step | ms a slice | peak GB |")
        print("|---:|---:|---:|---:|---:|")
        for size, batch in dict.fromkeys(settings):
            step = Setting(config, name, size, batch).step("marginal")
            taken = float(np.median(rounds({"": step}, config.rounds)[""]))
            most = memory(config, name, size, batch, "marginal")
            print(
                f"| {size} | {batch} | {taken:.3f} | {1000 * taken / batch:.0f} | "
                f"{'' if most is None else f'{most:.2f}'} |",
                flush=True,
            )
        print(f"\n| {name}: level | ms forward and backward |\n|---|---:|")
        setting = Setting(config, name, config.sizes[0], config.batch)
        for part, work in parts(setting).items():
            print(f"| {part} | {1000 * np.median(rounds({'': work}, config.rounds)['']):.0f} |")
    print("\n| likelihood | K | ms forward and backward |\n|---|---:|---:|")
    for family in get_args(Likelihood):
        for k in (2, 4, 8, 16):
            work = likelihood(config, family, k)
            taken = float(np.median(rounds({"": work}, config.rounds)[""]))
            print(f"| {family} | {k} | {1000 * taken:.1f} |", flush=True)


def parts(setting: Setting) -> dict[str, Work]:
    """The networks of each level, used as often as in a step, and those at full size."""
    net, levels = setting.net(), len(preset(setting.preset).model.channels)
    svae, channels = net.svae, preset(setting.preset).model.channels

    def of(*calls: tuple[Callable[[Tensor], object], Tensor]) -> Work:
        def work() -> None:
            with setting.autocast():
                out = [network(x) for network, x in calls]
            flat = [t for o in out for t in (o if isinstance(o, tuple | list) else [o])]
            torch.stack([t.float().sum() for t in flat]).sum().backward()

        return work

    def maps(f: int, n: int) -> Tensor:
        side = setting.size >> n
        return torch.randn(setting.batch, f, side, side, device=setting.device).to(
            memory_format=torch.channels_last
        )

    works = {"encoder": of((svae.encoder, setting.data.x[:, None]))}
    for n in range(levels, 0, -1):
        calls: list[tuple[Callable[[Tensor], object], Tensor]] = [
            (lambda d, n=n: svae.crush[n - 1](d, generating=False), maps(channels[n - 1], n)),
            (svae.expand[n - 1], maps(1, n)),
        ]
        if n < levels:
            calls += [
                (lambda d, n=n: svae.crush[n - 1](d, generating=True), maps(channels[n - 1], n)),
                (svae.up[n - 1], maps(channels[n], n + 1)),
            ]
        works[f"{n}: crush, expand, up"] = of(*calls)
    works["decoder"] = of((svae.decoder, maps(channels[0], 1)))
    features = maps(preset(setting.preset).model.decoder_channels, 0)
    works["heads"] = of(*((head, features) for head in net.heads))
    return works


def likelihood(config: Config, family: str, k: int) -> Work:
    """The likelihood alone, for maps of ``k`` labels at the first size."""
    device = make_fabric(config.device).device
    shape = (config.batch, config.sizes[0], config.sizes[0])
    x = torch.rand(shape, device=device)
    maps = torch.randn(shape[0], 3 * k, *shape[1:], device=device).requires_grad_()

    def work() -> None:
        logits, a, b = maps.movedim(1, -1).split(k, -1)
        Stitched(logits, FAMILIES[family](a, b)).log_prob(x).sum().backward()

    return work


def main(config: Config) -> None:
    print(head(config))
    growth(config)


if __name__ == "__main__":
    main(tyro.cli(Config))
