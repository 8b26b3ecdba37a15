"""The command line, `stitchnet`: parses, calls, prints."""

import errno
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pyro_stitchnet.config import TrainConfig, from_yaml
from pyro_stitchnet.data.preprocess import Preprocessing
from pyro_stitchnet.data.sources import SOURCES
from pyro_stitchnet.presets import PRESETS

__all__ = ["main"]

# What a user can mend: said in one line, without a traceback.
USER_ERRORS = (OSError, ValueError, FloatingPointError)

# The same of what the system says by a number.
REMEDIES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EEXIST: "a file, but a folder is to be here; give another path",
    errno.ENOTDIR: "leads through a file as if it were a folder; give another path",
    errno.ENOSPC: "no space is left on its disk; make room, and run the same command again",
    errno.EDQUOT: "your share of its disk is used up; make room, and run the same command again",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "no permission; ask for the right to it, or give another path",
    ),
}


@dataclass(frozen=True)
class Steps(Preprocessing):
    """Preprocessing as it was given; a bad number is refused by `prepare`, in its own words."""

    def __post_init__(self) -> None:
        """Refuse nothing: tyro would name a variable of its own."""


# torch, Pyro and dask take seconds to import: each command imports what it needs, once its options
# are understood.


@dataclass(frozen=True)
class Start:
    """Where the options of `train` start from.

    Attributes:
        preset: what the options below start from; the project's own, guided, if left out.
        config: a YAML file of options, over the preset's; config.yaml of a run is one.
    """

    preset: Literal[tuple(PRESETS)] | None = None  # type: ignore[valid-type]
    config: Path | None = None


def train(
    start: tyro.conf.OmitArgPrefixes[Start], config: tyro.conf.OmitArgPrefixes[TrainConfig]
) -> None:
    """Train StitchNet on a prepared dataset and evaluate it on unseen patients."""
    from pyro_stitchnet.distributed import rank
    from pyro_stitchnet.run import run

    out = run(config)
    if rank() == 0:
        if config.folds:
            print((out / "test" / "table.md").read_text(encoding="utf-8"))
        print(f"model, log, curves, tables and pictures: {out}")


def evaluate(
    model: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    out: Path,
    patients: Literal["all", "test", "validation"] = "all",
    read_out: Literal["guide", "prior", "posterior"] | None = None,
    samples: int = 8,
    views: int = 1,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Score a trained model on the labelled slices of a prepared dataset: Table 1 and pictures.

    Args:
        model: a checkpoint, the model.pt of a run.
        data: a dataset that `stitchnet prepare` wrote; slices with every pixel labelled count. If
            there are none, those whose masks mark infection do, and infection alone is scored.
        out: folder for tables and pictures.
        patients: all of the dataset, or those that the checkpoint's run held out.
        read_out: segmentation by q(y | x), p(y | z) or p(y | x, z); by default the last where the
            model has q(y | x), else p(y | z).
        samples: draws of z to average over; 0 takes the mean of each level.
        views: flips and quarter turns of each slice to average over, 1 to 8.
        seed: of the draws.
        device: "auto" takes a GPU if there is one.
    """
    import numpy as np

    from pyro_stitchnet.data.dataset import Dataset
    from pyro_stitchnet.devices import choose_device
    from pyro_stitchnet.evaluation import report
    from pyro_stitchnet.provenance import provenance
    from pyro_stitchnet.training import checkpoint

    _refuse_results(out, "table.md")
    net, info = checkpoint.load(model, choose_device(device))
    known = info.get("patients", {})
    if patients != "all" and patients not in known:
        raise ValueError(f"{model}: records no split; give --patients all")
    dataset = Dataset(data)
    chosen = dataset.manifest["complete"]
    if not chosen.any():
        chosen = dataset.manifest["labelled"]  # by sets of labels: infection can be scored
    if not chosen.any():
        raise ValueError(f"{data}: no slice has labels, nothing to compare with")
    if patients != "all":
        chosen &= dataset.manifest["patient"].isin(known[patients])
        if not chosen.any():
            raise ValueError(f"{data}: holds none of the {patients} patients of {model}")
    slices = dataset.take(np.flatnonzero(chosen)).load()
    seen = {p for part, names in known.items() if part != "test" for p in names}
    familiar = sum(patient in seen for patient in slices.patients)
    if patients == "all" and familiar:
        print(
            f"note: slices of patients that training or model selection saw: {familiar} of "
            f"{len(slices)}; --patients test leaves them out",
            file=sys.stderr,
        )
    report.evaluate(
        net,
        slices,
        out,
        read_out=read_out,
        samples=samples,
        views=views,
        seed=seed,
        info={
            "model": str(model),
            "slices_of_patients_seen_before_test": familiar if patients == "all" else 0,
            "trained": info,
            **provenance(),
        },
    )
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"tables and pictures: {out}")


def prepare(
    sources: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER [FOLDER ...]")
    ],
    out: Path,
    preprocessing: tyro.conf.OmitArgPrefixes[Steps] = Steps(),
    workers: int = os.cpu_count() or 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> None:
    """Read scans, preprocess them and write a dataset to train on. Run again, it goes on.

    Args:
        sources: folders. FOLDER@RULE reads masks by a labelling rule (full, infection, lung,
            control), FOLDER@SOURCE reads a layout that does not tell itself.
        out: folder for the dataset.
        preprocessing: the steps.
        workers: processes.
        scheduler: address of a dask scheduler whose workers do the work, on many machines.
        skip_bad: leave out scans that cannot be used, and list them in skipped.csv.
        progress: show a progress bar.
    """
    import pandas as pd

    from pyro_stitchnet.data import prepare
    from pyro_stitchnet.data.dataset import SKIPPED

    begun = time.monotonic()
    dataset = prepare.prepare(
        sources,
        out,
        preprocessing=Preprocessing(**vars(preprocessing)),
        workers=workers,
        scheduler=scheduler,
        skip_bad=skip_bad,
        progress=progress,
    )
    for caution in {said["caution"] for said in dataset.about["sources"].values()} - {""}:
        print(f"note: {caution}", file=sys.stderr)
    skipped = len(pd.read_csv(out / SKIPPED))
    if skipped:
        print(f"note: scans left out: {skipped}, see {out / SKIPPED}", file=sys.stderr)
    print(
        f"slices: {len(dataset)}, of them with labels: {dataset.manifest['labelled'].sum()}, "
        f"patients: {len(set(dataset.patients))}; "
        f"{len(dataset) / (time.monotonic() - begun):.1f} slices/s: {out}"
    )


def inspect(data: tyro.conf.Positional[Path], out: Path, most: int = 1000, sheet: int = 36) -> None:
    """Look at a prepared dataset: counts, label shares, grey values, warnings, a contact sheet.

    Args:
        data: a dataset that `stitchnet prepare` wrote.
        out: folder for the text, the table and the picture.
        most: how many slices to read; drawn at random where there are more.
        sheet: how many slices to draw.
    """
    from pyro_stitchnet.data.dataset import Dataset
    from pyro_stitchnet.inspection import write_inspection

    _refuse_results(out, "inspection.md")
    print(write_inspection(Dataset(data), out, most=most, sheet=sheet))
    print(f"\ntext, histogram and contact sheet: {out}")


def download(
    source: tyro.conf.Positional[Literal[tuple(s.name for s in SOURCES.values() if s.archives)]],  # type: ignore[valid-type]
    out: Path,
) -> None:
    """Download a public dataset, checked against its checksums, and say its licence.

    Args:
        source: which.
        out: folder for it.
    """
    from pyro_stitchnet.data import download

    for path in download.download(source, out):
        print(path)


def phantom(
    out: Path,
    patients: int = 10,
    slices: int = 4,
    first: int = 0,
    size: int = 128,
    seed: int = 0,
    masks: bool = True,
) -> None:
    """Write a folder of phantom chest CT slices.

    Args:
        out: folder to write.
        patients: how many patients.
        slices: slices of each.
        first: number of the first patient; folders of other numbers share no patient.
        size: rows and columns, a multiple of 32.
        seed: another seed makes another population.
        masks: write the labels too.
    """
    from pyro_stitchnet.data.phantom import phantom_slices
    from pyro_stitchnet.data.slices import write_folder

    numbers = range(first, first + patients)
    write_folder(phantom_slices(numbers, slices, size=size, seed=seed), out, masks=masks)
    print(f"slices: {patients * slices}: {out}")


def benchmark(
    spec: tyro.conf.Positional[Path],
    out: Path,
    only: tuple[str, ...] = (),
    against: str = "unet",
    report_only: bool = False,
) -> None:
    """Train and test StitchNet and its peers alike, and compare them. Run again, it goes on.

    Args:
        spec: a YAML file of methods, budgets of labels, folds and seeds; see docs/benchmark.md.
        out: folder for table.csv, scores.csv, report.md and label_efficiency.png.
        only: entries of the file to train now, all by default.
        against: the line of the tables that the others are compared with.
        report_only: train nothing; write the report of what is there.
    """
    from pyro_stitchnet.benchmark.report import report
    from pyro_stitchnet.benchmark.runner import Tables, run
    from pyro_stitchnet.benchmark.spec import read_spec

    wanted = read_spec(spec)
    print(report(Tables(out) if report_only else run(wanted, out, only), against, out))


def demo(out: Path = Path("demo"), steps: int = 320, seed: int = 0) -> None:
    """Train on phantoms, a few labelled and many not, and draw what was learnt (some minutes).

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.
    """
    from pyro_stitchnet import demo

    demo.demo(out, steps=steps, seed=seed)


def main() -> None:
    """Entry point of the `stitchnet` command."""
    try:
        defaults = _defaults(sys.argv[1:])
        tyro.extras.subcommand_cli_from_dict(
            {
                "demo": demo,
                "prepare": prepare,
                "inspect": inspect,
                "train": partial(train, config=defaults),
                "evaluate": evaluate,
                "benchmark": benchmark,
                "download": download,
                "phantom": phantom,
            },
            prog="stitchnet",
            description="Semi-supervised segmentation of lung CT with a deep generative model.",
        )
    except USER_ERRORS as error:
        print(f"error: {_said(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped; `prepare` goes on when run again", file=sys.stderr)
        sys.exit(130)


def _defaults(arguments: Sequence[str]) -> TrainConfig:
    """What `train` does where nothing else is said: that of the preset and the file it names.

    They are read before the other options, whose defaults they set, and once more with them, so
    that `--help` lists all.
    """
    if not arguments or arguments[0] != "train":
        return from_yaml()
    start, _ = tyro.cli(Start, args=arguments[1:], return_unknown_args=True, add_help=False)
    return from_yaml(start.config, start.preset)


def _refuse_results(out: Path, last: str) -> None:
    """Refuse a folder whose results, of which ``last`` is one, would be written over."""
    if (out / last).exists():
        raise FileExistsError(f"{out}: holds results already ({last}); choose another --out")


def _said(error: Exception) -> str:
    """What went wrong, where, and the remedy."""
    if isinstance(error, OSError) and error.filename and error.errno in REMEDIES:
        return f"{os.fspath(error.filename)}: {REMEDIES[error.errno]}"
    return str(error)
