"""Properties of the phantoms, on which many other tests depend."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter

from pyro_stitchnet.data.phantoms.phantom import (
    LESION_FREE,
    Phantom,
    phantom_patient,
    phantom_slices,
    phantoms,
)
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY


@pytest.fixture(scope="module")
def population() -> list[Phantom]:
    return list(phantoms(40, 4, seed=11))


def pixels(population: list[Phantom], label: int) -> np.ndarray:
    return np.concatenate([p.image[p.labels == label] for p in population])


def assert_same(one: Phantom, other: Phantom) -> None:
    for field in fields(Phantom):
        a, b = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)


def lesions(phantom: Phantom) -> np.ndarray:
    return phantom.labels >= GGO


@pytest.mark.parametrize("size", [64, 128, 160])
def test_shapes_types_and_ranges(size: int) -> None:
    for phantom in phantoms(2, 3, size=size):
        for image in (phantom.image, phantom.healthy):
            assert image.shape == (size, size)
            assert image.dtype == np.float32
            assert image.min() >= 0.0
            assert image.max() <= 1.0
        assert phantom.labels.shape == (size, size)
        assert phantom.labels.dtype == np.uint8
        assert set(np.unique(phantom.labels)) <= {BACKGROUND, HEALTHY, GGO, CONSOLIDATION}


def test_slices_have_patients_and_rise_from_the_bases() -> None:
    cut = list(phantoms([7, 2], 4))
    assert [p.patient for p in cut] == ["phantom_0007"] * 4 + ["phantom_0002"] * 4
    assert [p.height for p in cut] == [0.125, 0.375, 0.625, 0.875] * 2


def test_a_patient_does_not_depend_on_the_others() -> None:
    alone = phantom_patient(3, 2, size=64, seed=5)
    among = [p for p in phantoms(5, 2, size=64, seed=5) if p.patient == "phantom_0003"]
    chosen = list(phantoms([9, 3], 2, size=64, seed=5))[2:]
    for a, b, c in zip(alone, among, chosen, strict=True):
        assert_same(a, b)
        assert_same(a, c)


def test_a_slice_does_not_depend_on_how_many_are_cut() -> None:
    assert_same(phantom_patient(1, 1, size=64)[0], phantom_patient(1, 5, size=64)[2])


def test_patients_and_seeds_differ() -> None:
    one = phantom_patient(0, 1, size=64)[0]
    for other in (phantom_patient(1, 1, size=64)[0], phantom_patient(0, 1, size=64, seed=1)[0]):
        assert np.abs(one.image - other.image).mean() > 0.02


def test_a_larger_slice_shows_the_same_patient() -> None:
    for small, large in zip(
        phantoms(6, 2, size=64, seed=3), phantoms(6, 2, size=128, seed=3), strict=True
    ):
        assert (small.labels == large.labels[::2, ::2]).mean() > 0.93


def test_neighbouring_slices_agree_better_than_distant_ones() -> None:
    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        return 2 * (a & b).sum() / max(1, a.sum() + b.sum())

    near, far = [], []
    for patient in range(6):
        cut = phantom_patient(patient, 48, size=64, seed=2)[12:36]
        lung = [p.labels != BACKGROUND for p in cut]
        disease = [lesions(p) for p in cut]
        assert min(overlap(a, b) for a, b in pairwise(lung)) > 0.93
        if max(d.sum() for d in disease) > 40:
            near += [overlap(a, b) for a, b in pairwise(disease)]
            far += [overlap(a, b) for a, b in zip(disease, disease[12:], strict=False)]
    assert np.median(near) > 0.8
    assert np.median(near) > np.median(far) + 0.2


def test_intensities_rise_from_healthy_to_ggo_to_consolidation(population: list[Phantom]) -> None:
    healthy, ggo, dense, rest = (
        pixels(population, k) for k in (HEALTHY, GGO, CONSOLIDATION, BACKGROUND)
    )
    assert 0.12 < np.median(healthy) < 0.25
    assert 0.3 < np.median(ggo) < 0.5
    assert 0.6 < np.median(dense) < 0.9
    assert np.median(rest) > 0.75
    assert healthy.mean() + 0.1 < ggo.mean() < dense.mean() - 0.15
    for phantom in population:
        means = [phantom.image[phantom.labels == k] for k in (HEALTHY, GGO, CONSOLIDATION)]
        seen = [values.mean() for values in means if values.size > 80]
        assert seen == sorted(seen), (phantom.patient, phantom.height)


def test_ggo_keeps_the_vessels_and_consolidation_hides_them(population: list[Phantom]) -> None:
    def kept(label: int) -> float:
        """Return the share of a vessel's contrast in ``healthy`` that ``image`` keeps."""
        left = []
        for phantom in population:
            inside = phantom.labels == label
            detail = [a - gaussian_filter(a, 3.0) for a in (phantom.image, phantom.healthy)]
            vessel = inside & (detail[1] > 0.1)
            # The edge of the lung is no vessel.
            vessel &= ~binary_dilation(phantom.labels == BACKGROUND, iterations=4)
            if vessel.sum() > 5:
                plain = inside & (np.abs(detail[1]) < 0.05)
                contrast = [d[vessel].mean() - d[plain].mean() for d in detail]
                left.append(contrast[0] / contrast[1])
        assert len(left) > 10
        return float(np.median(left))

    def correlation(label: int) -> float:
        image, healthy = (
            np.concatenate([getattr(p, name)[p.labels == label] for p in population])
            for name in ("image", "healthy")
        )
        return float(np.corrcoef(image, healthy)[0, 1])

    assert kept(GGO) > 0.5
    assert abs(kept(CONSOLIDATION)) < 0.2
    assert correlation(GGO) > 0.4
    assert abs(correlation(CONSOLIDATION)) < 0.06


def test_consolidation_holds_air_bronchograms(population: list[Phantom]) -> None:
    air = np.concatenate(
        [
            (gaussian_filter(p.image, 3.0) - p.image)[p.labels == CONSOLIDATION]
            for p in population
            if (p.labels == CONSOLIDATION).sum() > 200
        ]
    )
    assert 0.005 < (air > 0.15).mean() < 0.2


def test_healthy_differs_only_where_a_lesion_has_influence(population: list[Phantom]) -> None:
    strong_all, strong_outside = 0, 0
    for phantom in (p for p in population if lesions(p).any()):
        difference = phantom.image - phantom.healthy
        changed, inside = difference != 0, lesions(phantom)
        assert changed[inside].mean() > 0.97
        assert difference[inside].mean() > 0.04
        # Blur spreads a change by twelve pixels at most; beyond, all bits are equal, except at the
        # bases, where slivers of lung are too thin to be labelled as lung.
        if phantom.height > 0.2:
            assert not changed[~maximum_filter(phantom.labels != BACKGROUND, 27)].any()
        seen = maximum_filter(np.abs(difference) > 0.01, 27)
        assert (changed & ~seen).mean() < 0.01
        strong = difference > 0.15
        strong_all += strong.sum()
        strong_outside += (strong & ~binary_dilation(inside, iterations=2)).sum()
    assert strong_outside < 0.02 * strong_all


def test_a_lesion_free_patient_is_healthy_at_every_height(population: list[Phantom]) -> None:
    by_patient: dict[str, list[Phantom]] = {}
    for phantom in population:
        by_patient.setdefault(phantom.patient, []).append(phantom)
    free = [cut for cut in by_patient.values() if not any(lesions(p).any() for p in cut)]
    assert free
    for cut in free:
        for phantom in cut:
            np.testing.assert_array_equal(phantom.image, phantom.healthy)


def test_population_shares() -> None:
    population = list(phantoms(100, 3, size=64, seed=4))
    count = np.array([np.bincount(p.labels.ravel(), minlength=4) for p in population])
    patients = count.reshape(100, 3, 4).sum(1)
    share = patients[:, GGO:].sum(1) / patients[:, HEALTHY:].sum(1)
    assert abs((share == 0).mean() - LESION_FREE) < 0.1
    ill = share[share > 0]
    assert np.quantile(ill, 0.05) > 0.01
    assert np.quantile(ill, 0.95) < 0.45
    assert 0.08 < np.median(ill) < 0.25
    assert 1.7 < count[:, GGO].sum() / count[:, CONSOLIDATION].sum() < 3.5
    # Any ten patients with two slices each have both lesions.
    for ten in count.reshape(10, 10, 3, 4)[:, :, :2]:
        assert (ten.sum((0, 1))[GGO:] > 20).all()


@pytest.mark.parametrize("size", [0, 32, 100, -64])
def test_a_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        phantom_patient(0, 1, size=size)


def test_arguments_out_of_range_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="slices must be at least 1"):
        phantoms(2, 0)
    with pytest.raises(ValueError, match="0 or more"):
        phantoms([1, -1], 2)
    with pytest.raises(ValueError, match="0 or more"):
        phantom_patient(0, 1, seed=-1)


def test_phantom_slices_are_the_same_population() -> None:
    whole, cut = (
        phantom_slices([7, 2], 3, size=64, seed=5),
        list(phantoms([7, 2], 3, size=64, seed=5)),
    )
    np.testing.assert_array_equal(whole.images.numpy(), np.stack([p.image for p in cut]))
    np.testing.assert_array_equal(whole.labels().numpy(), np.stack([p.labels for p in cut]))
    assert list(whole.patients) == [p.patient for p in cut]
    assert len(set(whole.names)) == len(cut)
    assert all(name.endswith(".png") for name in whole.names)  # as in `write_folder`
