"""Vessels and airways of a phantom chest: trees of tubes, grown in 3-D and drawn in slices.

Space and units are those of `pyro_stitchnet.data.phantoms._anatomy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from pyro_stitchnet.data.phantoms._anatomy import HEIGHT, Array, coverage

__all__ = ["Tubes", "grow_tubes"]

_STEP = 0.008
"""Distance between a tube's balls: about half a pixel of a 128 x 128 slice."""


@dataclass(frozen=True)
class Tubes:
    """Round tubes as chains of overlapping balls: centres (n, 3) in (x, y, z), radii (n,)."""

    centres: Array
    radii: Array

    @classmethod
    def join(cls, parts: Sequence["Tubes"]) -> "Tubes":
        """Return the balls of all parts."""
        return cls(
            np.concatenate([part.centres for part in parts]),
            np.concatenate([part.radii for part in parts]),
        )

    def where(self, keep: NDArray[np.bool_]) -> "Tubes":
        """Return the chosen balls."""
        return Tubes(self.centres[keep], self.radii[keep])

    def near(self, z: float, thickness: float) -> "Tubes":
        """Return the balls' cross-sections, as balls, in a slab of ``thickness`` around ``z``."""
        away = np.maximum(np.abs(self.centres[:, 2] - z) - 0.5 * thickness, 0.0) * HEIGHT
        keep = away < self.radii
        return Tubes(self.centres[keep], np.sqrt(self.radii[keep] ** 2 - away[keep] ** 2))

    def draw(self, size: int, field: tuple[float, float]) -> Array:
        """Return the coverage of a slice (size, size) of |x| < field[0] and |y| < field[1]."""
        image = np.zeros(size * size, np.float32)
        if not len(self.radii):
            return image.reshape(size, size)
        scale = size / 2 / np.array(field)
        place = (self.centres[:, :2] + field) * scale - 0.5
        reach = int(self.radii.max() * scale.max() + 1.5)
        step = np.arange(-reach, reach + 1)
        column = np.round(place[:, 0]).astype(int)[:, None] + step
        row = np.round(place[:, 1]).astype(int)[:, None] + step
        dx = (column - place[:, :1])[:, None, :] / scale[0]
        dy = (row - place[:, 1:])[:, :, None] / scale[1]
        radius, pixel = self.radii[:, None, None], 1.0 / scale.mean()
        cover = coverage(np.sqrt(dx * dx + dy * dy) - radius, pixel)
        cover *= np.minimum(1.0, 2.0 * radius / pixel)  # thinner than a pixel
        inside = ((column >= 0) & (column < size))[:, None, :]
        inside = inside & ((row >= 0) & (row < size))[:, :, None]
        index = row[:, :, None] * size + column[:, None, :]
        np.maximum.at(image, index[inside], cover[inside].astype(np.float32))
        return image.reshape(size, size)


def _chain(
    start: ArrayLike, end: ArrayLike, r0: ArrayLike, r1: ArrayLike, bow: ArrayLike = 0.0
) -> Tubes:
    """Return tubes from ``start`` to ``end``, (n, 3) each, bent by ``bow``, of radius r0 to r1."""
    start, end, r0, r1 = (np.asarray(a, np.float64) for a in (start, end, r0, r1))
    bow = np.broadcast_to(bow, start.shape)
    length = np.linalg.norm((end - start) * (1.0, 1.0, HEIGHT), axis=1)
    count = np.ceil(length / _STEP).astype(int) + 2
    tube = np.repeat(np.arange(len(count)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    t = ((np.arange(len(tube)) - first) / (count[tube] - 1))[:, None]
    centres = start[tube] * (1 - t) + end[tube] * t + bow[tube] * (4 * t * (1 - t))
    radii = r0[tube] * (1 - t[:, 0]) + r1[tube] * t[:, 0]
    return Tubes(centres.astype(np.float32), radii.astype(np.float32))


def _parents(out: Array) -> NDArray[np.intp]:
    """Return the parent of every point except the first: a neighbour that is nearer to the root.

    The parent minimises the length of the new branch plus the discounted distance to the root,
    which balances short branches against direct ones. Points are offsets from the root, sorted by
    distance; the first is the root.
    """
    far = np.linalg.norm(out, axis=1)
    gap, near = cKDTree(out).query(out, min(20, len(out)))
    cost = np.where(far[near] < far[:, None], gap + 0.85 * far[near], np.inf)
    best = near[np.arange(len(out)), cost.argmin(1)]
    return np.where(np.isfinite(cost).any(1), best, 0)[1:]


def grow_tubes(points: Array, leaf: float, rng: np.random.Generator) -> tuple[Tubes, Tubes]:
    """Grow vessels and airways from the hila to points spread over both lungs.

    Radii follow Murray's law, r_parent**n = sum r_child**n, here with n = 2.7. Airways run beside
    the larger vessels; the trachea and the main bronchi lead to them.

    Args:
        points: (n, 3), inside the lungs.
        leaf: radius of the last branches.
        rng: source of the hila's places and of the bends.
    """
    metric, carina = np.array([1.0, 1.0, HEIGHT]), np.array([-0.02, 0.09, 0.6])
    vessels, airways = [], [_chain([[-0.01, 0.13, 1.05]], [carina], [0.052], [0.05])]
    for side in (-1.0, 1.0):
        hilum = np.array([side * rng.uniform(0.2, 0.24), rng.uniform(0.04, 0.1), 0.5])
        nodes = points[points[:, 0] * side > 0]
        nodes = nodes[np.argsort((((nodes - hilum) * metric) ** 2).sum(1))]
        nodes = np.vstack([hilum, nodes])
        parent = _parents((nodes - hilum) * metric)
        load = [1.0] * len(nodes)
        for child in range(len(nodes) - 1, 0, -1):
            load[parent[child - 1]] += load[child]
        radius = leaf * np.array(load) ** (1 / 2.7)
        start, end = nodes[parent], nodes[1:]
        bow = rng.normal(0.0, 0.05, end.shape) * np.linalg.norm(end - start, axis=1, keepdims=True)
        tree = _chain(start, end, np.minimum(radius[parent], 1.25 * radius[1:]), radius[1:], bow)
        large = tree.where(tree.radii > 1.1 * leaf)
        beside = np.array([0.8 * side, -0.6, 0.0]) * rng.choice([-1.0, 1.0])
        shift = 1.9 * large.radii[:, None] * beside
        vessels.append(tree)
        airways.append(Tubes((large.centres + shift).astype(np.float32), 0.65 * large.radii))
        airways.append(_chain([carina], [hilum], [0.042], [0.032]))
    return Tubes.join(vessels), Tubes.join(airways)
