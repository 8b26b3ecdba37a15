"""Augmentation: image and mask move together; strong views move no pixel."""

from collections import Counter

import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pyro_stitchnet.data.datasets.augment import (
    affine_augmentation,
    paste_lesions,
    strong_augmentation,
    weak_augmentation,
)

SIZE = 64


def lopsided() -> Tensor:
    """Return labels (H, W) that every turn and flip changes."""
    labels = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    labels[4:40, 4:20] = 1
    labels[8:20, 24:60] = 2
    labels[44:60, 40:52] = 3
    return labels


def weak_views(
    n: int, image: Tensor, mask: Tensor, transform: v2.Transform | None = None
) -> list[tuple[Tensor, Tensor]]:
    transform = transform or weak_augmentation(SIZE)
    pairs = [transform(tv_tensors.Image(image[None]), tv_tensors.Mask(mask)) for _ in range(n)]
    return [(x.as_subclass(Tensor)[0], y.as_subclass(Tensor)) for x, y in pairs]


# --- Weak -----------------------------------------------------------------------------------------


def test_image_and_mask_move_together() -> None:
    labels = lopsided()
    for x, moved in weak_views(200, labels / 3, labels):
        # Away from borders between labels, where the image is interpolated.
        flat = maximum_filter(moved.numpy(), 5) == minimum_filter(moved.numpy(), 5)
        inside = torch.from_numpy(flat)
        assert inside.float().mean() > 0.4
        assert (x - moved / 3)[inside].abs().max() < 1e-5


def test_affine_views_move_together_and_are_filled_with_background() -> None:
    labels, sets = lopsided(), 1 << lopsided()
    turned = 0
    for x, moved in weak_views(100, 0.2 + labels / 5, sets, affine_augmentation()):
        assert moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) <= {1, 2, 4, 8}
        flat = maximum_filter(moved.numpy(), 5) == minimum_filter(moved.numpy(), 5)
        for bit in (2, 4, 8):  # one grey value each, changed by gamma
            inside = x[torch.from_numpy(flat) & (moved == bit)]
            assert not len(inside) or ((inside - inside.median()).abs() < 0.01).float().mean() > 0.9
        turned += bool((x == 0).any())
        assert (moved[x == 0] == 1).all()
    assert turned > 50


def test_masks_keep_their_values() -> None:
    sets = (1 << torch.randint(4, (SIZE, SIZE))).byte()
    for _, moved in weak_views(50, torch.rand(SIZE, SIZE), sets):
        assert moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) <= {1, 2, 4, 8}


def test_turns_flips_and_crops_have_their_probabilities() -> None:
    image = lopsided() / 3
    poses = {
        (turns, flip): torch.rot90(image.flip(0) if flip else image, turns)
        for turns in range(4)
        for flip in (False, True)
    }
    seen: Counter[tuple[int, bool] | str] = Counter()
    n = 400
    for x, _ in weak_views(n, image, lopsided()):
        seen[next((pose for pose, y in poses.items() if torch.equal(x, y)), "cropped")] += 1
    assert set(seen) == {"cropped", *poses}
    assert seen["cropped"] / n == pytest.approx(0.5, abs=0.1)
    flipped = sum(count for pose, count in seen.items() if pose != "cropped" and pose[1])
    assert flipped / (n - seen["cropped"]) == pytest.approx(0.5, abs=0.15)
    unturned = sum(count for pose, count in seen.items() if pose != "cropped" and pose[0] == 0)
    assert unturned / (n - seen["cropped"]) == pytest.approx(5 / 8, abs=0.15)


def test_a_crop_shows_four_fifths_of_the_slice() -> None:
    ramp = torch.linspace(0, 1, SIZE).expand(SIZE, SIZE)
    spans = [float(x.max() - x.min()) for x, _ in weak_views(60, ramp, lopsided())]
    expected = (int(0.8 * SIZE) - 1) / (SIZE - 1)
    assert all(s == pytest.approx(1) or s == pytest.approx(expected, abs=0.01) for s in spans)


# --- Strong ---------------------------------------------------------------------------------------


def test_a_strong_view_moves_no_pixel() -> None:
    image = torch.rand(1, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    views = [strong_augmentation()(image) for _ in range(50)]
    for view in views:
        assert view.shape == image.shape
        assert view.min() >= 0
        assert view.max() <= 1
        kept = [
            float(torch.corrcoef(torch.stack([image.flatten(), v.flatten()]))[0, 1])
            for v in (view, view.flip(1), view.flip(2))
        ]
        assert kept[0] > 0.7
        assert kept[0] > max(kept[1:]) + 0.3
    assert sum(not torch.equal(view, image) for view in views) > 30


def test_without_jitter_grey_values_are_only_blurred() -> None:
    flat = torch.full((1, SIZE, SIZE), 0.3)
    assert all(torch.allclose(strong_augmentation(0)(flat), flat) for _ in range(20))
    jittered = [float(strong_augmentation(0.5)(flat).mean()) for _ in range(50)]
    assert min(jittered) < 0.25
    assert max(jittered) > 0.35


@pytest.mark.parametrize("jitter", [-0.1, 1.1])
def test_jitter_out_of_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter must be between 0 and 1"):
        strong_augmentation(jitter)


def test_lesions_are_pasted_on_lung_alone() -> None:
    """Grey values and labels, of one lesion or of infection of either kind."""
    image, other = torch.full((1, 2, 4), 0.1), torch.full((1, 2, 4), 0.9)
    sets = torch.tensor([[1, 2, 2, 2], [1, 2, 2, 2]], dtype=torch.uint8)  # background, then lung
    other_sets = torch.tensor([[4, 4, 8, 2], [12, 12, 15, 1]], dtype=torch.uint8)
    pasted, pasted_sets = paste_lesions(image, sets, other, other_sets)
    assert pasted_sets.tolist() == [[1, 4, 8, 2], [1, 12, 2, 2]]
    assert torch.equal(pasted[0] > 0.5, torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]]).bool())
