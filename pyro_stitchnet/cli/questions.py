"""Commands that ask a trained model about slices: `sample`, `styles`, `explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pyro_stitchnet.cli._results import refuse_results

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_stitchnet.data.datasets.one_slice import OneSlice
    from pyro_stitchnet.model.stitchnet import StitchNet

__all__ = ["explain", "sample", "styles"]

USUAL = 16  # slices at most that another one is compared with


@dataclass(frozen=True)
class Asked:
    """Which model is asked about which slice.

    Attributes:
        model: a checkpoint, the model.pt of a run.
        slice_: a picture, NumPy array, NIfTI or other scan, or a prepared dataset.
        out: folder for the answer.
        number: which slice of it, from 0; a scan's from the feet.
        prepared: take the file's slice as it is, without the preprocessing of the model's dataset.
        seed: of the draws.
        device: "auto" takes a GPU if there is one.
    """

    model: tyro.conf.Positional[Path]
    slice_: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|DATASET")]
    out: Path
    number: Annotated[int | None, tyro.conf.arg(name="slice")] = None
    prepared: bool = False
    seed: int = 0
    device: str = "auto"

    def opened(self) -> "tuple[StitchNet, dict[str, Any], OneSlice]":
        """The model, what its run recorded, and the slice as the model wants it."""
        from pyro_stitchnet.data.datasets.one_slice import read_slice
        from pyro_stitchnet.data.preprocessing.steps import Preprocessing
        from pyro_stitchnet.runtime.devices import choose_device
        from pyro_stitchnet.training import checkpoint

        net, info = checkpoint.load(self.model, choose_device(self.device))
        steps = None
        if not self.prepared and not (self.slice_ / "dataset.json").is_file():
            said = info.get("dataset", {}).get("preprocessing")
            if said is None:
                raise ValueError(
                    f"{self.model}: records no preprocessing; prepare the slice, --prepared"
                )
            steps = Preprocessing(**{**said, "window": tuple(said["window"])})
        return net, info, read_slice(self.slice_, self.number, steps)


def sample(
    model: tyro.conf.Positional[Path],
    out: Path,
    number: int = 8,
    size: int | None = None,
    temperature: float = 1.0,
    levels: tuple[int, ...] = (1, 2, 3, 4, 5),
    noise: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Let a model draw slices that it has never seen, with their labels and styles.

    Args:
        model: a checkpoint, the model.pt of a run.
        out: folder for samples.png and samples.npz (labels, styles, stitched).
        number: of slices.
        size: their rows and columns; those of the model's dataset by default.
        temperature: of z: below 1 more ordinary, above 1 less.
        levels: the levels of z to draw, 1 the finest and 5 the coarsest; others take their mean.
        noise: draw each pixel's label and grey value too.
        seed: of the draws.
        device: "auto" takes a GPU if there is one.
    """
    from pyro_stitchnet.figures import drawn, save_figure
    from pyro_stitchnet.model.svae import LEVELS
    from pyro_stitchnet.posterior import from_prior, seeded
    from pyro_stitchnet.runtime.devices import choose_device
    from pyro_stitchnet.training import checkpoint

    refuse_results(out, "samples.npz")
    if unknown := set(levels) - set(range(1, LEVELS + 1)):
        raise ValueError(f"--levels: z has the levels 1 to {LEVELS}, not {sorted(unknown)}")
    net, info = checkpoint.load(model, choose_device(device))
    side = size or info.get("dataset", {}).get("preprocessing", {}).get("size")
    if side is None:
        raise ValueError(f"{model}: records no size of slices; give --size")
    by_level = {n: temperature if n in levels else 0.0 for n in range(1, LEVELS + 1)}
    with seeded(seed, next(net.parameters()).device):
        made = from_prior(net, number, (side, side), temperature=by_level, noise=noise)
    stitched = made.stitched[0].cpu().numpy()
    columns: dict[str, Any] = {"stitched": stitched, "labels": stitched}
    each = made.styles[0].cpu().numpy()
    columns |= {f"{name}\nstyle": each[:, k] for k, name in enumerate(_names())}
    out.mkdir(parents=True, exist_ok=True)
    save_figure(drawn(columns, {"labels": made.labels[0].cpu().numpy()}), out / "samples.png")
    _save(out / "samples.npz", **{k: v[0] for k, v in vars(made).items()})
    print(f"slices drawn: {number}: {out / 'samples.png'}")


def styles(
    asked: tyro.conf.OmitArgPrefixes[Asked],
    draws: int = 4,
    noise: bool = False,
) -> None:
    """Draw the four styles of a slice from their posterior: Fig. 6b of the article.

    Writes styles.png and styles.npz (labels, styles, stitched; a draw each).

    Args:
        asked: the slice, and the model that is asked.
        draws: of z, a row each.
        noise: draw each pixel's label and grey value too.
    """
    import numpy as np

    from pyro_stitchnet.figures import save_figure
    from pyro_stitchnet.figures import styles as picture
    from pyro_stitchnet.posterior import sample as posterior_sample
    from pyro_stitchnet.posterior import seeded

    refuse_results(asked.out, "styles.npz")
    net, _, given = asked.opened()
    where = next(net.parameters()).device
    with seeded(asked.seed, where):
        made = posterior_sample(net, given.image.to(where)[None], draws, noise=noise)
    kept = {name: value[:, 0].cpu() for name, value in vars(made).items()}
    truth = None if given.truth is None else np.repeat(given.truth.numpy()[None], draws, 0)
    figure = picture(
        np.repeat(given.image.numpy()[None], draws, 0),
        truth,
        kept["labels"].numpy(),
        kept["styles"].numpy(),
        kept["stitched"].numpy(),
        names=[f"draw {n + 1}" for n in range(draws)],
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    save_figure(figure, asked.out / "styles.png")
    _save(asked.out / "styles.npz", **kept)
    print(f"draws of {given.name}: {draws}: {asked.out / 'styles.png'}")


def explain(
    asked: tyro.conf.OmitArgPrefixes[Asked],
    against: Path | None = None,
    samples: int = 8,
    views: int = 1,
) -> None:
    """One page on a slice: its labels, how sure they are, styles, counterfactuals, likelihoods.

    Writes explain.png and explain.html, which needs no other file.

    Args:
        asked: the slice, and the model that is asked.
        against: a prepared dataset of usual slices; says how far from them this one is. Those of
            patients that the model was trained on are left out.
        samples: draws of z.
        views: flips and quarter turns to average the labels over, 1 to 8.
    """
    from pyro_stitchnet import __version__
    from pyro_stitchnet.figures import slice_page as explanation

    refuse_results(asked.out, "explain.html")
    net, info, given = asked.opened()
    where = next(net.parameters()).device
    said = explanation.explain(
        net,
        given.image.to(where),
        truth=None if given.truth is None else given.truth.to(where),
        usual=None if against is None else _usual(against, info).to(where),
        samples=samples,
        views=views,
        seed=asked.seed,
    )
    about: dict[str, Any] = {"model": asked.model, "slice": asked.slice_, "seed": asked.seed}
    about |= {"samples": samples, "views": views}
    explanation.write_explanation(said, asked.out, given.name, {**about, "version": __version__})
    for name, value in said.figures.items():
        print(f"{name}: {value:.4g}")
    print(f"page: {asked.out / 'explain.html'}")


def _usual(path: Path, info: dict[str, Any]) -> "Tensor":
    """Some slices of a dataset, evenly spread, of patients that did not train the model."""
    import numpy as np

    from pyro_stitchnet.data.datasets.dataset import Dataset

    dataset = Dataset(path)
    known = info.get("patients", {})
    trained = {p for part in ("labelled", "unlabelled") for p in known.get(part, ())}
    rows = np.flatnonzero(~dataset.manifest["patient"].isin(trained))
    if len(rows) < 3:
        raise ValueError(
            f"{path}: holds {len(rows)} slices of patients that the model was not trained on; "
            "give a dataset with at least 3"
        )
    spread = np.linspace(0, len(rows) - 1, min(USUAL, len(rows))).astype(int)
    return dataset.take(rows[spread]).load().images


def _names() -> tuple[str, ...]:
    from pyro_stitchnet.figures.grids import NAMES

    return NAMES


def _save(path: Path, **tensors: Any) -> None:
    """Write arrays, compressed, whole or not at all."""
    import io

    import numpy as np

    from pyro_stitchnet.runtime.files import write_atomically

    file = io.BytesIO()
    np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in tensors.items()})
    write_atomically(path, file.getvalue())
