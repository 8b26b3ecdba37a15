"""Eq. 1: by hand, by its properties, and against MONAI."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_iou,
    get_confusion_matrix,
)

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.metrics.scores import GROUPS, INFECTION, SCORES, slice_scores

NAN = float("nan")
label_maps = arrays(np.int64, (2, 3, 4), elements=st.integers(0, 3))


def score(truth: list[int], predicted: list[int], lesion: str) -> dict[str, Any]:
    """The scores of one lesion on one slice with a single row of pixels."""
    scores = slice_scores(np.array([[truth]]), np.array([[predicted]]))
    return scores[scores["lesion"] == lesion].iloc[0].to_dict()


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (
            [2, 2, 2, 0, 0],
            [2, 0, 0, 2, 0],
            (1 / 4, 2 / 5, 1 / 3, 1 / 2),
        ),  # |T|=3, |P|=2, one common
        ([2, 2, 0, 0, 0], [2, 2, 0, 0, 0], (1, 1, 1, 1)),
        ([2, 2, 0, 0, 0], [0, 0, 2, 2, 2], (0, 0, 0, 0)),
        ([0, 0, 0, 0, 0], [2, 0, 0, 0, 0], (0, 0, NAN, 0)),  # false alarm
        ([2, 0, 0, 0, 0], [0, 0, 0, 0, 0], (0, 0, 0, NAN)),  # missed
        ([0, 1, 3, 0, 0], [1, 3, 0, 0, 0], (NAN, NAN, NAN, NAN)),  # true negative
    ],
)
def test_ggo_by_hand(truth: list[int], predicted: list[int], expected: tuple[float, ...]) -> None:
    row = score(truth, predicted, "GGO")
    np.testing.assert_allclose([row[name] for name in SCORES], expected)
    assert row["truth_pixels"] == truth.count(GGO)
    assert row["predicted_pixels"] == predicted.count(GGO)


def test_background_and_healthy_are_one_group() -> None:
    row = score([0, 1, 0, 2], [1, 0, 0, 3], "Background")
    assert [row[name] for name in SCORES] == [1, 1, 1, 1]
    assert (row["truth_pixels"], row["common_pixels"]) == (3, 3)


def test_ggo_and_consolidation_are_different_groups() -> None:
    for lesion in ("GGO", "CON"):
        assert score([2, 3], [3, 2], lesion)["f1"] == 0


@settings(deadline=None, max_examples=50)
@given(truth=label_maps, predicted=label_maps)
def test_scores_agree_with_monai(truth: np.ndarray, predicted: np.ndarray) -> None:
    groups = list(GROUPS.values())
    t, p = (
        torch.from_numpy(np.stack([np.isin(a, labels) for labels in groups], 1)).float()
        for a in (truth, predicted)
    )
    ours = slice_scores(truth, predicted)
    n = len(truth)
    present = (ours["truth_pixels"] > 0).to_numpy()
    # MONAI defines IoU and Dice differently for an empty truth.
    for name, theirs in (("iou", compute_iou(p, t)), ("f1", compute_dice(p, t))):
        np.testing.assert_allclose(
            ours[name][present], theirs.numpy().ravel()[present], rtol=1e-6, err_msg=name
        )
    confusion = get_confusion_matrix(p, t)
    for name in ("recall", "precision"):
        theirs = compute_confusion_matrix_metric(name, confusion)
        np.testing.assert_allclose(
            ours[name].to_numpy().reshape(n, len(groups)), theirs.numpy(), rtol=1e-6, err_msg=name
        )


@settings(deadline=None, max_examples=50)
@given(truth=label_maps, predicted=label_maps)
def test_exchanging_truth_and_prediction_exchanges_recall_and_precision(
    truth: np.ndarray, predicted: np.ndarray
) -> None:
    one, other = slice_scores(truth, predicted), slice_scores(predicted, truth)
    np.testing.assert_array_equal(one["recall"], other["precision"])
    np.testing.assert_array_equal(one["iou"], other["iou"])
    np.testing.assert_allclose(one["f1"], 2 * one["iou"] / (1 + one["iou"]))


def test_rows_are_ordered_by_slice_with_their_names() -> None:
    truth = np.zeros((2, 2, 2), dtype=np.uint8)
    truth[1, 0, 0] = CONSOLIDATION
    scores = slice_scores(truth, truth, names=["b", "a"], patients=["p", "q"])
    assert list(scores["name"]) == ["b"] * 4 + ["a"] * 4
    assert list(scores["patient"]) == ["p"] * 4 + ["q"] * 4
    assert list(scores["lesion"]) == ["GGO", "CON", "Background", "Infection"] * 2
    assert list(scores["truth_pixels"]) == [0, 0, 4, 0, 0, 1, 3, 1]
    assert list(scores.index) == list(range(8))


def test_infection_is_both_lesions_and_can_be_scored_alone() -> None:
    truth, predicted = np.array([[[2, 2, 1, 0]]]), np.array([[[3, 1, 2, 0]]])
    scores = slice_scores(truth, predicted, groups=[INFECTION])
    assert list(scores["lesion"]) == ["Infection"]
    assert scores["f1"].iloc[0] == pytest.approx(1 / 2)


def test_tensors_are_accepted_and_small_integers_do_not_overflow() -> None:
    ones = np.full((1, 30, 30), HEALTHY, dtype=np.uint8)
    scores = slice_scores(torch.from_numpy(ones), ones)
    assert scores["truth_pixels"].iloc[2] == 900
    assert scores["f1"].iloc[2] == 1
    assert list(scores["name"]) == ["0"] * 4
    assert scores["patient"].isna().all()


def test_wrong_input_is_refused() -> None:
    labels = np.zeros((2, 3, 3), dtype=int)
    with pytest.raises(ValueError, match="same grid"):
        slice_scores(labels, labels[:1])
    with pytest.raises(ValueError, match=r"\(slices, rows, columns\)"):
        slice_scores(labels[0], labels[0])
    with pytest.raises(TypeError, match="predicted has dtype float64"):
        slice_scores(labels, labels.astype(float))
    with pytest.raises(TypeError, match="dtype bool"):
        slice_scores(labels.astype(bool), labels)
    for bad in (-1, 4, 255):
        with pytest.raises(ValueError, match="must be 0 to 3"):
            slice_scores(np.full_like(labels, bad), labels)
    with pytest.raises(ValueError, match="2 slices but 1 names"):
        slice_scores(labels, labels, names=["a"])
    with pytest.raises(ValueError, match="2 slices but 3 patients"):
        slice_scores(labels, labels, patients=["a", "b", "c"])
