"""Tables of the article's model, from benchmarks/results."""

import pandas as pd
from result_rows import gain, in_both, rows_of, signed

from pyro_stitchnet.evaluation.benchmark.columns import line_names
from pyro_stitchnet.runtime.text_table import TextTable, decimal

# Lines of the article's model and its U-Nets, each with the U-Net of the same start.
ARTICLE = {
    "U-Net": ("unet", "unet"),
    "`article`, labels only": ("article, labels only (posterior)", "unet"),
    "`article`, labels only, p(y given z)": ("article, labels only", "unet"),
    "U-Net, 2,400 steps": ("unet, 2400 steps", "unet, 2400 steps"),
    "`article`, labels only, 2,400 steps": (
        "article, labels only, 2400 steps (posterior)",
        "unet, 2400 steps",
    ),
    "`article`": ("article (posterior)", "unet"),
    "`article`, SVAE trained first": ("article, pretrained (posterior)", "unet"),
    "`reference`": ("reference (posterior)", "unet"),
    "U-Net, ImageNet start": ("unet, ImageNet", "unet, ImageNet"),
    "`article`, labels only, ImageNet start": (
        "article, labels only, ImageNet (posterior)",
        "unet, ImageNet",
    ),
}

# What one change does to the article's model: the lines with it and without it.
CHANGES = {
    "unlabelled slices": ("article (posterior)", "article, labels only (posterior)"),
    "SVAE trained first": ("article, pretrained (posterior)", "article (posterior)"),
    "SVAE first, minus equal steps with labels": (
        "article, pretrained (posterior)",
        "article, 800 steps (posterior)",
    ),
    "twice the steps": (
        "article, labels only, 2400 steps (posterior)",
        "article, labels only (posterior)",
    ),
    "ImageNet start": (
        "article, labels only, ImageNet (posterior)",
        "article, labels only (posterior)",
    ),
    "group norm": (
        "article, labels only, group norm (posterior)",
        "article, labels only (posterior)",
    ),
}
DATA = {"article": "real CT", "study": "phantoms"}

# Entries of the table of batch norm.
STATISTICS = {
    "article": "unlabelled slices",
    "article, pretrained": "SVAE trained first",
    "article, 800 steps": "unlabelled slices, 800 steps",
    "article, labels only, ImageNet": "ImageNet start",
    "article, labels only, 2400 steps": "2,400 steps",
    "article, labels only, group norm": "group norm",
}


def article() -> TextTable:
    """Return the article's model beside its U-Net, by number of labelled slices."""
    rows = rows_of("article")
    rows = rows.assign(line=line_names(rows)).set_index(["labels", "line", "fold", "seed"])
    cells = []
    for labels in sorted(set(rows.index.get_level_values("labels"))):
        budget = rows.loc[labels]
        for name, (line, other) in ARTICLE.items():
            if line not in budget.index or other not in budget.index:
                continue
            scores = ["dice_ggo", "dice_con", "dice_con_present"]
            runs = budget.loc[line, scores]
            means = [decimal(mean) for mean in runs.mean()[:2]]
            unet = budget.loc[other, scores].loc[runs.index]
            ratios = ["–", "–", "–"]
            if line != other:
                ratios = [_ratio(runs[lesion], unet[lesion]) for lesion in runs]
            cells.append([f"{labels}: {name}", str(len(runs)), *means, *ratios])
    ratios = [f"{part} / U-Net" for part in ("GGO", "consolidation", "where present")]
    return TextTable(["labels: method", "runs", "GGO", "consolidation", *ratios], cells)


def _ratio(one: pd.Series, other: pd.Series) -> str:
    """Return the ratio of two means, and that of each run if there are several.

    Rows of an early version lack the scores where a lesion is present and are left out.
    """
    both = one.notna() & other.notna()
    if not both.any():
        return "–"
    one, other = one[both], other[both]
    mean, *by_run = (
        f"{ratio:.2f}".removeprefix("0") for ratio in [one.mean() / other.mean(), *one / other]
    )
    return mean if len(by_run) == 1 else f"{mean}: {' '.join(by_run)}"


def changes() -> TextTable:
    """Return what one change does to the article's model, on real CT and on phantoms."""
    cells = []
    for change, (line, other) in CHANGES.items():
        for name, data in DATA.items():
            rows = rows_of(name)
            for labels, budget in rows.assign(line=line_names(rows)).groupby("labels"):
                with_it, without = (budget[budget["line"] == each] for each in (line, other))
                after, before = in_both(with_it, without)
                if not len(after):
                    continue
                difference = after[["dice_ggo", "dice_con"]] - before[["dice_ggo", "dice_con"]]
                by_run = [" ".join(map(signed, difference[column])) for column in difference]
                runs = sum(after["dice_by_patient"].notna() & before["dice_by_patient"].notna())
                both_lesions = gain(with_it, without)
                if 0 < runs < len(after):
                    both_lesions += f", {runs} of {len(after)} runs"
                cells.append([change, f"{data}, {labels} labels", *by_run, both_lesions])
    return TextTable(["change", "data", "GGO", "consolidation", "both lesions (95 %)"], cells)


def statistics() -> TextTable:
    """Return the article's model, by its posterior, with three kinds of batch norm's statistics."""
    cells = []
    for name, data in DATA.items():
        rows = rows_of(name)
        rows = rows[(rows["method"] == "stitchnet-article") & (rows["variant"] == "posterior")]
        if "dice_ggo_own_statistics" not in rows:
            continue
        rows = rows[rows["dice_ggo_own_statistics"].notna()]
        for (labels, entry), runs in rows.groupby(["labels", "name"]):
            columns = ("dice_{}", "dice_{}_own_statistics", "dice_{}_batch_statistics")
            means = [_lesions(runs, column) for column in columns]
            what = STATISTICS.get(entry, entry)
            cells.append([what, f"{data}, {labels} labels", str(len(runs)), *means])
    head = ["`article` with", "data", "runs", "training slices", "test slices"]
    return TextTable([*head, "each test batch"], cells)


def _lesions(rows: pd.DataFrame, column: str) -> str:
    """Return the means over runs of both lesions, given the columns' common name."""
    return ", ".join(decimal(rows[column.format(lesion)].mean()) for lesion in ("ggo", "con"))
