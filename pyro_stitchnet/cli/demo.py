"""The demonstration: phantoms in, a trained model with its tables and pictures out."""

import time
from pathlib import Path

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.config import DEFAULT, TrainConfig
from pyro_stitchnet.training.run import run

__all__ = ["demo"]

SIZE = 128
LABELLED = (20, 2)  # patients, slices of each; three fifths of the patients train
UNLABELLED = (40, 5)


def demo(out: str | Path, *, steps: int, seed: int = 0) -> None:
    """Make phantoms, train semi-supervised, evaluate on unseen patients, say where all is.

    Args:
        out: folder to write; must not exist.
        steps: training steps.
        seed: of phantoms and training.

    Raises:
        FileExistsError: ``out`` exists.
    """
    out = Path(out)
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
        made = phantom_slices(range(first, first + patients), slices, size=SIZE, seed=seed)
        write_folder(made, out / name, masks=name == "labelled")
        print(f"{patients * slices} {name} phantom slices of {patients} patients: {out / name}")
        first += patients
    prepare(
        [str(out / "labelled"), str(out / "unlabelled")],
        config.data,
        preprocessing=Preprocessing(size=SIZE, lungs="none"),
        progress=False,
    )
    results = run(config)
    print((results / "test" / "table.md").read_text(encoding="utf-8"))
    print(f"done in {(time.monotonic() - begun) / 60:.1f} minutes; look at")
    for what, path in {
        "Table 1 on unseen patients": "test/table.md",
        "segmentations (Fig. 2)": "test/segmentations.png",
        "styles (Fig. 6b)": "test/styles.png",
        "training curves": "curves.png",
        "checkpoint": "model.pt",
    }.items():
        print(f"  {what:<27} {results / path}")
