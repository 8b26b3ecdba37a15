"""Data prepared otherwise than a model's: what is refused, noted, and does not matter."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.training.preparation import check_preparation, note_preparation

MODEL = Path("model.pt")


def prepared_with(folder: Path, *, hounsfield: bool = True, **options: Any) -> Dataset:
    """A dataset that says that it was prepared with other options."""
    dataset = Dataset(folder)
    dataset.about["preprocessing"] |= {"lungs": "classical", **options}
    dataset.manifest["hounsfield"] = hounsfield
    return dataset


def record(**options: Any) -> dict[str, Any]:
    """The record of a model of slices that were prepared with options."""
    return {"dataset": {"preprocessing": asdict(Preprocessing(size=64, **options))}}


def test_another_window_or_background_is_refused(dataset: Path) -> None:
    other = prepared_with(dataset, window=[-1000, 400], zero_outside=True)
    with pytest.raises(
        ValueError, match="prepared with --window -1000 400 --zero-outside, but"
    ) as e:
        check_preparation(other, MODEL, record())
    assert str(e.value).startswith(f"{dataset}: ")
    assert "model.pt was trained on slices prepared with --window -1250 250 --no-zero" in str(
        e.value
    )
    same = record(window=(-1000.0, 400.0), zero_outside=True)
    check_preparation(other, MODEL, same)


def test_what_does_not_matter_or_is_not_recorded_is_not_compared(dataset: Path) -> None:
    """Images come with a window of their own; without a lung field nothing is outside."""
    check_preparation(prepared_with(dataset, hounsfield=False, window=[0, 1]), MODEL, record())
    cropped = prepared_with(dataset, lungs="none")
    check_preparation(cropped, MODEL, record(zero_outside=True))
    unknowns: list[dict[str, Any]] = [{}, {"dataset": {}}, {"dataset": {"preprocessing": None}}]
    for unknown in unknowns:
        check_preparation(cropped, MODEL, unknown)
        note_preparation(cropped, MODEL, unknown)


def test_another_size_or_crop_is_noted(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note_preparation(prepared_with(dataset), MODEL, record())
    assert capsys.readouterr().err == ""
    note_preparation(prepared_with(dataset, size=96), MODEL, record())
    expected = (
        f"note: {dataset}: slices prepared with --size 96; model.pt was "
        "trained on slices prepared with --size 64\n"
    )
    assert capsys.readouterr().err == expected
    cropped = prepared_with(dataset, lungs="none", margin=1.0)
    note_preparation(cropped, MODEL, record(margin=5.0))
    err = capsys.readouterr().err
    assert "prepared with --lungs none; model.pt was" in err
    assert err.endswith("prepared with --lungs classical\n")
    note_preparation(prepared_with(dataset, margin=1.0), MODEL, record(margin=5.0))
    assert "prepared with --margin 1.0; model.pt" in capsys.readouterr().err
