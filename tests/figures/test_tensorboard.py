"""The log for TensorBoard, read back."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.figures.tensorboard import TensorBoard
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State


def test_every_metric_and_figure_is_written(tmp_path: Path) -> None:
    slices, tiny = phantom_slices([0, 1], 2, size=64), preset("tiny")
    state = State(ElboLearner(StitchNet(tiny.model), tiny.objective), tiny.optimiser)
    train(
        state,
        TwoStreams(slices, None, (2, 0)).batches(),
        2,
        validation=slices,
        callbacks=[TensorBoard(tmp_path, slices.take([0, 1]))],
        log_every=1,
    )
    log = state.log
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(log.columns) - {"step"}
    assert set(events.Tags()["images"]) == {"segmentations", "styles"}
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx(log["loss"].tolist())
