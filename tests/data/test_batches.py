"""Batches: the order of the streams, what is known of their labels, and augmentation."""

from collections import Counter
from itertools import islice

import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from pyro_stitchnet.data.batches import Batch, two_streams
from pyro_stitchnet.data.slices import Slices

SIZE = 64


def numbered(n: int, first: int = 0) -> Slices:
    """Labelled slices that tell their number: all pixels of slice i are i / 255."""
    numbers = torch.arange(first, first + n)
    return Slices(
        (numbers / 255).reshape(n, 1, 1).expand(n, SIZE, SIZE).clone(),
        (1 << numbers % 4).byte().reshape(n, 1, 1).expand(n, SIZE, SIZE).clone(),
        [f"{i}.png" for i in numbers],
        [f"p{i}" for i in numbers],
    )


def lopsided() -> Slices:
    """A picture that tells its labels, grey = label / 3, and that no turn or flip leaves alone."""
    labels = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    labels[4:40, 4:20] = 1
    labels[8:20, 24:60] = 2
    labels[44:60, 40:52] = 3
    return Slices(labels[None] / 3, (1 << labels[None]).byte(), ["a.png"], ["p"])


def numbers(batch: Batch) -> list[int]:
    return [round(float(x) * 255) for x in batch.x[:, 0, 0]]


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.x, other.x) and torch.equal(one.allowed, other.allowed)


def labels_of(batch: Batch) -> Tensor:
    assert (batch.allowed.sum(-1) == 1).all(), "augmentation invented a set of labels"
    return batch.allowed.int().argmax(-1)


# --- The streams ----------------------------------------------------------------------------------


def test_a_batch_holds_the_labelled_slices_first() -> None:
    batches = two_streams(numbered(5), numbered(7, first=100), (2, 3), augment=False)
    for batch in islice(batches, 20):
        assert batch.x.shape == (5, SIZE, SIZE)
        assert batch.allowed.shape == (5, SIZE, SIZE, 4)
        assert (batch.x.dtype, batch.allowed.dtype) == (torch.float32, torch.bool)
        assert [number >= 100 for number in numbers(batch)] == [False] * 2 + [True] * 3


def test_labelled_slices_keep_their_labels_and_unlabelled_lose_theirs() -> None:
    batches = two_streams(numbered(5), numbered(7, first=100), (2, 3))
    for batch in islice(batches, 20):
        for i, number in enumerate(numbers(batch)[:2]):
            assert (batch.allowed[i] == (torch.arange(4) == number % 4)).all()
        assert batch.allowed[2:].all()


@pytest.mark.parametrize("per_batch", [1, 2, 3, 4, 7, 10])
def test_each_slice_comes_once_a_round(per_batch: int) -> None:
    n, rounds = 7, 10
    batches = two_streams(numbered(n), None, (per_batch, 0), augment=False)
    seen: list[int] = []
    while len(seen) < n * rounds:
        seen += numbers(next(batches))
    orders = [tuple(seen[i * n : (i + 1) * n]) for i in range(rounds)]
    assert all(Counter(order) == Counter(range(n)) for order in orders)
    assert len(set(orders)) > 1, "every round has the same order"


def test_a_small_stream_starts_again_before_a_large_one_ends() -> None:
    batches = two_streams(numbered(2), numbered(50, first=100), (1, 1), augment=False)
    pairs = [numbers(batch) for batch in islice(batches, 50)]
    assert Counter(a for a, _ in pairs) == {0: 25, 1: 25}
    assert Counter(b for _, b in pairs) == dict.fromkeys(range(100, 150), 1)


@pytest.mark.parametrize("per_batch", [(2, 0), (0, 2)])
def test_one_stream_is_enough(per_batch: tuple[int, int]) -> None:
    labelled, unlabelled = (numbered(5) if n else None for n in per_batch)
    assert next(two_streams(labelled, unlabelled, per_batch)).x.shape == (2, SIZE, SIZE)


def test_one_seed_gives_one_sequence() -> None:
    def batches(seed: int) -> list[Batch]:
        torch.manual_seed(seed)
        return list(islice(two_streams(numbered(9), numbered(9), (2, 2), seed=seed), 10))

    one, again, other = batches(1), batches(1), batches(2)
    assert all(same(a, b) for a, b in zip(one, again, strict=True))
    assert not all(same(a, b) for a, b in zip(one, other, strict=True))


def test_the_order_does_not_depend_on_the_global_generator() -> None:
    def order() -> list[list[int]]:
        stream = two_streams(numbered(9), None, (2, 0), seed=1, augment=False)
        return [numbers(batch) for batch in islice(stream, 10)]

    one = order()
    torch.manual_seed(12345)
    assert order() == one


def test_the_streams_are_shuffled_apart() -> None:
    batches = islice(two_streams(numbered(9), numbered(9), (1, 1), augment=False), 9)
    pairs = [numbers(batch) for batch in batches]
    assert any(a != b for a, b in pairs)


def test_a_batch_moves_to_a_device() -> None:
    batch = next(two_streams(numbered(2), None, (2, 0))).to("meta")
    assert batch.x.device.type == batch.allowed.device.type == "meta"


# --- Errors, at the call --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_batch", "message"),
    [
        ((1, 1), "is to hold 1 unlabelled slices, but there are none"),
        ((0, 0), "a batch holds no slices: give labelled or unlabelled ones"),
        ((-1, 1), "cannot hold -1 labelled slices"),
        ((2, -2), "cannot hold -2 unlabelled slices"),
    ],
)
@pytest.mark.parametrize("missing", [None, numbered(1).take([])])
def test_batches_that_cannot_be_made(
    per_batch: tuple[int, int], message: str, missing: Slices | None
) -> None:
    with pytest.raises(ValueError, match=message):
        two_streams(numbered(3), missing, per_batch)


def test_no_labelled_slices() -> None:
    with pytest.raises(ValueError, match="is to hold 2 labelled slices, but there are none"):
        two_streams(None, numbered(3), (2, 1))


# --- Augmentation ---------------------------------------------------------------------------------


def test_without_augmentation_slices_come_as_they_are() -> None:
    whole = lopsided()
    batch = next(two_streams(whole, None, (1, 0), augment=False))
    assert torch.equal(batch.x, whole.images)
    assert torch.equal(labels_of(batch), whole.labels())


def test_picture_and_mask_move_together() -> None:
    batches = two_streams(lopsided(), None, (20, 0))
    for batch in islice(batches, 10):
        for x, labels in zip(batch.x, labels_of(batch).numpy(), strict=True):
            # Away from borders between labels, where the picture is interpolated.
            inside = torch.from_numpy(maximum_filter(labels, 5) == minimum_filter(labels, 5))
            assert inside.float().mean() > 0.4
            assert (x - torch.from_numpy(labels) / 3)[inside].abs().max() < 1e-5


def test_turns_flips_and_crops_all_happen_and_each_exactly() -> None:
    whole = lopsided()
    picture = whole.images[0]
    poses = {
        (turns, flip): torch.rot90(picture.flip(0) if flip else picture, turns)
        for turns in range(4)
        for flip in (False, True)
    }
    seen: Counter[tuple[int, bool] | str] = Counter()
    n = 400
    for x in next(two_streams(whole, None, (n, 0))).x:
        seen[next((pose for pose, y in poses.items() if torch.equal(x, y)), "cropped")] += 1
    assert set(seen) == {"cropped", *poses}
    assert seen["cropped"] / n == pytest.approx(0.5, abs=0.1)
    flipped = sum(count for pose, count in seen.items() if pose != "cropped" and pose[1])
    assert flipped / (n - seen["cropped"]) == pytest.approx(0.5, abs=0.15)
    unturned = sum(count for pose, count in seen.items() if pose != "cropped" and pose[0] == 0)
    assert unturned / (n - seen["cropped"]) == pytest.approx(5 / 8, abs=0.15)


def test_a_crop_shows_four_fifths_of_the_slice() -> None:
    ramp = torch.linspace(0, 1, SIZE).expand(SIZE, SIZE)[None]
    whole = Slices(ramp, torch.ones(1, SIZE, SIZE).byte(), ["a.png"], ["p"])
    spans = [float(x.max() - x.min()) for x in next(two_streams(whole, None, (60, 0))).x]
    expected = (int(0.8 * SIZE) - 1) / (SIZE - 1)
    assert all(s == pytest.approx(1) or s == pytest.approx(expected, abs=0.01) for s in spans)


def test_augmented_slices_stay_in_range_and_the_originals_unchanged() -> None:
    noise = Slices(
        torch.rand(4, SIZE, SIZE).round(),  # black and white: any overshoot would show
        (1 << torch.randint(4, (4, SIZE, SIZE))).byte(),
        [f"{i}.png" for i in range(4)],
        ["p"] * 4,
    )
    images, sets = noise.images.clone(), noise.label_sets.clone()
    for batch in islice(two_streams(noise, noise, (8, 8)), 10):
        assert ((batch.x >= 0) & (batch.x <= 1)).all()
        labels_of(Batch(batch.x[:8], batch.allowed[:8]))
        assert batch.allowed[8:].all()
    assert torch.equal(noise.images, images)
    assert torch.equal(noise.label_sets, sets)
