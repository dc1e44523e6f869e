"""One keyframe's part of the map, and what keyframes say about one another's points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros import camera
from vggt_ros.depth import color_to_network, edge_mask
from vggt_ros.lasting import Lasting
from vggt_ros.types import Estimate

AGREES = 0.05  # |log z| difference up to which two keyframes see the same surface
FREE = 0.1  # log z difference beyond which one looks through the other's point
MISS = 3  # how many agreements a later look through a point outweighs
DOUBT = 1  # and an earlier one (something may have come), or a look of its own keyframe through another's surface
CLAMP = 12  # largest belief, so that four looks through a point that was always there remove it
IMAGE_PIXELS = 1 << 18  # larger depth images are thinned out before they are kept
MIN_OVERLAP = 0.1  # share of a keyframe's points that another's image must hold to be compared with
PROBES = 64  # points by which that share is estimated
BEND = 0.01  # motion of keyframes against one another, relative to depth, that makes their comparisons void
POINT_FIELDS = ('points', 'rgb', 'confidence', 'mass', 'belief', 'log_shift', 'shift_weight')


@dataclass(eq=False)
class Submap(Lasting):
    """N points of one keyframe; lengths in the unit it had when it came, ``scale`` map units each.

    points: (N, 3) float32 camera frame. mass: (N,) float32, for how many of its weight each stands, since points of one
    voxel became one. belief: (N,) int8. log_shift, shift_weight: (N,) float32 sums over the
    keyframes that agree: weight x log(their depth / ours), weight. depth, weight: (h, w) float32 images, NaN where
    nothing is to be trusted, cell: (h', w') int32 sample of each cell of ``stride`` pixels or -1; None once retired.
    """

    index: int
    T: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    points: np.ndarray
    rgb: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray | None
    weight: np.ndarray | None
    cell: np.ndarray | None
    stride: int
    median: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.mass = np.ones(len(self.points), np.float32)
        self.clear_evidence()

    def clear_evidence(self) -> None:
        count = len(self.points)
        self.belief = np.zeros(count, np.int8)
        self.log_shift = np.zeros(count, np.float32)
        self.shift_weight = np.zeros(count, np.float32)

    def select(self, chosen: np.ndarray) -> None:
        """Keep only these points; not while there is a depth image that refers to them."""
        for name in POINT_FIELDS:
            setattr(self, name, getattr(self, name)[chosen])

    def place(self, points: np.ndarray) -> None:
        """Put the points (N, 3) elsewhere in the camera's frame; what was averaged so far is in them."""
        self.points = points.astype(np.float32)
        self.log_shift = np.zeros_like(self.log_shift)

    def matrix(self) -> np.ndarray:
        """(4, 4): points to the map, scale included."""
        M = self.T.copy()
        M[:3, :3] *= self.scale
        return M

    def believe(self, chosen: np.ndarray, change: int | np.ndarray) -> None:
        """Add to the belief of these points (mask or numbers)."""
        changed = self.belief[chosen].astype(np.int32) + change
        self.belief[chosen] = np.clip(changed, -CLAMP, CLAMP)

    def fused(self) -> np.ndarray:
        """(N, 3) float32: the points, moved along their rays to the mean log depth of all that agree."""
        mean = self.log_shift / (self.shift_weight + self.confidence)
        return self.points * np.exp(mean)[:, None]


def make_submap(keyframe: Estimate, samples: int, min_confidence: float) -> Submap | None:
    """At most ``samples`` points of a keyframe, off depth edges; None when it has none. Raises ValueError."""
    depth = keyframe.depth
    if keyframe.confidence.shape != depth.shape or keyframe.map.size != depth.shape[::-1]:
        raise ValueError(
            f'depth {depth.shape}, confidence {keyframe.confidence.shape} and pixel map {keyframe.map.size} of'
            f' keyframe {keyframe.frame.index} do not fit together'
        )
    if not (np.isfinite(keyframe.T_map_camera).all() and np.isfinite(keyframe.K).all()):
        raise ValueError(f'pose or K of keyframe {keyframe.frame.index} is not finite')
    with np.errstate(invalid='ignore'):
        good = (depth > 0) & (depth < np.inf) & (keyframe.confidence >= min_confidence)
    if not good.any():
        return None
    good &= ~edge_mask(np.where(good, depth, np.nan))
    thin = int(np.ceil(np.sqrt(depth.size / IMAGE_PIXELS)))
    usable = np.where(good, depth, np.nan).astype(np.float32)[::thin, ::thin]
    weight = keyframe.confidence[::thin, ::thin].astype(np.float32)
    K = keyframe.K.astype(np.float64)
    K = np.vstack([K[:2] / thin, K[2:]])
    height, width = usable.shape
    stride = int(np.ceil(np.sqrt(usable.size / samples)))
    rows, columns = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride]
    found = np.isfinite(usable[rows, columns])
    if not found.any():
        return None
    cell = np.full((-(-height // stride), -(-width // stride)), -1, np.int32)
    cell[: rows.shape[0], : rows.shape[1]][found] = np.arange(found.sum())
    rows, columns = rows[found], columns[found]
    z = usable[rows, columns]
    rgb = color_to_network(keyframe.frame.image, keyframe.map)
    return Submap(
        index=keyframe.frame.index,
        T=keyframe.T_map_camera.astype(np.float64),
        K=K,
        size=(width, height),
        points=(camera.rays(np.stack([columns, rows], -1), K) * z[:, None]).astype(np.float32),
        rgb=rgb[thin * rows, thin * columns],
        confidence=weight[rows, columns],
        depth=usable,
        weight=weight,
        cell=cell,
        stride=stride,
        median=float(np.median(z)),
    )


def compare(asked: Submap, witness: Submap, parallax: float) -> None:
    """What the witness's depth image says about the other's points, and these about the witness's rays.

    parallax: degrees between two viewing rays from which agreement counts as that of another viewpoint.
    """
    assert witness.depth is not None
    assert witness.weight is not None
    assert witness.cell is not None
    M = np.linalg.solve(witness.matrix(), asked.matrix())
    seen = asked.points @ M[:3, :3].T.astype(np.float32) + M[:3, 3].astype(np.float32)
    number, row, column = _inside(seen, witness.K, witness.size)
    seen = seen[number]
    with np.errstate(invalid='ignore'):
        ratio = np.log(witness.depth[row, column] / seen[:, 2])  # NaN where the witness knows nothing
        agrees, through = np.abs(ratio) < AGREES, ratio > FREE

    weight = witness.weight[row, column][agrees]
    asked.log_shift[number[agrees]] += weight * ratio[agrees]
    asked.shift_weight[number[agrees]] += weight

    ray = seen - M[:3, 3].astype(np.float32)
    cosine = (ray * seen).sum(1) / np.sqrt((ray * ray).sum(1) * (seen * seen).sum(1))
    apart = cosine < np.cos(np.radians(parallax))
    asked.believe(number[agrees & apart], 1)
    asked.believe(number[through], -MISS if witness.index > asked.index else -DOUBT)

    # The witness's ray runs through a surface that the other claims: one of the two is wrong.
    if asked.depth is not None:
        sample = witness.cell[row[through] // witness.stride, column[through] // witness.stride]
        pierced = np.unique(sample[sample >= 0])
        witness.believe(pierced, -DOUBT)


def _inside(points: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, rows and columns of the points (N, 3), camera frame, that fall on pixels of an image."""
    front = np.flatnonzero(points[:, 2] > 1e-6)
    x, y, z = points[front].T
    u, v = np.rint(K[0, 0] * x / z + K[0, 2]), np.rint(K[1, 1] * y / z + K[1, 2])
    inside = (u >= 0) & (u < size[0]) & (v >= 0) & (v < size[1])
    return front[inside], v[inside].astype(np.int32), u[inside].astype(np.int32)


def overlapping(submap: Submap, others: list[Submap], most: int) -> list[Submap]:
    """Those whose images hold at least MIN_OVERLAP of the submap's points, at most so many, the largest share first."""
    if not others:
        return []
    probes = submap.points[:: -(-len(submap.points) // PROBES)].astype(np.float64)
    # [None]: before NumPy 2 a right side of one dimension less is taken for vectors.
    M = np.linalg.solve(np.stack([other.matrix() for other in others]), submap.matrix()[None])
    seen = np.einsum('nij,pj->npi', M[:, :3, :3], probes) + M[:, None, :3, 3]
    share = [len(_inside(points, other.K, other.size)[0]) for points, other in zip(seen, others, strict=True)]
    order = np.argsort(share, kind='stable')[::-1][:most]
    return [others[number] for number in order if share[number] >= MIN_OVERLAP * len(probes)]


def arrangement(submaps: list[Submap]) -> np.ndarray:
    """(N, 3): a point ahead of each, at its median depth, as the newest camera sees it, in its median depths."""
    ahead = np.array([[0.0, 0.0, submap.median, 1.0] for submap in submaps])
    M = np.linalg.solve(submaps[-1].matrix(), np.stack([submap.matrix() for submap in submaps]))
    return np.einsum('nij,nj->ni', M, ahead)[:, :3] / submaps[-1].median
