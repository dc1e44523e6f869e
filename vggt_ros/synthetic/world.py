"""A world: convex textured primitives, their materials, lights, sky and motion. numpy only.

World axes are REP-103's: x forward, y left, z up; metres, seconds. A primitive is a unit shape (cube [-1, 1]^3,
sphere or cylinder of radius 1 and |z| <= 1) stretched by ``half`` and placed by a rigid transform, so every ray meets
it in at most one interval. Seen from inside (a room is a box around the camera) the far end of the interval counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BOX, ELLIPSOID, CYLINDER = 0, 1, 2


@dataclass(frozen=True)
class Options:
    """The hard cases, see :func:`vggt_ros.synthetic.places.make_world`."""

    bare: bool = False  # walls, floors and facades without texture
    mirrors: bool = False  # mirrors and panes of glass
    moving: bool = False  # some objects move
    clutter: float = 1.0  # how many things stand around, 1 = the usual number, 0 = almost none


@dataclass(frozen=True, eq=False)
class Materials:
    """M surfaces. Colours are linear RGB.

    texture: (M,) int32 bank index (textures.py). size: (M, 2) metres one tile covers, horizontally and vertically.
    offset: (M, 2) in tiles. palette: (M, 3, 3) the three colours the pattern mixes.
    variation: (M,) amplitude in [0, 1] of blots larger than a tile, against visible repetition.
    gloss: (M,) strength of the highlight, the only colour that depends on the viewpoint besides mirrors.
    mirror, glass: (M,) share of light reflected / transmitted, 0 for most. emission: (M,) share that needs no light.
    """

    texture: np.ndarray
    size: np.ndarray
    offset: np.ndarray
    palette: np.ndarray
    variation: np.ndarray
    gloss: np.ndarray
    mirror: np.ndarray
    glass: np.ndarray
    emission: np.ndarray


@dataclass(frozen=True, eq=False)
class Motions:
    """How each of P primitives moves: p(t) = pivot + Rz(spin t) (p(0) - pivot) + swing sin(2 pi rate t + phase).

    pivot, swing: (P, 3) metres. spin: (P,) rad/s about the world's z. rate: (P,) Hz. phase: (P,) rad.
    All primitives of one object share one motion; a still one has swing 0 and spin 0.
    """

    pivot: np.ndarray
    swing: np.ndarray
    spin: np.ndarray
    rate: np.ndarray
    phase: np.ndarray


@dataclass(frozen=True, eq=False)
class Lights:
    """position: (L, 3) metres of point lights; colour: (L, 3) intensity (irradiance at 1 m, facing the light).

    sun: (3,) unit vector towards it; sun_colour: (3,) irradiance facing it, zeros indoors.
    ambient: (2, 3) light from below and from above. sky: (3, 3) colours at the horizon, the zenith and of the clouds,
    or None where no ray leaves the world.
    """

    position: np.ndarray
    colour: np.ndarray
    sun: np.ndarray
    sun_colour: np.ndarray
    ambient: np.ndarray
    sky: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SyntheticWorld:
    """P primitives and what a camera needs to find its way among them.

    shape: (P,) BOX, ELLIPSOID or CYLINDER. T_world_primitive: (P, 4, 4) at time 0 without swing. half: (P, 3) metres.
    material: (P, 6) int32 row of ``materials`` for the faces: box -x +x -y +y -z +z; cylinder side, bottom, top;
    ellipsoid its one surface. object_id: (P,) int32 >= 1; primitives of one object move together; 0 is the sky.
    names: object id -> what it is. free: (2, 3) corners of the box in which cameras may be.
    walkway: (N, 3) a polyline on the floor kept clear of everything that stands still; ``closed`` when it is a loop.
    focus: (M, 3) points worth looking at. period: (3,) metres after which the world looks the same again, or None.
    """

    kind: str
    seed: int
    shape: np.ndarray
    T_world_primitive: np.ndarray
    half: np.ndarray
    material: np.ndarray
    object_id: np.ndarray
    names: dict[int, str]
    materials: Materials
    motions: Motions
    lights: Lights
    free: np.ndarray
    walkway: np.ndarray
    focus: np.ndarray
    closed: bool = False
    period: np.ndarray | None = None

    @property
    def moving(self) -> np.ndarray:
        """(P,) whether the primitive ever moves."""
        return (np.abs(self.motions.swing).max(-1) > 0) | (self.motions.spin != 0)

    def poses(self, time: float | np.ndarray = 0.0) -> np.ndarray:
        """T_world_primitive (..., P, 4, 4) float64 at ``time`` (...,) in seconds."""
        time = np.asarray(time, np.float64)[..., None]  # (..., 1) against (P,)
        motion = self.motions
        angle = motion.spin * time
        shift = np.sin(2 * np.pi * motion.rate * time + motion.phase)[..., None] * motion.swing
        T_motion = np.zeros((*angle.shape, 4, 4))
        T_motion[..., 0, 0] = T_motion[..., 1, 1] = np.cos(angle)
        T_motion[..., 1, 0], T_motion[..., 0, 1] = np.sin(angle), -np.sin(angle)
        T_motion[..., 2, 2] = T_motion[..., 3, 3] = 1.0
        T_motion[..., :3, 3] = motion.pivot + shift - (T_motion[..., :3, :3] @ motion.pivot[..., None])[..., 0]
        return T_motion @ self.T_world_primitive

    def distance(self, points: np.ndarray, time: float = 0.0, still_only: bool = False) -> np.ndarray:
        """Distance in metres from points (N, 3) to the nearest surface; 0 or less inside a solid.

        Exact for boxes, cylinders and spheres, a lower bound for ellipsoids. The hollow primitives (the ones that
        hold the camera: rooms) count by their inside.
        """
        points = np.asarray(points, np.float64)
        T = self.poses(time)
        result = np.full(len(points), np.inf)
        for kind in (BOX, ELLIPSOID, CYLINDER):
            chosen = (self.shape == kind) & ~(self.moving & still_only)
            if not chosen.any():
                continue
            R, t, half = T[chosen, :3, :3], T[chosen, :3, 3], self.half[chosen]
            local = np.einsum('pji,npj->npi', R, points[:, None] - t)
            signed = _signed_distance(kind, local, half)
            hollow = np.isin(self.object_id[chosen], self.hollow)
            result = np.minimum(result, np.where(hollow, -signed, signed).min(1))
        return result

    @property
    def hollow(self) -> list[int]:
        """Object ids of the shells that enclose the scene."""
        return [identity for identity, name in self.names.items() if name == 'shell']


def _signed_distance(kind: int, local: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Signed distance (N, P), negative inside, of local points (N, P, 3) to shapes with half sizes (P, 3)."""
    if kind == ELLIPSOID:
        return (np.linalg.norm(local / half, axis=-1) - 1) * half.min(-1)
    if kind == CYLINDER:
        excess = np.stack(
            [
                (np.linalg.norm(local[..., :2] / half[:, :2], axis=-1) - 1) * half[:, :2].min(-1),
                np.abs(local[..., 2]) - half[:, 2],
            ],
            axis=-1,
        )
    else:
        excess = np.abs(local) - half
    return np.linalg.norm(np.maximum(excess, 0), axis=-1) + np.minimum(excess.max(-1), 0)


class Builder:
    """Collects primitives and materials, and hands out the finished :class:`SyntheticWorld`.

    Used by interiors.py, exteriors.py and furniture.py; ``rng`` is the only source of chance.
    """

    def __init__(self, kind: str, seed: int, rng: np.random.Generator, options: Options):
        self.kind, self.seed, self.rng, self.options = kind, seed, rng, options
        self._materials: list[tuple] = []
        self._primitives: list[tuple] = []
        self._motions: dict[int, tuple] = {}
        self.names: dict[int, str] = {}

    def material(
        self,
        texture: int,
        palette: np.ndarray,
        size: float | tuple[float, ...] = 1.0,
        offset: tuple[float, float] | None = None,
        variation: float = 0.0,
        gloss: float = 0.0,
        mirror: float = 0.0,
        glass: float = 0.0,
        emission: float = 0.0,
    ) -> int:
        """A new row of the material table; its number. offset None: random."""
        size = (size, size) if isinstance(size, (int, float)) else size
        offset = tuple(self.rng.random(2)) if offset is None else offset
        self._materials.append((texture, size, offset, palette, variation, gloss, mirror, glass, emission))
        return len(self._materials) - 1

    def object(self, name: str) -> int:
        """A new object id (>= 1)."""
        identity = len(self.names) + 1
        self.names[identity] = name
        return identity

    def move(self, identity: int, pivot, swing=(0.0, 0.0, 0.0), spin: float = 0.0, rate: float = 0.0, phase=0.0):
        """Let an object move; see :class:`Motions`."""
        self._motions[identity] = (pivot, swing, spin, rate, phase)

    def add(self, shape: int, identity: int, centre, half, material, R: np.ndarray | None = None) -> None:
        """One primitive. centre, half: (3,) metres; material: a row or six rows; R: world from primitive."""
        T = np.eye(4)
        T[:3, :3] = np.eye(3) if R is None else R
        T[:3, 3] = centre
        faces = [material] * 6 if isinstance(material, int) else material
        self._primitives.append((shape, T, half, faces, identity))

    def build(self, lights: Lights, free, walkway, focus, closed: bool = False, period=None) -> SyntheticWorld:
        """The finished world."""
        shape, T, half, faces, identity = zip(*self._primitives, strict=True)
        still = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0, 0.0, 0.0)
        motions = zip(*(self._motions.get(one, still) for one in identity), strict=True)
        columns = list(zip(*self._materials, strict=True))
        return SyntheticWorld(
            kind=self.kind,
            seed=self.seed,
            shape=np.array(shape, np.int8),
            T_world_primitive=np.array(T, np.float64),
            half=np.array(half, np.float64),
            material=np.array(faces, np.int32),
            object_id=np.array(identity, np.int32),
            names=dict(self.names),
            materials=Materials(np.array(columns[0], np.int32), *(np.array(c, np.float64) for c in columns[1:])),
            motions=Motions(*(np.array(column, np.float64) for column in motions)),
            lights=lights,
            free=np.array(free, np.float64),
            walkway=np.array(walkway, np.float64),
            focus=np.array(focus, np.float64),
            closed=closed,
            period=None if period is None else np.array(period, np.float64),
        )
