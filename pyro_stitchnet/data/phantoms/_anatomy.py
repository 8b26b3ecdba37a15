"""The anatomy of a phantom chest without vessels and airways, as implicit functions.

Space is (x, y, z). ``x`` and ``y`` lie in the slice, in units of about 165 mm: x towards the right
of the image (the patient's left), y towards the back. ``z`` is the relative height in the chest,
0 at the lung bases and 1 at the apices. An outline is a function that is negative inside and grows
like a distance: a minimum is a union, a maximum an intersection, and `coverage` antialiases edges.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEIGHT", "Array", "Chest", "coverage", "paint", "smoothstep"]

Array = NDArray[np.floating]

AIR, FAT, MUSCLE, BLOOD, LIVER, MARROW, CORTEX = -1000.0, -95.0, 45.0, 50.0, 65.0, 150.0, 380.0
HEIGHT = 1.7
"""The height of the lungs in units of x and y."""

_LEVEL = (0.0, 0.2, 0.4, 0.6, 0.75, 0.88, 1.0)
_CAVITY_WIDTH = (0.96, 1.0, 1.0, 0.95, 0.86, 0.72, 0.5)
_CAVITY_DEPTH = (0.97, 1.0, 1.0, 0.97, 0.88, 0.74, 0.52)
_COLUMN_WIDTH = (0.10, 0.13, 0.18, 0.20, 0.18, 0.16, 0.15)


def coverage(outline: Array, pixel: float) -> Array:
    """Return the share of each pixel, in [0, 1], that lies inside an outline."""
    return np.clip(0.5 - outline / pixel, 0.0, 1.0)


def paint(hu: Array, cover: Array, value: float | Array) -> None:
    """Blend ``value`` into ``hu`` in place, with weight ``cover``."""
    hu += cover * (value - hu)


def smoothstep(t: Array) -> Array:
    """Return 0 below t = 0, 1 above t = 1, and a smooth rise between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _profile(z: float | Array, values: tuple[float, ...]) -> Array:
    # float32: a float64 scalar would widen every array it is combined with.
    return np.asarray(np.interp(z, _LEVEL, values), np.float32)


def _ellipse(x: Array, y: Array, rx: float | Array, ry: float | Array) -> Array:
    u, v = x / rx, y / ry
    return (np.sqrt(u * u + v * v) - 1.0) * np.minimum(rx, ry)


def _rounded(
    x: Array, y: Array, rx: float | Array, ry: float | Array, square: float = 1.0
) -> Array:
    """Return an outline from an ellipse, ``square`` 0, to a rounded box, ``square`` 1.

    The rounded box is u**4 + v**4 = 1.
    """
    u, v = (x / rx) ** 2, (y / ry) ** 2
    q = np.sqrt(np.sqrt(u * u + v * v + 2.0 * (1.0 - square) * u * v))
    return (q - 1.0) * np.minimum(rx, ry)


def _ellipsoid(x: Array, y: Array, z: float | Array, rx: float, ry: float, rz: float) -> Array:
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2) - 1.0) * min(rx, ry)


@dataclass(frozen=True)
class Chest:
    """One patient's proportions, in the units of the module."""

    width: float
    depth: float
    square: float
    fat: float
    muscle: float
    heart: float
    shift: float
    axis: float
    diaphragm: tuple[float, float]
    ribs: float
    tilt: float
    waves: Array

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Chest":
        """Draw a patient."""
        width = rng.uniform(0.86, 0.92)
        waves = rng.uniform(-1.0, 1.0, (6, 5)) * (5.0, 5.0, 4.0, np.pi, 0.025)
        return cls(
            width=width,
            depth=width * rng.uniform(0.62, 0.84),
            square=rng.uniform(0.15, 0.6),
            fat=rng.gamma(2.0, 0.025) + 0.02,
            muscle=rng.uniform(0.05, 0.09),
            heart=rng.uniform(0.84, 1.16),
            shift=rng.uniform(0.08, 0.2),
            axis=rng.uniform(0.3, 0.7),
            diaphragm=(rng.uniform(0.16, 0.3), rng.uniform(0.08, 0.2)),
            ribs=rng.random(),
            tilt=rng.normal(0.0, 0.035),
            waves=waves.astype(np.float32),
        )

    def extent(self, z: float | Array) -> tuple[Array, Array]:
        """Return half the width and half the depth of the chest cavity at height ``z``."""
        return (
            self.width * _profile(z, _CAVITY_WIDTH),
            self.depth * _profile(z, _CAVITY_DEPTH),
        )

    def lungs(self, x: Array, y: Array, z: float | Array) -> Array:
        """Return the outline of both lungs; inside, it is minus the depth below the pleura."""
        z = np.asarray(z, np.float32)
        x, y = self._warp(x, y, z)
        return self._lungs(self._cavity(x, y, z), self._organs(x, y, z))

    def below_wall(self, x: Array, y: Array, z: float | Array) -> Array:
        """Return the depth below the chest wall, with the costal pleura at 0."""
        return -self._cavity(*self._warp(x, y, z), z)

    def scan(self, x: Array, y: Array, height: float, pixel: float) -> tuple[Array, Array, Array]:
        """Return a slice: HU outside the lungs, outline of the lungs, depth below the wall."""
        z = np.asarray(height, np.float32)
        x, y = self._warp(x, y, z)
        cavity, organs = self._cavity(x, y, z), self._organs(x, y, z)
        hu = np.full(x.shape, AIR, np.float32)
        flank = np.abs(x) / self.width
        rx, ry = self.width + 0.15 + self.fat, self.depth + 0.15 + 0.8 * self.fat
        body = _rounded(x, y - 0.02, rx, ry, self.square)
        paint(hu, coverage(body, pixel), FAT)
        paint(hu, coverage(np.abs(body + 0.012) - 0.012, pixel), MUSCLE)  # skin
        # Pectoral and back muscles are thicker than those between the ribs.
        thickness = self.muscle + 0.05 * flank * np.cos(3.0 * np.arctan2(y, np.abs(x)) + 2.0 * z)
        paint(hu, coverage(np.maximum(cavity - 0.035 - thickness, body + 0.03), pixel), MUSCLE)
        paint(hu, coverage(cavity + 0.01, pixel), FAT)
        for outline, value in organs:
            paint(hu, coverage(np.maximum(outline, body + 0.03), pixel), value)
        for outline, value in self._bones(x, y, z, cavity):
            paint(hu, coverage(outline, pixel), value)
        return hu, self._lungs(cavity, organs), -cavity

    @staticmethod
    def _lungs(cavity: Array, organs: list[tuple[Array, float]]) -> Array:
        inside = np.minimum.reduce([outline for outline, _ in organs])
        return np.maximum(cavity, 0.015 - inside)

    def _warp(self, x: Array, y: Array, z: float | Array) -> tuple[Array, Array]:
        """Turn the patient a little and deform every ellipse."""
        x, y = x + self.tilt * y, y - self.tilt * x
        dx, dy = (
            sum(a * np.sin(i * x + j * y + k * z + phase) for i, j, k, phase, a in waves)
            for waves in (self.waves[:3], self.waves[3:])
        )
        return x + dx, y + dy

    def _cavity(self, x: Array, y: Array, z: float | Array) -> Array:
        rx, ry = self.extent(z)
        return _rounded(x, y - 0.5 * (self.depth - ry), rx, ry, self.square)

    def _organs(self, x: Array, y: Array, z: float | Array) -> list[tuple[Array, float]]:
        d, size = self.depth, self.heart
        column = _profile(z, _COLUMN_WIDTH) * (0.8 + 0.2 * size)
        wedge = 0.02 + 0.85 * column * smoothstep(0.95 + 0.8 * y / d)
        slant_x, slant_y = x - self.shift, y + 0.2 * d
        heart_x = slant_x + self.axis * slant_y
        heart_y = slant_y - 0.45 * self.axis * slant_x
        right, left = self.diaphragm
        arch = np.clip((z - 0.64) / 0.06, 0.0, 1.0) * np.clip((0.8 - z) / 0.06, 0.0, 1.0)
        return [
            # Fat first: the anterior junction, and the space between the large vessels.
            (np.maximum(np.abs(x - 0.01) - wedge, y - 0.1 * d), FAT + 40.0),
            (_ellipse(x, y - 0.22 * d, column, 0.32 * d), BLOOD),
            (_ellipsoid(heart_x, heart_y, z - 0.2, 0.38 * size, 0.4 * size, 0.4), BLOOD),
            (_ellipsoid(x + 0.1, y + 0.1 * d, z - 0.3, 0.2 * size, 0.27 * size, 0.24), BLOOD),
            # Ascending aorta, vena cava, pulmonary trunk and arteries.
            (_ellipsoid(x + 0.05, y + 0.27 * d, z - 0.55, 0.13 * size, 0.14 * size, 0.2), BLOOD),
            (_ellipse(x + 0.13, y + 0.08 * d, 0.065, 0.08) + 1.5 * np.maximum(0.4 - z, 0), BLOOD),
            (_ellipsoid(x - 0.12, y + 0.3 * d, z - 0.54, 0.15, 0.16, 0.1), BLOOD),
            (_ellipsoid(x, y + 0.02 * d, z - 0.52, 0.31, 0.09, 0.045), BLOOD),
            # The aortic arch, then the descending aorta.
            (_ellipse(x - 0.09, y - 0.08 * d, 0.02 + 0.12 * arch, 0.02 + 0.33 * d * arch), BLOOD),
            (_ellipse(x - 0.13, y - 0.44 * d, 0.085, 0.085) + 1.5 * np.maximum(z - 0.74, 0), BLOOD),
            (_rounded(x, y - 1.02 * d, 0.17, 0.52 * d), MUSCLE),  # around the spine
            (_ellipsoid(x + 0.46, y + 0.08, z + 0.02, 0.46, 0.86 * d, right), LIVER),
            (_ellipsoid(x - 0.48, y + 0.06, z + 0.02, 0.42, 0.8 * d, left), LIVER),
        ]

    def _bones(self, x: Array, y: Array, z: Array, cavity: Array) -> list[tuple[Array, float]]:
        d = self.depth
        side = np.abs(x)
        # Ribs slope: each crosses the wall at an angle, so it moves along the wall between slices.
        round_wall = np.arctan2(side, -y / d * self.width) / np.pi
        count = 5.0 * round_wall + round_wall**2 + 0.25 * np.sign(x) * self.tilt / 0.035
        rib = (count + 9.0 * z + self.ribs) % 1.0 - 0.5
        wall = np.abs(cavity - 0.055 - 0.05 * rib)
        ribs = np.maximum((np.abs(rib) - 0.25) * 0.3, wall - 0.022)
        ribs = np.maximum(ribs, 0.1 - round_wall)
        vertebra = _rounded(x, y - 0.72 * d, 0.135, 0.105, 0.4)
        canal = _ellipse(x, y - 0.72 * d - 0.155, 0.055, 0.05)
        arch = np.abs(canal - 0.02) - 0.02
        process = _ellipse(x, y - 0.72 * d - 0.29, 0.022, 0.1)
        level = 0.5 + 0.5 * np.cos(2 * np.pi * (11.0 * z + self.ribs))  # 0: between two vertebrae
        wings = _ellipse(side - 0.13, y - 0.72 * d - 0.15, 0.05 + 0.08 * level, 0.025)
        front = 1.5 * self.extent(z)[1] - 0.5 * d + 0.05
        sternum = _rounded(x, y + front, 0.11, 0.03) + np.maximum(0.25 - z, 0)
        blade_x, blade_y = side - 0.72, y - 0.55 * d
        blade = _ellipse(0.7 * blade_x + 0.7 * blade_y, 0.7 * blade_y - 0.7 * blade_x, 0.2, 0.02)
        blade = np.maximum(blade + np.maximum(0.55 - z, 0), 0.1 - cavity)
        bones = [(outline, CORTEX) for outline in (arch, process, wings, ribs, blade, sternum)]
        bones += [(ribs + 0.012, MARROW), (sternum + 0.014, MARROW), (vertebra, CORTEX)]
        return [*bones, (vertebra + 0.014, MARROW + 60.0 * level), (canal, MUSCLE)]
