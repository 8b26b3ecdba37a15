"""Summary of a dataset: counts, label shares, grey values, warnings, and a contact sheet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyro_stitchnet.data.datasets.dataset import SKIPPED, Dataset
from pyro_stitchnet.data.datasets.leakage import merge_duplicates
from pyro_stitchnet.figures import overlay, save_figure
from pyro_stitchnet.labels import BACKGROUND, COLOURS, CONSOLIDATION, GGO, LABELS, LESIONS
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import escaped
from pyro_stitchnet.runtime.text_table import TextTable

__all__ = ["Inspection", "contact_sheet", "described", "inspect", "write_inspection"]

BINS = 32
INFECTION = sum(1 << label for label in LESIONS)  # the set of both lesions, as bits

# Grey values outside these limits are unlikely in a lung window.
LEAST_CONTRAST, DARKEST, BRIGHTEST = 0.05, 0.05, 0.95


@dataclass(frozen=True)
class Inspection:
    """Summary of a dataset.

    Attributes:
        counts: a row per source: slices, patients, scans, and slices labelled, with one label a
            pixel, with infection separated from the rest, with GGO and with consolidation.
        shares: a row per label set ("0", "2+3"): its share of the pixels read.
        histogram: of grey values, a column per label set: share of its pixels in each bin.
        warnings: possible problems, in sentences.
        read: indices of the slices that were read.
    """

    counts: pd.DataFrame
    shares: pd.DataFrame
    histogram: pd.DataFrame
    warnings: list[str]
    read: list[int]


def inspect(dataset: Dataset, *, most: int = 1000, seed: int = 0) -> Inspection:
    """Summarise a dataset.

    Args:
        dataset: the dataset.
        most: number of slices to read at most, drawn at random from a larger dataset.
        seed: of the draw.

    Raises:
        ValueError: ``most`` is below 1, or a shard is damaged.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    manifest = dataset.manifest
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:most]
    rows = sorted(chosen.tolist())
    pixels = np.zeros((2 ** len(LABELS), BINS), np.int64)
    unusual = []
    for i in rows:
        image, sets = (tensor.numpy() for tensor in dataset[i])
        bins = np.minimum((image * BINS).astype(int), BINS - 1)
        np.add.at(pixels, (sets, bins), 1)
        if image.std() < LEAST_CONTRAST or not DARKEST < image.mean() < BRIGHTEST:
            unusual.append(dataset.names[i])
    sets_found = np.flatnonzero(pixels.sum(1))
    by_set = pd.DataFrame(pixels[sets_found].T, columns=[_name(int(bits)) for bits in sets_found])
    by_set.index = pd.Index(np.arange(BINS) / BINS, name="grey from")
    total = by_set.sum()
    flags = {
        "labelled": "labelled",
        "complete": "complete",
        "tells_infection": "tells infection",
        "has_ggo": "GGO",
        "has_consolidation": "consolidation",
    }
    groups = manifest.groupby("source")
    counts = groups.agg(slices=("slice", "size"), patients=("patient", "nunique"),
                        scans=("scan", "nunique"))  # fmt: skip
    return Inspection(
        counts.join(groups[list(flags)].sum().rename(columns=flags)),
        pd.DataFrame({"share": total / total.sum()}).rename_axis("labels"),
        by_set / total,
        list(_warnings(dataset, unusual)),
        rows,
    )


def contact_sheet(dataset: Dataset, rows: list[int], *, columns: int = 6) -> Figure:
    """Draw slices with their lesions; pixels with the set of both lesions are drawn as GGO.

    Args:
        dataset: the dataset.
        rows: indices of the slices.
        columns: slices per row of the sheet.
    """
    down = -(-len(rows) // columns)
    figure = Figure(figsize=(1.8 * columns, 2.0 * down), layout="constrained")
    axes = figure.subplots(down, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, i in zip(axes, rows, strict=False):
        image, sets = (tensor.numpy() for tensor in dataset[i])
        labels = np.full(sets.shape, BACKGROUND)
        labels[(sets == 1 << GGO) | (sets == INFECTION)] = GGO
        labels[sets == 1 << CONSOLIDATION] = CONSOLIDATION
        ax.imshow(overlay(image, labels))
        ax.set_title(dataset.names[i], fontsize=6)
    names = {GGO: "GGO, or infection of either kind", CONSOLIDATION: "consolidation"}
    keys = [Patch(color=COLOURS[k], label=name) for k, name in names.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def described(dataset: Dataset, summary: Inspection) -> list[str | pd.DataFrame]:
    """Return the text on a dataset: paragraphs, and tables between them."""
    names = ", ".join(f"{k} {name}" for k, name in enumerate(LABELS))
    return [
        f"# {escaped(str(dataset.folder))}",
        summary.counts,
        f"Pixels of {len(summary.read)} of {len(dataset)} slices, by their label set ({names}):",
        summary.shares.round(4),
        "Warnings:" if summary.warnings else "No warnings.",
        *(f"* {warning}" for warning in summary.warnings),
    ]


def write_inspection(
    dataset: Dataset,
    out: Path,
    *,
    most: int = 1000,
    sheet: int = 36,
    summary: Inspection | None = None,
) -> str:
    """Write ``inspection.md``, ``histogram.csv`` and ``contact_sheet.png``; return the text.

    Args:
        dataset: the dataset.
        out: folder; created if missing.
        most: number of slices to read at most.
        sheet: number of them to draw, evenly spread.
        summary: the result of :func:`inspect`, if there is one already.

    Raises:
        ValueError: ``most`` or ``sheet`` is below 1, or a shard is damaged.
    """
    if sheet < 1:
        raise ValueError(f"sheet must be at least 1, got {sheet}")
    summary = summary or inspect(dataset, most=most)
    text = "\n\n".join(
        part if isinstance(part, str) else _markdown(part) for part in described(dataset, summary)
    )
    spread = np.linspace(0, len(summary.read) - 1, min(sheet, len(summary.read)))
    figure = contact_sheet(dataset, [summary.read[int(i)] for i in spread])
    out.mkdir(parents=True, exist_ok=True)
    save_figure(figure, out / "contact_sheet.png")
    write_atomically(out / "histogram.csv", summary.histogram.to_csv())
    write_atomically(out / "inspection.md", text + "\n")
    return text


def _warnings(dataset: Dataset, unusual: list[str]) -> Iterator[str]:
    manifest = dataset.manifest
    for source in dataset.about["sources"].values():
        if source["caution"]:
            yield source["caution"]
    if skipped := len(dataset.skipped):
        yield f"Scans left out: {skipped}, see {dataset.folder / SKIPPED}."
    complete = manifest[manifest["complete"]]
    if complete["patient"].nunique() < 3:
        yield "Fewer than 3 patients have a slice with every pixel labelled: no test split."
    for column, name in {"has_ggo": "GGO", "has_consolidation": "consolidation"}.items():
        patients = complete["patient"][complete[column]].nunique()
        if patients < 5:
            yield f"Patients with labelled {name}: {patients}; some of 5 folds have none."
    if manifest["labelled"].all():
        yield "No slice is unlabelled: training will be supervised."
    largest = manifest["patient"].value_counts(normalize=True)
    if largest.iloc[0] > 0.5:
        yield f"{largest.index[0]} has {largest.iloc[0]:.0%} of all slices."
    twins = {one: other for one, other in merge_duplicates(manifest).items() if one != other}
    if twins:
        named = ", ".join(f"{one} and {other}" for one, other in list(twins.items())[:5])
        yield f"Pairs of patients who share a slice (give them one name): {len(twins)}: {named}."
    if unusual:
        yield (
            f"Slices nearly black, white or flat (is the window right?): {len(unusual)}: "
            f"{', '.join(unusual[:5])}."
        )


def _name(bits: int) -> str:
    return "+".join(str(k) for k in range(len(LABELS)) if bits >> k & 1)


def _markdown(table: pd.DataFrame) -> str:
    head = [str(table.index.name), *map(str, table.columns)]
    return TextTable(head, [list(map(str, row)) for row in table.itertuples()]).markdown().rstrip()
