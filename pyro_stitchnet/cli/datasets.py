"""Commands that write or summarise datasets: `download`, `phantom`, `prepare`, `inspect`."""

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pyro_stitchnet.cli._results import refuse_results, writing
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.sources import SOURCES
from pyro_stitchnet.runtime.limits import PREPARE_SECONDS
from pyro_stitchnet.runtime.ranges import Count, CountOrZero, Few, Positive, Processes, Seed, Side

__all__ = ["download", "inspect", "phantom", "prepare"]

DEFAULT_STEPS = Preprocessing()
MOST_PIXELS = 2**28  # of phantoms in memory, 5 bytes each


def download(
    source: tyro.conf.Positional[Literal[tuple(s.name for s in SOURCES.values() if s.archives)]],  # type: ignore[valid-type]
    out: Path,
    yes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Download a public dataset and verify its checksums.

    Prints its licence and the article to cite first, and asks before a large download. The same
    command continues after an interrupt and fetches only what is missing.

    Args:
        source: name of the dataset.
        out: folder for it.
        yes: do not ask.
    """
    from pyro_stitchnet.data.sources import download

    for path in download.download(source, out, confirm=None if yes else _confirm):
        print(path)


def _confirm(question: str) -> None:
    """Ask on the terminal; raise ValueError unless the answer is yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError(f"{question} There is no terminal to ask on; give --yes to agree")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was downloaded; answer y, or give --yes")


def phantom(
    out: Path,
    patients: Count = 10,
    slices: Few = 4,
    first: CountOrZero = 0,
    size: Side = 128,
    seed: Seed = 0,
    masks: bool = True,
) -> None:
    """Write a folder of synthetic chest CT slices with labels.

    Args:
        out: folder to write.
        patients: number of patients.
        slices: slices per patient.
        first: number of the first patient; two folders share no patient if their numbers do not
            overlap.
        size: rows and columns, a multiple of 32.
        seed: of the population of patients.
        masks: write the labels too.
    """
    from pyro_stitchnet.data.datasets.slices import write_folder
    from pyro_stitchnet.data.phantoms.phantom import phantom_slices

    refuse_results(out, "index.csv")
    if patients * slices * size**2 > MOST_PIXELS:
        raise ValueError(
            f"{patients * slices} slices of {size} x {size} pixels do not fit into memory; write "
            "several folders with --first"
        )
    numbers = range(first, first + patients)
    phantoms = phantom_slices(numbers, slices, size=size, seed=seed)
    with writing(out, "index.csv"):
        write_folder(phantoms, out, masks=masks)
    print(f"slices: {patients * slices}: {out}")


def prepare(
    sources: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="FOLDER [FOLDER ...]", help_behavior_hint="(required)"),
    ],
    out: Path,
    preprocessing: tyro.conf.OmitArgPrefixes[Preprocessing] = DEFAULT_STEPS,
    workers: Processes | None = None,
    scheduler: str | None = None,
    skip_bad: bool = False,
    time_limit: Positive = PREPARE_SECONDS,
    progress: bool = True,
) -> None:
    """Preprocess scans and write them as a dataset for training.

    After an interruption, run the same command again: it continues.

    Args:
        sources: folders. FOLDER@RULE reads masks by a labelling rule (full, infection, lung,
            control), FOLDER@SOURCE reads a layout that is not detected automatically.
        out: folder for the dataset.
        preprocessing: the steps from a scan to slices.
        workers: number of processes; by default one per core, or none for up to 256 images without
            a shorter time limit. If one crashes, only the scan that it was reading fails.
        scheduler: address of a dask scheduler whose workers, on other machines too, do the work.
        skip_bad: leave out scans that cannot be used, and list them in skipped.csv.
        time_limit: seconds that a scan may take in a process; a scan that takes longer fails.
        progress: show a progress bar.
    """
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
        time_limit=time_limit,
        progress=progress,
    )
    cautions = {source["caution"] for source in dataset.about["sources"].values()} - {""}
    for caution in sorted(cautions):
        print(f"note: {caution}", file=sys.stderr)
    hounsfield = dataset.manifest["hounsfield"].any()
    if preprocessing.window != Preprocessing().window and not hounsfield:
        print("note: no scan is in Hounsfield units, so --window has no effect", file=sys.stderr)
    doubts = dataset.manifest.drop_duplicates("scan")["warnings"]
    for doubt, scans in doubts[doubts != ""].value_counts().items():
        print(f"note: scans: {scans}: {doubt}", file=sys.stderr)
    if skipped := len(dataset.skipped):
        print(f"note: scans left out: {skipped}, see {out / SKIPPED}", file=sys.stderr)
    print(
        f"slices: {len(dataset)}, with labels: {dataset.manifest['labelled'].sum()}, "
        f"patients: {len(set(dataset.patients))}; "
        f"{len(dataset) / (time.monotonic() - begun):.1f} slices/s: {out}"
    )


def inspect(
    data: tyro.conf.Positional[Path],
    out: Path | None = None,
    most: Count = 1000,
    sheet: Few = 36,
) -> None:
    """Summarise a dataset: counts, label shares, grey values, warnings, slices.

    Args:
        data: a dataset that `stitchnet prepare` wrote.
        out: folder for the text, the histogram and the contact sheet; none are written without it.
        most: largest number of slices to read, drawn at random from a larger dataset.
        sheet: number of slices to draw.
    """
    from pyro_stitchnet.data.datasets.dataset import Dataset
    from pyro_stitchnet.figures import dataset_page
    from pyro_stitchnet.runtime.text_table import TextTable

    dataset = Dataset(data)
    if out is not None:
        refuse_results(out, "inspection.md")
    summary = dataset_page.inspect(dataset, most=most)
    if out is not None:
        with writing(out, "inspection.md"):
            dataset_page.write_inspection(dataset, out, sheet=sheet, summary=summary)
    for part in dataset_page.described(dataset, summary):
        if isinstance(part, str):
            print(part, end="\n\n")
        else:
            rows = [[str(cell) for cell in row] for row in part.itertuples()]
            TextTable([str(part.index.name), *part.columns], rows).print()
    if out is not None:
        print(f"text, histogram and contact sheet: {out}")
