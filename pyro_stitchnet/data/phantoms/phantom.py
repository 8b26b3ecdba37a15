"""Phantom chest CT: seeded slices with lesions, labels, and the same slice without the lesions.

For tests and teaching. A patient is drawn once (proportions, vessels, lesions, scanner) and can be
cut at any height, in five steps: anatomy, lesions, densities in Hounsfield units (HU), scanner,
lung window. Nothing comes from a real scan; sizes and densities resemble published ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms._anatomy import Array, Chest, coverage, paint, smoothstep
from pyro_stitchnet.data.phantoms._vessels import Tubes, grow_tubes
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY

__all__ = ["PHANTOM_WINDOW", "Phantom", "phantom_patient", "phantom_slices", "phantoms"]

PHANTOM_WINDOW = (-1025.0, 225.0)
"""HU that become 0 and 1: air is black, soft tissue about 0.85, healthy lung 0.1 to 0.25."""

LESION_FREE = 0.15
"""Share of patients without lesions."""

_THICKNESS = 0.008
"""Thickness of a slice as a share of the lungs' height: about 2 mm."""

_CENTRAL = 0.021
"""Vessels and airways with a larger radius belong to the hilum, not to the lung."""

_TWIG = 0.009
"""Airways with a smaller radius are visible only inside consolidation."""


@dataclass(frozen=True)
class Phantom:
    """One slice of a phantom patient.

    Attributes:
        image: the slice in the lung window, in [0, 1], float32 (size, size).
        labels: the tissue of each pixel, uint8 (size, size), see `pyro_stitchnet.labels`.
        healthy: the same slice (anatomy, noise, scanner) without lesions, in [0, 1], float32
            (size, size); equal to ``image`` wherever no lesion has influence.
        patient: name of the patient, for splits by patient.
        height: of the slice, between 0 at the lung bases and 1 at the apices.
    """

    image: np.ndarray
    labels: np.ndarray
    healthy: np.ndarray
    patient: str
    height: float


class _Texture:
    """A random field of unit variance over the slice that changes smoothly with z.

    A sum of waves of about ``cycles`` periods per slice, whose phases shift with z.
    """

    _MODES = 31  # the finest waves of a 64 x 64 slice

    def __init__(self, rng: np.random.Generator, cycles: float, spread: float) -> None:
        m = self._MODES
        k = np.hypot(np.r_[0 : m + 1, -m:0][:, None], np.arange(m + 1))
        amplitude = np.exp(-0.5 * ((k - cycles) / spread) ** 2)
        amplitude[0, 0] = 0.0
        waves = rng.normal(size=(2, *k.shape))
        self._waves = amplitude * (waves[0] + 1j * waves[1])
        self._waves /= np.sqrt(2.0 * (np.abs(self._waves) ** 2).sum())
        self._drift = 4.0 * k * rng.normal(size=k.shape)

    def at(self, z: float, size: int) -> Array:
        m = self._MODES
        spectrum = np.zeros((size, size // 2 + 1), np.complex64)
        waves = self._waves * np.exp(1j * self._drift * z)
        spectrum[: m + 1, : m + 1], spectrum[-m:, : m + 1] = waves[: m + 1], waves[m + 1 :]
        return np.fft.irfft2(spectrum, (size, size), norm="forward").astype(np.float32)


@dataclass(frozen=True)
class _Blobs:
    """Ellipsoids around which a lesion grows: the field is highest at their centres."""

    centres: Array  # (k, 3)
    radii: Array  # (k, 3)
    pleural: float  # how strongly the lesion keeps to the chest wall

    def field(self, x: Array, y: Array, z: float | Array, depth: Array) -> Array:
        far: Array | float = np.inf
        for centre, radius in zip(self.centres, self.radii, strict=True):
            dx, dy, dz = (x - centre[0]) / radius[0], (y - centre[1]) / radius[1], z - centre[2]
            far = np.minimum(far, dx * dx + dy * dy + (dz / radius[2]) ** 2)
        return -np.sqrt(far) - self.pleural * np.clip(depth, 0.0, 0.3)


class _Lesions:
    """One patient's lesions: places, densities and textures of GGO and consolidation."""

    def __init__(self, chest: Chest, points: Array, rng: np.random.Generator) -> None:
        x, y, z = points.T
        depth = chest.below_wall(x, y, z)
        share = np.exp(rng.uniform(np.log(0.035), np.log(0.40)))
        dense = np.clip(rng.beta(1.2, 2.8), 0.0, 0.85)  # consolidation's share of the lesions
        k = rng.integers(3, 7) + int(12 * share * rng.random())
        # Centres prefer the pleura, the back and the bases, as in COVID-19.
        pull = rng.uniform(0.0, 12.0) * depth - rng.uniform(0.0, 3.0) * y
        pull += rng.uniform(0.0, 3.0) * z
        weight = np.exp(-pull)
        centres = points[rng.choice(len(points), k, p=weight / weight.sum())]
        radii = (rng.uniform(0.6, 1.4, (k, 3)) * (0.2, 0.2, 0.13)).astype(np.float32)
        self.ggo = _Blobs(centres, radii, rng.uniform(0.0, 12.0))
        # Consolidation is the core of some patches, shifted towards the back.
        core = slice(0, max(1, round(k * rng.uniform(0.3, 0.8))))
        sunk = centres[core] + rng.normal(0.0, 0.04, centres[core].shape) + (0.0, 0.04, 0.0)
        sunk = sunk.astype(np.float32)
        self.dense = _Blobs(sunk, radii[core] * 0.8, rng.uniform(2.0, 9.0))
        field = self.dense.field(x, y, z, depth)
        self.dense_level = float(np.quantile(field, 1.0 - share * dense))
        is_dense = field > self.dense_level
        field = np.where(is_dense, np.inf, self.ggo.field(x, y, z, depth))
        self.ggo_level = float(np.quantile(field, 1.0 - share))
        self.soft, self.ragged = rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.35)
        self.ggo_hu, self.dense_hu = rng.uniform(-620.0, -440.0), rng.uniform(-240.0, 10.0)
        self.paving = max(0.0, rng.normal(0.0, 90.0))
        self.shape = _Texture(rng, 6.0, 4.0)
        self.grain = _Texture(rng, 16.0, 7.0)

    def covers(self, x: Array, y: Array, z: float, depth: Array) -> tuple[Array, Array]:
        """Return the coverage of each pixel by GGO and consolidation, in [0, 1]; 0 far away."""
        rough = self.ragged * self.shape.at(z, len(x))
        ggo = self.ggo.field(x, y, z, depth) - self.ggo_level + rough
        dense = self.dense.field(x, y, z, depth) - self.dense_level + rough
        return smoothstep(ggo / self.soft + 0.5), smoothstep(dense / 0.14 + 0.5)

    def fill(self, lung: Array, ggo: Array, dense: Array, z: float) -> Array:
        """Return the HU of lung tissue with lesions."""
        grain = self.grain.at(z, len(lung))
        septa = np.exp(-((grain / 0.35) ** 2)) - 0.3  # a net of lines, as in "crazy paving"
        hazy = self.ggo_hu + 45.0 * grain + self.paving * septa
        hu = lung + ggo * np.maximum(hazy - lung, 0.0)
        paint(hu, dense, self.dense_hu + 25.0 * grain)
        return hu


class _Patient:
    def __init__(self, patient: int, seed: int) -> None:
        self.key = [seed, patient]
        rng = np.random.default_rng(self.key)
        self.chest = Chest.random(rng)
        points = rng.uniform((-0.95, -0.8, 0.0), (0.95, 0.8, 1.0), (5200, 3)).astype(np.float32)
        points = points[self.chest.lungs(*points.T) < 0.0]
        vessels, airways = grow_tubes(points[:1700], rng.uniform(0.0044, 0.0066), rng)
        central = vessels.radii > _CENTRAL
        self.central, self.vessels = vessels.where(central), vessels.where(~central)
        twig = airways.radii < _TWIG
        self.twigs, self.airways = airways.where(twig), airways.where(~twig)
        self.margin, self.stretch = rng.uniform(1.0, 1.1), rng.beta(1.5, 2.0)
        self.lung_hu = rng.uniform(-870.0, -765.0)
        self.gravity = rng.uniform(0.0, 70.0)
        self.cloud, self.lobules = _Texture(rng, 2.0, 2.0), _Texture(rng, 14.0, 8.0)
        # The scanner: noise in HU, blur and grain in pixels of a 128 x 128 slice, gain and offset.
        self.noise = np.exp(rng.uniform(np.log(8.0), np.log(40.0)))
        self.blur, self.grain = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8)
        self.sharpen = np.clip(rng.normal(0.2, 0.3), 0.0, 0.6)
        self.gain, self.offset = rng.normal(1.0, 0.015), rng.normal(0.0, 12.0)
        self.lesions = None if rng.random() < LESION_FREE else _Lesions(self.chest, points, rng)

    def cut(self, z: float, size: int) -> Phantom:
        """Return the slice at height z."""
        field = fx, fy = self._field(z)
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
        x, y = np.meshgrid(fx * axis, fy * axis)
        pixel = (fx + fy) / size
        rest, outline, depth = self.chest.scan(x, y, z, pixel)
        lung = coverage(outline, 1.5 * pixel)
        tissue = self.lung_hu + self.gravity * y
        tissue += 14.0 * self.cloud.at(z, size) + 16.0 * self.lobules.at(z, size)

        vessels = self.vessels.near(z, _THICKNESS).draw(size, field)
        vessels *= coverage(outline + 0.01, 0.02)
        central = self.central.near(z, _THICKNESS).draw(size, field)
        airways = self.airways.near(z, _THICKNESS)
        trunk = airways.where(airways.radii > _CENTRAL).draw(size, field)
        walls = Tubes(airways.centres, airways.radii * 1.15 + 0.006).draw(size, field) * lung
        lumen = airways.draw(size, field)
        twigs = self.twigs.near(z, 2 * _THICKNESS).draw(size, field)

        def compose(tissue: Array, dense: float | Array = 0.0) -> Array:
            hu = rest.copy()
            paint(hu, lung, tissue)
            # Consolidated lung is as dense as vessels and walls: only air is visible in it.
            paint(hu, 0.35 * walls * (1.0 - dense), 0.0)
            paint(hu, np.maximum(vessels * (1.0 - dense), central), 45.0)
            paint(hu, np.maximum(lumen, twigs * dense * lung), -985.0)
            return hu

        labels = np.where(lung > 0.5, HEALTHY, BACKGROUND).astype(np.uint8)
        hu = healthy = compose(tissue)
        if self.lesions is not None:
            ggo, dense = self.lesions.covers(x, y, z, depth)
            hu = compose(self.lesions.fill(tissue, ggo, dense, z), dense)
            labels[(labels == HEALTHY) & (ggo > 0.5)] = GGO
            labels[(labels != BACKGROUND) & (dense > 0.5)] = CONSOLIDATION
        labels[np.maximum(central, trunk) > 0.5] = BACKGROUND

        scans = self._scan(np.stack([hu, healthy]), z)
        return Phantom(scans[0], labels, scans[1], f"phantom_{self.key[1]:04d}", z)

    def _field(self, z: float) -> tuple[float, float]:
        """Return half the width and depth of the slice: close to the lungs, nearly square."""
        shrink = 0.4 + 0.6 * float(self.chest.extent(z)[0]) / self.chest.width
        rx, ry = (self.margin * shrink * r + 0.02 for r in (self.chest.width, self.chest.depth))
        return rx, ry + self.stretch * (rx - ry)

    def _scan(self, hu: Array, z: float) -> Array:
        """Return the scanner's image of HU (n, size, size); all n get the same noise."""
        size = hu.shape[-1]
        blur, grain = self.blur * size / 128, self.grain * size / 128
        rng = np.random.default_rng([*self.key, round(1e6 * z)])
        noise = gaussian_filter(rng.standard_normal((size, size), np.float32), grain, mode="wrap")
        shown = gaussian_filter(hu, (0, blur, blur), mode="nearest")
        if self.sharpen:
            wide = gaussian_filter(shown, (0, 2 * blur, 2 * blur), mode="nearest")
            shown += self.sharpen * (shown - wide)
        shown += noise * (self.noise / noise.std())
        shown = shown * self.gain + self.offset
        low, high = PHANTOM_WINDOW
        return np.clip((shown - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _check(patients: Sequence[int], slices: int, size: int, seed: int) -> None:
    if size < 64 or size % 32:
        raise ValueError(f"size must be a multiple of 32, at least 64, not {size}: try 128")
    if not patients:
        raise ValueError("patients must be at least 1, not 0: try 10")
    if slices < 1:
        raise ValueError(f"slices must be at least 1 per patient, not {slices}")
    if seed < 0 or any(patient < 0 for patient in patients):
        raise ValueError("seed and patient numbers must be 0 or more")


def phantom_patient(patient: int, slices: int, *, size: int = 128, seed: int = 0) -> list[Phantom]:
    """Cut one phantom patient into slices, from the lung bases up.

    Slice i of n lies at height (i + 1/2) / n. A slice depends only on the seed, the patient and its
    height.

    Args:
        patient: number of the patient, 0 or more.
        slices: how many slices, at least 1.
        size: height and width in pixels: a multiple of 32, at least 64.
        seed: of the population.

    Raises:
        ValueError: an argument is out of range.
    """
    _check([patient], slices, size, seed)
    drawn = _Patient(patient, seed)
    return [drawn.cut((i + 0.5) / slices, size) for i in range(slices)]


def phantoms(
    patients: int | Sequence[int], slices: int, *, size: int = 128, seed: int = 0
) -> Iterator[Phantom]:
    """Cut a population of phantom patients into slices, patient by patient.

    Args:
        patients: how many patients (numbered from 0), or their numbers.
        slices: how many slices of each, at least 1.
        size: height and width in pixels: a multiple of 32, at least 64.
        seed: of the population.

    Raises:
        ValueError: an argument is out of range; raised at the call, not at the first slice.
    """
    numbers = range(patients) if isinstance(patients, int) else tuple(patients)
    _check(numbers, slices, size, seed)
    return (
        phantom for n in numbers for phantom in phantom_patient(n, slices, size=size, seed=seed)
    )


def phantom_slices(
    patients: int | Sequence[int], slices: int, *, size: int = 128, seed: int = 0
) -> Slices:
    """Return a population as labelled :class:`~pyro_stitchnet.data.datasets.slices.Slices`.

    Arguments and errors are those of :func:`phantoms`.
    """
    cut = list(phantoms(patients, slices, size=size, seed=seed))
    return Slices(
        torch.from_numpy(np.stack([phantom.image for phantom in cut])),
        torch.from_numpy(np.stack([np.uint8(1) << phantom.labels for phantom in cut])),
        [f"{phantom.patient}_{i % slices:03d}.png" for i, phantom in enumerate(cut)],
        [phantom.patient for phantom in cut],
    )
