"""Commands that write or summarise datasets: `download`, `phantom`, `prepare`, `inspect`."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pyro_stitchnet.cli._results import refuse_results
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.sources import SOURCES

__all__ = ["download", "inspect", "phantom", "prepare"]

DEFAULT_STEPS = Preprocessing()


def download(
    source: tyro.conf.Positional[Literal[tuple(s.name for s in SOURCES.values() if s.archives)]],  # type: ignore[valid-type]
    out: Path,
) -> None:
    """Download a public dataset and verify its checksums.

    Prints its licence and the article to cite.

    Args:
        source: name of the dataset.
        out: folder for it.
    """
    from pyro_stitchnet.data.sources import download

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
    """Write a folder of synthetic chest CT slices with labels.

    Args:
        out: folder to write.
        patients: number of patients.
        slices: slices per patient.
        first: number of the first patient; folders of other numbers share no patient.
        size: rows and columns, a multiple of 32.
        seed: of the population of patients.
        masks: write the labels too.
    """
    from pyro_stitchnet.data.datasets.slices import write_folder
    from pyro_stitchnet.data.phantoms.phantom import phantom_slices

    refuse_results(out, "index.csv")
    numbers = range(first, first + patients)
    write_folder(phantom_slices(numbers, slices, size=size, seed=seed), out, masks=masks)
    print(f"slices: {patients * slices}: {out}")


def prepare(
    sources: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="FOLDER [FOLDER ...]", help_behavior_hint="(required)"),
    ],
    out: Path,
    preprocessing: tyro.conf.OmitArgPrefixes[Preprocessing] = DEFAULT_STEPS,
    workers: int = os.cpu_count() or 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> None:
    """Preprocess scans and write them as a dataset for training.

    The same command continues after an interrupt.

    Args:
        sources: folders. FOLDER@RULE reads masks by a labelling rule (full, infection, lung,
            control), FOLDER@SOURCE reads a layout that is not detected automatically.
        out: folder for the dataset.
        preprocessing: the steps from a scan to slices.
        workers: number of processes.
        scheduler: address of a dask scheduler whose workers, on other machines too, do the work.
        skip_bad: leave out scans that cannot be used, and list them in skipped.csv.
        progress: show a progress bar.
    """
    import pandas as pd

    from pyro_stitchnet.data.datasets import prepare
    from pyro_stitchnet.data.datasets.dataset import SKIPPED

    begun = time.monotonic()
    dataset = prepare.prepare(
        sources,
        out,
        preprocessing=preprocessing,
        workers=workers,
        scheduler=scheduler,
        skip_bad=skip_bad,
        progress=progress,
    )
    cautions = {source["caution"] for source in dataset.about["sources"].values()} - {""}
    for caution in sorted(cautions):
        print(f"note: {caution}", file=sys.stderr)
    skipped = len(pd.read_csv(out / SKIPPED))
    if skipped:
        print(f"note: scans left out: {skipped}, see {out / SKIPPED}", file=sys.stderr)
    print(
        f"slices: {len(dataset)}, with labels: {dataset.manifest['labelled'].sum()}, "
        f"patients: {len(set(dataset.patients))}; "
        f"{len(dataset) / (time.monotonic() - begun):.1f} slices/s: {out}"
    )


def inspect(data: tyro.conf.Positional[Path], out: Path, most: int = 1000, sheet: int = 36) -> None:
    """Summarise a dataset: counts, label shares, grey values, warnings, slices.

    Args:
        data: a dataset that `stitchnet prepare` wrote.
        out: folder for the text, the histogram and the contact sheet.
        most: number of slices to read at most, drawn at random from a larger dataset.
        sheet: number of slices to draw.
    """
    from pyro_stitchnet.data.datasets.dataset import Dataset
    from pyro_stitchnet.figures.dataset_page import write_inspection

    refuse_results(out, "inspection.md")
    print(write_inspection(Dataset(data), out, most=most, sheet=sheet))
    print(f"\ntext, histogram and contact sheet: {out}")
