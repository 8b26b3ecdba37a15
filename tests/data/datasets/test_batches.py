"""Batches: the order and labels of the streams, resuming, and sharing among processes."""

from collections import Counter
from itertools import islice

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices

SIZE = 64


def numbered(n: int, first: int = 0) -> Slices:
    """Return labelled slices that can be identified: all pixels of slice i are i / 255."""
    numbers = torch.arange(first, first + n)
    return Slices(
        (numbers / 255).reshape(n, 1, 1).expand(n, SIZE, SIZE).clone(),
        (1 << numbers % 4).byte().reshape(n, 1, 1).expand(n, SIZE, SIZE).clone(),
        [f"{i}.png" for i in numbers],
        [f"p{i}" for i in numbers],
    )


def lopsided() -> Slices:
    """Return a slice with grey = label / 3 that every turn and flip changes."""
    labels = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    labels[4:40, 4:20] = 1
    labels[8:20, 24:60] = 2
    labels[44:60, 40:52] = 3
    return Slices(labels[None] / 3, (1 << labels[None]).byte(), ["a.png"], ["p"])


def numbers(batch: Batch) -> list[int]:
    return [round(float(x) * 255) for x in batch.x[:, 0, 0]]


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.x, batch.allowed, batch.strong


def same(one: Batch, other: Batch) -> bool:
    same_names = list(one.names) == list(other.names)
    return same_names and all(map(torch.equal, tensors(one), tensors(other)))


def labels_of(batch: Batch) -> Tensor:
    assert (batch.allowed.sum(-1) == 1).all(), "augmentation made a new set of labels"
    return batch.allowed.int().argmax(-1)


# --- The streams ----------------------------------------------------------------------------------


def test_a_batch_holds_the_labelled_slices_first() -> None:
    batches = TwoStreams(numbered(5), numbered(7, first=100), (2, 3), augment=False).batches()
    for batch in islice(batches, 20):
        assert batch.x.shape == (5, SIZE, SIZE)
        assert batch.allowed.shape == (5, SIZE, SIZE, 4)
        assert (batch.x.dtype, batch.allowed.dtype) == (torch.float32, torch.bool)
        assert [number >= 100 for number in numbers(batch)] == [False] * 2 + [True] * 3


def test_partially_labelled_slices_alternate_with_labelled_ones() -> None:
    """Every second slice of the labelled stream is fully labelled, however few there are."""
    few, many = numbered(3), numbered(30, first=100)
    slices = Slices(
        torch.cat([few.images, many.images]),
        torch.cat([few.label_sets, torch.full_like(many.label_sets, 0b1100)]),
        [*few.names, *many.names],
        [*few.patients, *many.patients],
    )
    drawn = [
        number
        for batch in islice(TwoStreams(slices, None, (2, 0), augment=False).batches(), 30)
        for number in numbers(batch)
    ]
    assert [number >= 100 for number in drawn] == [False, True] * 30
    assert Counter(drawn[::2]) == {0: 10, 1: 10, 2: 10}
    assert set(Counter(drawn[1::2]).values()) == {1}


def test_labelled_slices_keep_their_labels_and_unlabelled_lose_theirs() -> None:
    batches = TwoStreams(numbered(5), numbered(7, first=100), (2, 3)).batches()
    for batch in islice(batches, 20):
        for i, number in enumerate(numbers(batch)[:2]):
            assert (batch.allowed[i] == (torch.arange(4) == number % 4)).all()
        assert batch.allowed[2:].all()


@pytest.mark.parametrize("per_batch", [1, 2, 3, 4, 7, 10])
def test_each_slice_comes_once_a_round(per_batch: int) -> None:
    n, rounds = 7, 10
    batches = TwoStreams(numbered(n), None, (per_batch, 0), augment=False).batches()
    seen: list[int] = []
    while len(seen) < n * rounds:
        seen += numbers(next(batches))
    orders = [tuple(seen[i * n : (i + 1) * n]) for i in range(rounds)]
    assert all(Counter(order) == Counter(range(n)) for order in orders)
    assert len(set(orders)) > 1, "every round has the same order"


def test_a_small_stream_starts_again_before_a_large_one_ends() -> None:
    batches = TwoStreams(numbered(2), numbered(50, first=100), (1, 1), augment=False).batches()
    pairs = [numbers(batch) for batch in islice(batches, 50)]
    assert Counter(a for a, _ in pairs) == {0: 25, 1: 25}
    assert Counter(b for _, b in pairs) == dict.fromkeys(range(100, 150), 1)


@pytest.mark.parametrize("per_batch", [(2, 0), (0, 2)])
def test_one_stream_is_enough(per_batch: tuple[int, int]) -> None:
    labelled, unlabelled = (numbered(5) if n else None for n in per_batch)
    assert next(TwoStreams(labelled, unlabelled, per_batch).batches()).x.shape == (2, SIZE, SIZE)


def test_one_seed_gives_one_sequence() -> None:
    def batches(seed: int) -> list[Batch]:
        return list(islice(TwoStreams(numbered(9), numbered(9), (2, 2), seed=seed).batches(), 10))

    one, again, other = batches(1), batches(1), batches(2)
    assert all(same(a, b) for a, b in zip(one, again, strict=True))
    assert not all(same(a, b) for a, b in zip(one, other, strict=True))


def test_the_global_generator_is_neither_read_nor_changed() -> None:
    def drawn(seed: int) -> tuple[list[Batch], Tensor]:
        torch.manual_seed(seed)
        stream = TwoStreams(numbered(9), lopsided(), (2, 1), strong_views=1).batches()
        return list(islice(stream, 5)), torch.rand(1)

    (one, after), (again, _) = drawn(1), drawn(2)
    assert all(same(a, b) for a, b in zip(one, again, strict=True))
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))


def test_the_streams_are_shuffled_independently() -> None:
    batches = islice(TwoStreams(numbered(9), numbered(9), (1, 1), augment=False).batches(), 9)
    pairs = [numbers(batch) for batch in batches]
    assert any(a != b for a, b in pairs)


# --- A batch is a function of its number ----------------------------------------------------------


@pytest.fixture
def streams() -> TwoStreams:
    return TwoStreams(numbered(5), lopsided(), (2, 1), seed=3, strong_views=2)


def test_batches_resume_at_a_number(streams: TwoStreams) -> None:
    whole = list(islice(streams.batches(), 12))
    for first in (0, 1, 7):
        rest = islice(streams.batches(first=first), 12 - first)
        assert all(same(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_worker_processes_make_the_same_batches(streams: TwoStreams) -> None:
    alone, shared = streams.batches(first=2), streams.batches(first=2, workers=2)
    assert all(same(next(alone), next(shared)) for _ in range(7))


def test_training_processes_share_the_batches_of_one(streams: TwoStreams) -> None:
    both = TwoStreams(numbered(5), lopsided(), (4, 2), seed=3, strong_views=2)
    parts = [
        TwoStreams(numbered(5), lopsided(), (2, 1), seed=3, strong_views=2, rank=rank, processes=2)
        for rank in range(2)
    ]
    for number in range(6):
        one, (first, second) = both[number], [part[number] for part in parts]
        assert [*both[number].names[::2]] == [*first.names]
        assert [*both[number].names[1::2]] == [*second.names]
        for whole, a, b, axis in zip(*map(tensors, (one, first, second)), (0, 0, 1), strict=True):
            assert torch.equal(whole, torch.stack([a, b], axis + 1).flatten(axis, axis + 1))


def test_a_batch_moves_to_a_device() -> None:
    batch = next(TwoStreams(numbered(2), None, (2, 0)).batches()).to("meta")
    assert batch.x.device.type == batch.allowed.device.type == "meta"


def test_strong_views_change_only_grey_values() -> None:
    batch = TwoStreams(lopsided(), None, (40, 0), strong_views=2)[0]
    assert batch.strong.shape == (2, 40, SIZE, SIZE)
    assert batch.strong.min() >= 0
    assert batch.strong.max() <= 1
    changed = (batch.strong != batch.x).flatten(2).any(-1)
    assert changed.float().mean() > 0.6
    assert (batch.strong[0] != batch.strong[1]).flatten(1).any(1).float().mean() > 0.6
    for view in batch.strong:  # no pixel moves
        for x, y in zip(batch.x, view, strict=True):
            assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] > 0.8


def test_without_strong_views_there_are_none() -> None:
    assert TwoStreams(numbered(2), None, (2, 0))[0].strong.shape == (0, 2, SIZE, SIZE)


# --- Errors, at the call --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_batch", "message"),
    [
        ((1, 1), "must hold 1 unlabelled slices, but there are none"),
        ((0, 0), "a batch holds no slices: give labelled or unlabelled ones"),
        ((-1, 1), "cannot hold -1 labelled slices"),
        ((2, -2), "cannot hold -2 unlabelled slices"),
    ],
)
@pytest.mark.parametrize("missing", [None, numbered(1).take([])])
def test_impossible_batches_are_refused(
    per_batch: tuple[int, int], message: str, missing: Slices | None
) -> None:
    with pytest.raises(ValueError, match=message):
        TwoStreams(numbered(3), missing, per_batch)


def test_missing_labelled_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="must hold 2 labelled slices, but there are none"):
        TwoStreams(None, numbered(3), (2, 1))


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank must be between 0 and 1, got {rank}"):
        TwoStreams(numbered(3), None, (2, 0), rank=rank, processes=2)


def test_a_negative_number_of_strong_views_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold -1 strong views"):
        TwoStreams(numbered(3), None, (2, 0), strong_views=-1)


# --- Augmentation ---------------------------------------------------------------------------------


def test_without_augmentation_slices_come_as_they_are() -> None:
    whole = lopsided()
    batch = TwoStreams(whole, None, (1, 0), augment=False)[0]
    assert torch.equal(batch.x, whole.images)
    assert torch.equal(labels_of(batch), whole.labels())


def test_image_and_labels_move_together() -> None:
    batch = TwoStreams(lopsided(), None, (40, 0))[0]
    assert len({tuple(x.flatten().tolist()) for x in batch.x}) > 10
    # Except at borders between labels, where a cropped image is interpolated.
    agree = ((batch.x - labels_of(batch) / 3).abs() < 1e-5).flatten(1).float().mean(1)
    assert agree.min() > 0.8


def test_augmented_slices_stay_in_range_and_the_originals_unchanged() -> None:
    noise = Slices(
        torch.rand(4, SIZE, SIZE).round(),  # black and white, so that overshoots are visible
        (1 << torch.randint(4, (4, SIZE, SIZE))).byte(),
        [f"{i}.png" for i in range(4)],
        ["p"] * 4,
    )
    images, sets = noise.images.clone(), noise.label_sets.clone()
    for batch in islice(TwoStreams(noise, noise, (8, 8)).batches(), 10):
        assert ((batch.x >= 0) & (batch.x <= 1)).all()
        labels_of(Batch(batch.x[:8], batch.allowed[:8]))
        assert batch.allowed[8:].all()
    assert torch.equal(noise.images, images)
    assert torch.equal(noise.label_sets, sets)


def test_lesions_are_pasted_among_labelled_slices_alone() -> None:
    """With the given probability, from the labelled stream, image and labels together."""
    lung = Slices(
        torch.full((1, SIZE, SIZE), 1 / 3), torch.full((1, SIZE, SIZE), 2).byte(), ["b"], ["b"]
    )
    one = lopsided()
    both = Slices(
        torch.cat([one.images, lung.images]),
        torch.cat([one.label_sets, lung.label_sets]),
        ["a", "b"],
        ["a", "b"],
    )
    counts = {}
    for paste in (0.0, 1.0):
        streams = TwoStreams(both, lung, (2, 2), augment=False, paste=paste)
        pasted = 0
        for batch in islice(streams.batches(), 20):
            labels = labels_of(Batch(batch.x[:2], batch.allowed[:2]))
            assert torch.allclose(batch.x[:2] * 3, labels.float(), atol=1e-5)
            assert (batch.x[2:] == 1 / 3).all()
            assert batch.allowed[2:].all()
            healthy = batch.names[:2].index("b")
            pasted += int((labels[healthy] >= 2).any())
        counts[paste] = pasted
    assert counts[0.0] == 0
    assert 3 < counts[1.0] < 17  # half of the others have a lesion
    with pytest.raises(ValueError, match="paste"):
        TwoStreams(one, None, (1, 0), paste=1.5)


def test_pasted_lesions_are_of_fully_labelled_slices() -> None:
    """Masks of infection do not thin them out."""
    one = lopsided()
    infection = torch.where(one.label_sets >= 4, 12, one.label_sets).byte()
    slices = Slices(
        one.images.repeat(9, 1, 1),
        torch.cat([one.label_sets, infection.repeat(8, 1, 1)]),
        [f"{i}" for i in range(9)],
        ["p"] * 9,
    )
    streams = TwoStreams(slices, None, (2, 0), augment=False, paste=1.0)
    for batch in islice(streams.batches(), 10):
        labels_of(batch)  # pasted on the same slice, they leave no set of two labels
