"""Commands that query a trained model: `sample`, `styles`, `explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from pyro_stitchnet.cli._results import refuse_results, writing
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions
from pyro_stitchnet.runtime.ranges import CountOrZero, Few, Seed, Side

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_stitchnet.data.datasets.one_slice import OneSlice
    from pyro_stitchnet.model.stitchnet import StitchNet

__all__ = ["explain", "sample", "styles"]

DEFAULT_OPTIONS = ReadOutOptions()
REFERENCES = 16  # slices of --against
MOST_PIXELS = 2**24  # of samples, together: each needs some hundred bytes


@dataclass(frozen=True)
class Query:
    """A model and a slice.

    Attributes:
        model: a checkpoint, the model.pt of a run.
        slice_: an image file, NumPy array, NIfTI or other scan, or a prepared dataset.
        out: folder for the results.
        number: index of the slice, from 0; in a scan, from the feet.
        prepared: use the file's slice as it is, without the preprocessing of the model's dataset.
        device: "auto" uses a GPU if there is one.
    """

    model: tyro.conf.Positional[Path]
    slice_: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|DATASET")]
    out: Path
    number: Annotated[CountOrZero | None, tyro.conf.arg(name="slice")] = None
    prepared: bool = False
    device: str = "auto"

    def read(self) -> "tuple[StitchNet, dict[str, Any], OneSlice]":
        """Return the model, the record of its run, and the slice, preprocessed."""
        from pyro_stitchnet.data.datasets.dataset import Dataset
        from pyro_stitchnet.data.datasets.one_slice import read_slice
        from pyro_stitchnet.data.preprocessing.steps import Preprocessing
        from pyro_stitchnet.runtime.devices import choose_device
        from pyro_stitchnet.runtime.settings import validated
        from pyro_stitchnet.training import checkpoint
        from pyro_stitchnet.training.preparation import (
            check_preparation,
            note_preparation,
            recorded_preprocessing,
        )

        net, info = checkpoint.load(self.model, choose_device(self.device))
        preprocessing = None
        if (self.slice_ / "dataset.json").is_file():
            dataset = Dataset(self.slice_)
            check_preparation(dataset, self.model, info)
            note_preparation(dataset, self.model, info)
        elif not self.prepared:
            values = recorded_preprocessing(info)
            if not values:
                raise ValueError(
                    f"{self.model}: records no preprocessing; preprocess the slice and give "
                    "--prepared"
                )
            preprocessing = validated(Preprocessing, values, self.model)
        return net, info, read_slice(self.slice_, self.number, preprocessing)


def sample(
    model: tyro.conf.Positional[Path],
    out: Path,
    number: Few = 8,
    size: Side | None = None,
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0,
    levels: tuple[Few, ...] = (1, 2, 3, 4, 5),
    noise: bool = False,
    seed: Seed = 0,
    device: str = "auto",
) -> None:
    """Sample slices, with labels and styles, from a trained model.

    Writes samples.png and samples.npz (labels, styles, stitched).

    Args:
        model: a checkpoint, the model.pt of a run.
        out: folder for the results.
        number: number of slices.
        size: their rows and columns; those of the model's dataset by default.
        temperature: factor on the deviation of z from its mean; below 1 the samples vary less.
        levels: levels of z to sample, 1 the finest and 5 the coarsest; the others take their mean.
        noise: sample the label and grey value of each pixel too.
        seed: of the samples.
        device: "auto" uses a GPU if there is one.
    """
    from pyro_stitchnet.data.preprocessing.steps import Preprocessing
    from pyro_stitchnet.figures import image_columns, save_figure
    from pyro_stitchnet.figures.grids import NAMES
    from pyro_stitchnet.model.svae import LEVELS
    from pyro_stitchnet.posterior import from_prior, seeded
    from pyro_stitchnet.runtime.devices import choose_device
    from pyro_stitchnet.runtime.settings import validated
    from pyro_stitchnet.training import checkpoint
    from pyro_stitchnet.training.preparation import recorded_preprocessing

    refuse_results(out, "samples.npz")
    if unknown := set(levels) - set(range(1, LEVELS + 1)):
        raise ValueError(f"--levels: z has the levels 1 to {LEVELS}, not {sorted(unknown)}")
    net, info = checkpoint.load(model, choose_device(device))
    recorded = recorded_preprocessing(info)
    if size is None and not recorded:
        raise ValueError(f"{model}: records no size of slices; give --size")
    side = size or validated(Preprocessing, recorded, model).size
    if number * side**2 > MOST_PIXELS:
        raise ValueError(
            f"--number {number}: slices of {side} x {side} need too much memory together; give at "
            f"most {MOST_PIXELS // side**2}"
        )
    by_level = {n: temperature if n in levels else 0.0 for n in range(1, LEVELS + 1)}
    with seeded(seed, next(net.parameters()).device):
        draws = from_prior(net, number, (side, side), temperature=by_level, noise=noise)
    arrays = {name: value[0].cpu().numpy() for name, value in vars(draws).items()}
    columns = {"stitched": arrays["stitched"], "labels": arrays["stitched"]}
    columns |= {f"{name}\nstyle": arrays["styles"][:, k] for k, name in enumerate(NAMES)}
    figure = image_columns(columns, {"labels": arrays["labels"]})
    with writing(out, "samples.npz"):
        save_figure(figure, out / "samples.png")
        _save(out / "samples.npz", arrays)
    print(f"sampled slices: {number}: {out / 'samples.png'}")


def styles(
    query: Annotated[tyro.conf.OmitArgPrefixes[Query], tyro.conf.arg(name="slice")],
    draws: Few = 4,
    noise: bool = False,
    read_out: ReadOut = "posterior",
    seed: Seed = 0,
) -> None:
    """Draw the four styles of a slice from their posterior.

    Fig. 6b of the article. Writes styles.png and styles.npz (labels, styles, stitched; one per
    draw).

    Args:
        query: the slice and the model.
        draws: draws of z; each is a row of the figure.
        noise: sample the label of each pixel too; the style that the label picks is then the slice
            itself.
        read_out: source of the labels: q(y | x), p(y | z) or p(y | x, z).
        seed: of the draws.
    """
    import numpy as np

    from pyro_stitchnet import figures, posterior

    refuse_results(query.out, "styles.npz")
    net, _, given = query.read()
    device = next(net.parameters()).device
    x = given.image.to(device)[None]
    with posterior.seeded(seed, device):
        samples = posterior.sample(net, x, draws, noise=noise, read_out=read_out)
    arrays = {name: value[:, 0].cpu().numpy() for name, value in vars(samples).items()}
    truth = None if given.truth is None else np.repeat(given.truth.numpy()[None], draws, 0)
    figure = figures.styles(
        np.repeat(given.image.numpy()[None], draws, 0),
        truth,
        arrays["labels"],
        arrays["styles"],
        arrays["stitched"],
        names=[f"draw {n + 1}" for n in range(draws)],
    )
    with writing(query.out, "styles.npz"):
        figures.save_figure(figure, query.out / "styles.png")
        _save(query.out / "styles.npz", arrays)
    print(f"draws of {given.name}: {draws}: {query.out / 'styles.png'}")


def explain(
    query: Annotated[tyro.conf.OmitArgPrefixes[Query], tyro.conf.arg(name="slice")],
    against: Path | None = None,
    draws: Few = 8,
    options: Annotated[
        tyro.conf.OmitArgPrefixes[ReadOutOptions], tyro.conf.arg(name="read-out")
    ] = DEFAULT_OPTIONS,
) -> None:
    """Write a page on one slice: labels, uncertainty, styles, counterfactuals.

    Writes explain.png and explain.html, which needs no other file.

    Args:
        query: the slice and the model.
        against: a prepared dataset of reference slices, to compute how unusual this one is. Slices
            of patients that the model was trained on are left out.
        draws: draws of z for uncertainty, counterfactuals and likelihoods, at least 2.
        options: how the labels are read out of the model; its seed is that of all draws.
    """
    from pyro_stitchnet import __version__
    from pyro_stitchnet.figures import slice_page

    if draws < 2:
        raise ValueError(f"--draws must be at least 2, got {draws}")
    refuse_results(query.out, "explain.html")
    net, info, given = query.read()
    device = next(net.parameters()).device
    explanation = slice_page.explain(
        net,
        given.image.to(device),
        options,
        draws=draws,
        truth=None if given.truth is None else given.truth.to(device),
        reference=None if against is None else _reference(against, query.model, info).to(device),
    )
    about = {"model": query.model, "slice": query.slice_, "draws": draws, **vars(options)}
    with writing(query.out, "explain.html"):
        slice_page.write_explanation(
            explanation, query.out, given.name, {**about, "version": __version__}
        )
    for name, value in explanation.measures.items():
        print(f"{name}: {value:.4g}")
    print(f"page: {query.out / 'explain.html'}")


def _reference(path: Path, model: Path, info: dict[str, Any]) -> "Tensor":
    """Return evenly spread slices of a dataset, of patients that the model was not trained on."""
    import numpy as np

    from pyro_stitchnet.data.datasets.dataset import Dataset
    from pyro_stitchnet.training.preparation import check_preparation
    from pyro_stitchnet.training.seen import TRAINED, seen

    dataset = Dataset(path)
    check_preparation(dataset, model, info)
    rows = np.flatnonzero(~seen(dataset.manifest, info, TRAINED))
    if len(rows) < 3:
        raise ValueError(
            f"{path}: holds {len(rows)} slices of patients that the model was not trained on; "
            "give a dataset with at least 3"
        )
    spread = np.linspace(0, len(rows) - 1, min(REFERENCES, len(rows))).astype(int)
    return dataset.take(rows[spread]).load().images


def _save(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays, compressed, atomically."""
    import io

    import numpy as np

    from pyro_stitchnet.runtime.files import write_atomically

    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_atomically(path, file.getvalue())
