"""The command `demo`: phantoms, a trained model and its scores and figures."""

import time
from pathlib import Path

from pyro_stitchnet.cli._results import print_scores

__all__ = ["demo"]

SIZE = 128
LABELLED = (20, 2)  # patients, slices per patient; three fifths of the patients are trained on
UNLABELLED = (40, 5)


def demo(out: Path = Path("demo"), steps: int = 320, seed: int = 0) -> None:
    """Train on phantoms, evaluate on unseen ones and draw the results (some minutes).

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.
    """
    from pyro_stitchnet.data.datasets.prepare import prepare
    from pyro_stitchnet.data.datasets.slices import write_folder
    from pyro_stitchnet.data.phantoms.phantom import phantom_slices
    from pyro_stitchnet.data.preprocessing.steps import Preprocessing
    from pyro_stitchnet.evaluation.experiment import experiment
    from pyro_stitchnet.presets import DEFAULT, preset
    from pyro_stitchnet.training.config import TrainConfig

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
    first = 0
    for name, (patients, slices) in {"labelled": LABELLED, "unlabelled": UNLABELLED}.items():
        phantoms = phantom_slices(range(first, first + patients), slices, size=SIZE, seed=seed)
        write_folder(phantoms, out / name, masks=name == "labelled")
        print(f"{patients * slices} {name} phantom slices of {patients} patients: {out / name}")
        first += patients
    prepare(
        [str(out / "labelled"), str(out / "unlabelled")],
        config.data,
        preprocessing=Preprocessing(size=SIZE, lungs="none"),
        progress=False,
    )
    results = experiment(config)
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
