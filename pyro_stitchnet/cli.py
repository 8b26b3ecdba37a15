"""The command line, `stitchnet`: parses, calls, prints."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from pyro_stitchnet import demo as demonstration
from pyro_stitchnet.data.phantom import phantom_slices
from pyro_stitchnet.data.slices import read_folder, write_folder
from pyro_stitchnet.evaluation.report import evaluate as evaluate_model
from pyro_stitchnet.provenance import provenance
from pyro_stitchnet.run import TrainConfig, choose_device, run
from pyro_stitchnet.training import checkpoint

__all__ = ["main"]

# What a user can mend: said in one line, without a traceback.
USER_ERRORS = (OSError, ValueError, FloatingPointError)


def train(config: tyro.conf.OmitArgPrefixes[TrainConfig]) -> None:
    """Train StitchNet on folders of slices and evaluate it on unseen patients.

    A folder holds images/, masks/ (where labelled) and index.csv with the columns file, patient.
    """
    out = run(config)
    print((out / "test" / "table.md").read_text(encoding="utf-8"))
    print(f"model, log, curves, tables and pictures: {out}")


def evaluate(
    model: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    out: Path,
    patients: Literal["all", "test", "validation"] = "all",
    read_out: Literal["prior", "posterior"] = "prior",
    samples: int = 8,
    seed: int = 0,
    size: int | None = None,
    device: str = "auto",
) -> None:
    """Score a trained model on a folder of labelled slices: Table 1, CSV, JSON, Markdown, pictures.

    Args:
        model: a checkpoint, the model.pt of a run.
        data: folder of slices with masks of all four labels.
        out: folder for tables and pictures.
        patients: all of the folder, or those that the checkpoint's run held out.
        read_out: segmentation by p(y | z) or by p(y | x, z).
        samples: draws of z to average over; 0 takes the mean of each level.
        seed: of the draws.
        size: rows and columns of a slice; by default what the model was trained on.
        device: "auto" takes a GPU if there is one.
    """
    net, info = checkpoint.load(model, choose_device(device))
    size = size or info.get("config", {}).get("size")
    known = info.get("patients", {})
    if size is None or (patients != "all" and patients not in known):
        raise ValueError(f"{model}: records no size or split; give --size and --patients all")
    slices = read_folder(data, size)
    seen = {p for part, names in known.items() if part != "test" for p in names}
    familiar = sum(patient in seen for patient in slices.patients)
    if patients == "all" and familiar:
        print(
            f"note: {familiar} of {len(slices)} slices are of patients that training or model "
            "selection saw; --patients test leaves them out",
            file=sys.stderr,
        )
    if patients != "all":
        slices = slices.without_patients(set(slices.patients) - set(known[patients]))
        if not len(slices):
            raise ValueError(f"{data}: holds none of the {patients} patients of {model}")
    evaluate_model(
        net,
        slices,
        out,
        read_out=read_out,
        samples=samples,
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


def phantom(
    out: Path, patients: int = 10, slices: int = 4, first: int = 0, size: int = 128, seed: int = 0
) -> None:
    """Write a folder of phantom chest CT slices with masks.

    Args:
        out: folder to write.
        patients: how many patients.
        slices: slices of each.
        first: number of the first patient; folders of other numbers share no patient.
        size: rows and columns, a multiple of 32.
        seed: another seed makes another population.
    """
    numbers = range(first, first + patients)
    write_folder(phantom_slices(numbers, slices, size=size, seed=seed), out)
    print(f"{patients * slices} slices: {out}")


def demo(out: Path = Path("demo"), steps: int = demonstration.STEPS, seed: int = 0) -> None:
    """Train on phantoms, a few labelled and many not, and draw what was learnt (some minutes).

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.
    """
    demonstration.demo(out, steps=steps, seed=seed)


def main() -> None:
    """Entry point of the `stitchnet` command."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"demo": demo, "train": train, "evaluate": evaluate, "phantom": phantom},
            prog="stitchnet",
            description="Semi-supervised segmentation of lung CT with a deep generative model.",
        )
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; a training run that was under way is lost", file=sys.stderr)
        sys.exit(130)
