"""The command `demo`: phantoms, a trained model and its scores and figures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_stitchnet.cli._results import print_scores
from pyro_stitchnet.runtime.ranges import Count, Seed

if TYPE_CHECKING:
    from pyro_stitchnet.training.config import TrainConfig

__all__ = ["demo"]

SIZE = 128
LABELLED = (20, 2)  # patients, slices per patient; three fifths of the patients are trained on
UNLABELLED = (40, 5)


def demo(out: Path = Path("demo"), steps: Count = 320, seed: Seed = 0) -> None:
    """Train on phantoms, evaluate on unseen ones and draw the results (some minutes).

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.
    """
    from pyro_stitchnet.presets import DEFAULT, preset
    from pyro_stitchnet.runtime.files import refuse_others
    from pyro_stitchnet.runtime.locks import check_free, only_run
    from pyro_stitchnet.training.config import TrainConfig

    check_free(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists; remove it or choose another --out")
    config = TrainConfig(
        data=out / "dataset",
        out=out / "run",
        **vars(preset(DEFAULT)),
        steps=steps,
        labelled_per_batch=3,
        unlabelled_per_batch=3,
        log_every=20,
        seed=seed,
    )
    config.check()
    begun = time.monotonic()
    with only_run(out):
        refuse_others(out, ())  # of another demo that has ended since
        results = _results(config)
    print_scores(results / "test")
    print(f"done in {(time.monotonic() - begun) / 60:.1f} minutes; results:")
    for content, file in {
        "Table 1 on unseen patients": "test/table.md",
        "segmentations (Fig. 2)": "test/segmentations.png",
        "styles (Fig. 6b)": "test/styles.png",
        "training curves": "curves.png",
        "checkpoint": "model.pt",
    }.items():
        print(f"  {content:<27} {results / file}")


def _results(config: "TrainConfig") -> Path:
    """Write phantoms and their dataset, and train on it; return the folder of the run."""
    from pyro_stitchnet.data.datasets.prepare import prepare
    from pyro_stitchnet.data.datasets.slices import write_folder
    from pyro_stitchnet.data.phantoms.phantom import phantom_slices
    from pyro_stitchnet.data.preprocessing.steps import Preprocessing
    from pyro_stitchnet.evaluation.experiment import experiment

    out, first = config.data.parent, 0
    for name, (patients, slices) in {"labelled": LABELLED, "unlabelled": UNLABELLED}.items():
        numbers = range(first, first + patients)
        phantoms = phantom_slices(numbers, slices, size=SIZE, seed=config.seed)
        write_folder(phantoms, out / name, masks=name == "labelled")
        print(f"{patients * slices} {name} phantom slices of {patients} patients: {out / name}")
        first += patients
    prepare(
        [str(out / "labelled"), str(out / "unlabelled")],
        config.data,
        preprocessing=Preprocessing(size=SIZE, lungs="none"),
        progress=False,
    )
    return experiment(config)
