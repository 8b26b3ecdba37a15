"""Commands that fit a model or score one: `train`, `evaluate`, `benchmark`, `demo`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from pyro_stitchnet.cli._results import refuse_results
from pyro_stitchnet.presets import PRESETS
from pyro_stitchnet.training.config import TrainConfig

__all__ = ["Start", "benchmark", "demo", "evaluate", "train"]


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
    from pyro_stitchnet.runtime.distributed import rank
    from pyro_stitchnet.training.run import run

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
    decision: Literal["likeliest", "dice"] = "likeliest",
    least_patch: float = 0,
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
        decision: each pixel's likeliest label, or the infection of the greatest expected Dice,
            which finds more where the model is unsure.
        least_patch: pixels that a patch of consolidation has at least; what is smaller becomes
            ground glass.
        seed: of the draws.
        device: "auto" takes a GPU if there is one.
    """
    import numpy as np

    from pyro_stitchnet.data.datasets.dataset import Dataset
    from pyro_stitchnet.evaluation import evaluate as report
    from pyro_stitchnet.runtime.devices import choose_device
    from pyro_stitchnet.runtime.files import refuse_others
    from pyro_stitchnet.runtime.provenance import provenance
    from pyro_stitchnet.training import checkpoint

    refuse_results(out, "table.md")
    refuse_others(out, report.WRITTEN)
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
        decision=decision,
        least_patch=least_patch,
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
        against: the line of the tables that the others are compared with, once it is there: an
            entry, or an entry and how it is read, such as "unet (gaussian)".
        report_only: train nothing; write the report of what is there.
    """
    from pyro_stitchnet.evaluation.benchmark.report import line_names, report
    from pyro_stitchnet.evaluation.benchmark.runner import Tables, run
    from pyro_stitchnet.evaluation.benchmark.spec import read_spec

    wanted = read_spec(spec)
    if report_only:
        print(report(Tables(out), against, out))
        return
    before = Tables(out).rows
    names = {"unet", *wanted.entries, *(line_names(before) if len(before) else ())}
    if not any(against == name or against.startswith(f"{name} (") for name in names):
        raise ValueError(f"--against: no entry {against!r}; there are {', '.join(wanted.entries)}")
    tables = run(wanted, out, only)
    there = against in set(line_names(tables.rows))
    if not there:
        print(f"note: no results of {against!r} to compare with yet", file=sys.stderr)
    print(report(tables, against if there else None, out))


def demo(out: Path = Path("demo"), steps: int = 320, seed: int = 0) -> None:
    """Train on phantoms, a few labelled and many not, and draw what was learnt (some minutes).

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.
    """
    from pyro_stitchnet.cli import demo

    demo.demo(out, steps=steps, seed=seed)
