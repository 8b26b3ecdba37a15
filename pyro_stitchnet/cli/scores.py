"""Commands that score models: `evaluate`, `benchmark`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pyro_stitchnet.cli._results import print_scores, refuse_results, writing
from pyro_stitchnet.posterior.options import ReadOutOptions
from pyro_stitchnet.runtime.ranges import LabelBudget, Seed

__all__ = ["benchmark", "evaluate"]

DEFAULT_OPTIONS = ReadOutOptions()


def evaluate(
    model: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    out: Path,
    patients: Literal["all", "test", "validation"] = "all",
    options: Annotated[
        tyro.conf.OmitArgPrefixes[ReadOutOptions], tyro.conf.arg(name="read-out")
    ] = DEFAULT_OPTIONS,
    device: str = "auto",
) -> None:
    """Score a trained model on the labelled slices of a dataset.

    Writes Table 1 of the article, and figures of segmentations and styles. Slices whose masks
    separate all four labels are scored. If there are none, slices with masks of infection are
    scored, by infection alone. The table says how many of the slices it covers.

    Args:
        model: a checkpoint, the model.pt of a run.
        data: a dataset that `stitchnet prepare` wrote.
        out: folder for tables and figures.
        patients: all of the dataset, or those that the checkpoint's run held out.
        options: how the labels are read out of the model.
        device: "auto" uses a GPU if there is one.
    """
    import numpy as np

    from pyro_stitchnet.data.datasets.dataset import Dataset
    from pyro_stitchnet.evaluation import evaluate
    from pyro_stitchnet.evaluation.coverage import Coverage
    from pyro_stitchnet.posterior.folding import folded
    from pyro_stitchnet.runtime.devices import choose_device
    from pyro_stitchnet.runtime.files import refuse_others
    from pyro_stitchnet.runtime.provenance import provenance
    from pyro_stitchnet.training import checkpoint
    from pyro_stitchnet.training.preparation import check_preparation, note_preparation
    from pyro_stitchnet.training.seen import seen

    refuse_results(out, "table.md")
    refuse_others(out, evaluate.WRITTEN)
    net, info = checkpoint.load(model, choose_device(device))
    split = info.get("patients", {})
    if patients != "all" and patients not in split:
        raise ValueError(f"{model}: records no split; give --patients all")
    dataset = Dataset(data)
    check_preparation(dataset, model, info)
    note_preparation(dataset, model, info)
    if not dataset.manifest["labelled"].any():
        raise ValueError(f"{data}: no slice has labels; give a dataset with masks")
    if patients != "all":
        held_out = dataset.manifest["patient"].isin(split[patients])
        if not held_out.any():
            raise ValueError(f"{data}: holds none of the {patients} patients of {model}")
        dataset = dataset.take(np.flatnonzero(held_out))
    chosen = dataset.manifest["complete"]
    if not chosen.any():
        chosen = dataset.manifest["tells_infection"]
    if not chosen.any():
        raise ValueError(
            f"{data}: none of the masks of {len(chosen)} slices separates infection from the "
            "rest; give slices with masks of the rule 'full' or 'infection'"
        )
    coverage = Coverage.of_slices(dataset.manifest, chosen)
    slices = dataset.take(np.flatnonzero(chosen)).load()
    familiar = int(seen(dataset.manifest[chosen.to_numpy()], info).sum())
    if familiar and patients != "validation":
        print(
            f"note: slices of patients in training or validation: {familiar} of {len(slices)}; "
            "--patients test leaves out those that have the same names",
            file=sys.stderr,
        )
    info.pop("hashes", None)  # too long for the tables
    record = {
        "model": str(model),
        "slices_of_patients_seen_before_test": familiar,
        "trained": info,
        **provenance(),
    }
    with writing(out, "table.md"):
        evaluate.evaluate(folded(net), slices, out, options, record, coverage)
    print_scores(out)
    print(f"tables and figures: {out}")


def benchmark(
    spec: tyro.conf.Positional[Path],
    out: Path,
    only: tuple[str, ...] = (),
    labels: tuple[LabelBudget, ...] = (),
    seeds: tuple[Seed, ...] = (),
    join: tuple[Path, ...] = (),
    against: str = "unet",
    report_only: bool = False,
) -> None:
    """Train and test StitchNet and other methods under the same conditions.

    After an interruption, run the same command again: it continues.

    Args:
        spec: a YAML file of methods, label budgets, folds and seeds; see
            docs/how-to/compare_methods.md.
        out: folder for table.csv, scores.csv, report.md and label_efficiency.png.
        only: entries of the file to train; all by default.
        labels: label budgets to train with, by their number of labelled slices, -1 for all of them;
            every budget by default.
        seeds: of the models to train; all by default.
        join: folders of other runs of this file, such as those of other machines; --out gets their
            results first.
        against: the line of the tables that the others are compared with: an entry, or an entry and
            its variant, such as "unet (gaussian)".
        report_only: only write the report of the results so far.
    """
    from pyro_stitchnet.evaluation.benchmark import consistency, runner
    from pyro_stitchnet.evaluation.benchmark.columns import line_names
    from pyro_stitchnet.evaluation.benchmark.report import report
    from pyro_stitchnet.evaluation.benchmark.results import Results
    from pyro_stitchnet.evaluation.benchmark.spec import read_spec

    chosen = read_spec(spec)
    if report_only and (only or labels or seeds):
        raise ValueError("--report-only is of all results; leave out --only, --labels and --seeds")
    if against != "unet":  # the default, which a specification need not have
        entry = max((n for n in chosen.entries if against.startswith(n)), key=len, default=None)
        if entry is None:
            entries = ", ".join(chosen.entries)
            raise ValueError(f"--against: no entry {against!r}; there are {entries}")
        if against not in (lines := chosen.lines(entry)):
            raise ValueError(f"--against: no line {against!r}; there are {', '.join(lines)}")
    if join:
        runner.join(chosen, out, join)
    results = Results(out)
    consistency.check_specification(chosen, results)
    if not report_only:
        results = runner.run(chosen, out, only, labels, seeds)
    rows = consistency.rows_of_specification(chosen, results)
    compared: str | None = against
    if len(rows) and against not in set(line_names(rows)):
        print(f"note: no results of {against!r} to compare with yet", file=sys.stderr)
        compared = None
    for title, table in report(rows, compared, out).items():
        print(f"Dice with {title.lower()}")
        table.print()
    print(f"report: {out / 'report.md'}")
