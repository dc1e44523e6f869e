"""One simulated window: its errors, drawn once and used by poses, depth and tracks alike. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, invert, pixel_grid, project, rays, transform, unproject
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.truth import FrameTruth, sample_depth
from vggt_ros.types import Frame, TrackPrediction

_EDGE = 0.05  # relative depth step between neighbouring pixels that counts as an edge
_VISIBLE = 0.03  # relative depth difference up to which a point is the surface that is seen


class TruthSource(Protocol):
    """What a window asks of the network it belongs to."""

    errors: ErrorModel

    def truth(self, index: int) -> FrameTruth:
        """What is true of a frame."""
        ...

    def pixel_map(self, size: tuple[int, int]) -> PixelMap:
        """Source pixels to network pixels."""
        ...

    def network_depth(self, index: int, pixel_map: PixelMap) -> np.ndarray:
        """True depth in network pixels."""
        ...

    def rng(self, *key: int | str) -> np.random.Generator:
        """The generator for one purpose."""
        ...


class SimulatedWindow:
    """One window as the error model sees it; see :class:`ErrorModel` for what happens in it."""

    def __init__(self, network: TruthSource, frames: Sequence[Frame]):
        self.network, self.errors = network, network.errors
        self.indices = [frame.index for frame in frames]
        self.truths = [network.truth(index) for index in self.indices]
        self.maps = [network.pixel_map(frame.size) for frame in frames]
        self.K = np.stack([m.K_to_network(t.K) for m, t in zip(self.maps, self.truths, strict=True)])
        self.depths = [network.network_depth(i, m) for i, m in zip(self.indices, self.maps, strict=True)]
        self.key = (self.indices[0], *sorted(self.indices[1:]))
        self.notes: list[str] = []
        rng = network.rng('window', *self.key)
        valid = np.concatenate([d[np.isfinite(d)] for d in self.depths])
        self.median = float(np.median(valid)) if len(valid) else 1.0
        self.unit = float(np.exp(self.errors.window_scale * rng.normal()))
        if self.errors.normalised:
            self.unit *= self._mean_distance()
        self.depth_bias = self.errors.depth_window * rng.normal()
        focal = np.log(self.errors.focal) + self.errors.focal_window * rng.normal()
        self.stretch = np.exp(self.errors.focal_follows * focal)
        self.K_predicted = self.K.copy()
        self.turned = np.tile(np.eye(4), (len(frames), 1, 1))  # from the camera that the network sees to the true one
        for slot, index in enumerate(self.indices):
            factor = np.exp(focal + self.errors.focal_frame * network.rng('focal', *self.key, index).normal())
            self.K_predicted[slot, [0, 1], [0, 1]] *= factor
            if self.errors.centred:
                self.K_predicted[slot, :2, 2] = (np.array(self.maps[slot].size) - 1) / 2
                self.turned[slot, :3, :3] = _towards(rays(self.K_predicted[slot, :2, 2], self.K[slot]))
        self.blank = {slot for slot, frame in enumerate(frames) if _contrast(frame.image) < self.errors.blank}
        self.T_belief = np.stack([truth.T_world_camera for truth in self.truths])
        self.frame_scale = np.ones(len(frames))
        self.doubted: set[int] = set()
        self._pull()
        self._lose()
        self._blank()

    def _frame_rng(self, purpose: str, slot: int) -> np.random.Generator:
        return self.network.rng(purpose, *self.key, self.indices[slot])

    def _mean_distance(self) -> float:
        """Mean distance of all slots' points from slot 0's camera: VGGT's unit."""
        T_origin_world = invert(self.truths[0].T_world_camera)
        total = count = 0.0
        for slot, depth in enumerate(self.depths):
            points = unproject(depth[::4, ::4], _strided(self.K[slot], 4))
            points = transform(T_origin_world @ self.truths[slot].T_world_camera, points[np.isfinite(points[..., 2])])
            total, count = total + np.linalg.norm(points, axis=-1).sum(), count + len(points)
        return total / count if count else 1.0

    def _overlap(self, T: np.ndarray) -> np.ndarray:
        """(S, S) share of slot i's surface that slot j sees too, for poses T (S, 4, 4)."""
        count = len(self.depths)
        result = np.eye(count)
        for i in range(count):
            step = max(1, self.depths[i].shape[1] // 16)
            points = unproject(self.depths[i][::step, ::step], _strided(self.K[i], step))
            points = points[np.isfinite(points[..., 2])]
            for j in range(count):
                if i != j and len(points):
                    local = transform(invert(T[j]) @ T[i], points)
                    seen = sample_depth(self.depths[j], np.nan_to_num(project(local, self.K[j]), nan=-1e9))
                    with np.errstate(invalid='ignore'):
                        result[i, j] = np.mean(np.abs(seen - local[:, 2]) < 0.1 * local[:, 2])
        return result

    def _groups(self) -> list[list[int]]:
        """Connected sets of slots, slot 0's first."""
        overlap = self._overlap(np.stack([truth.T_world_camera for truth in self.truths]))
        linked = np.maximum(overlap, overlap.T) >= self.errors.overlap
        groups, left = [], list(range(len(linked)))
        while left:
            group, queue = [], [left[0]]
            while queue:
                slot = queue.pop()
                if slot in left:
                    left.remove(slot)
                    group.append(slot)
                    queue.extend(other for other in left if linked[slot, other])
            # By frame, not by slot: a group's first frame is the same in whatever order the window comes.
            groups.append(sorted(group, key=self.indices.__getitem__))
        return groups

    def _lose(self) -> None:
        if not self.errors.overlap or len(self.indices) == 1:
            return
        first, *others = self._groups()
        for group in others:
            rng = self.network.rng('lost', *self.key, self.indices[group[0]])
            chance_alias, chance_doubt = rng.random(2)
            T_shift = _random_rigid(rng, self.errors.lost_rotation, self.errors.lost_translation * self.median)
            scale = np.exp(self.errors.lost_scale * rng.normal())
            if chance_alias < self.errors.alias and self._move_to_look_alike(first, group):
                continue
            pivot = self.T_belief[group[0]]
            for slot in group:
                relative = invert(pivot) @ self.T_belief[slot]
                relative[:3, 3] *= scale
                self.T_belief[slot] = pivot @ T_shift @ relative
                self.frame_scale[slot] = scale
                if chance_doubt >= self.errors.lost_confident:
                    self.doubted.add(slot)
            self.notes.append(f'placed at random: {[self.indices[slot] for slot in group]}')

    def _move_to_look_alike(self, first: list[int], group: list[int]) -> bool:
        """Place a group where its look-alike is, if slot 0's group sees it there."""
        for anchor in first:
            for slot in group:
                here, there = self.truths[anchor].T_alias_world, self.truths[slot].T_alias_world
                if here is None or there is None or np.allclose(here, there):
                    continue
                T = self.T_belief.copy()
                T[group] = invert(here) @ there @ T[group]
                if self._overlap(T)[np.ix_(group, first)].max() >= self.errors.overlap:
                    self.T_belief = T
                    self.notes.append(f'taken for a look-alike: {[self.indices[slot] for slot in group]}')
                    return True
        return False

    def _pull(self) -> None:
        """Frames full of a moving object follow the object instead of the world."""
        if not self.errors.pull:
            return
        start = self.truths[0].moving
        for slot, truth in enumerate(self.truths[1:], start=1):
            if truth.object_id is None or not truth.moving:
                continue
            shares = {one: np.mean(truth.object_id == one) for one in truth.moving if one in start}
            largest = max(shares, key=shares.__getitem__, default=None)
            if largest is None or shares[largest] <= self.errors.pull_above:
                continue
            weight = self.errors.pull * (shares[largest] - self.errors.pull_above) / (1 - self.errors.pull_above)
            T_motion = truth.moving[largest] @ invert(start[largest])
            T_still = invert(T_motion) @ self.T_belief[slot]
            relative = invert(self.T_belief[slot]) @ T_still
            part = np.eye(4)
            part[:3, :3] = Rotation.from_rotvec(weight * Rotation.from_matrix(relative[:3, :3]).as_rotvec()).as_matrix()
            part[:3, 3] = weight * relative[:3, 3]
            self.T_belief[slot] = self.T_belief[slot] @ part
            self.notes.append(f'pulled along by object {largest}: {self.indices[slot]}')

    def _blank(self) -> None:
        for slot in sorted(self.blank):
            rng = self._frame_rng('blank', slot)
            if rng.random() >= self.errors.blank_confident:
                self.doubted.add(slot)
            if slot:
                shift = _random_rigid(rng, self.errors.lost_rotation, self.errors.lost_translation * self.median)
                self.T_belief[slot] = self.T_belief[slot] @ shift
            self.notes.append(f'blank: {self.indices[slot]}')

    def poses(self) -> np.ndarray:
        """(S, 4, 4) float64 T_window_camera in window units, slot 0 the identity."""
        T_belief = self.T_belief @ self.turned
        T = invert(T_belief[0]) @ T_belief
        for slot in range(1, len(T)):
            rng = self._frame_rng('pose', slot)
            turn = Rotation.from_rotvec(np.radians(self.errors.rotation) * rng.normal(size=3)).as_matrix()
            T[slot, :3, :3] = T[slot, :3, :3] @ turn
            T[slot, :3, 3] += self.errors.translation * self.median * rng.normal(size=3)
        T[:, :3, 3] /= self.unit
        T[0] = np.eye(4)
        return T if self.stretch == 1 else self._stretched(T)

    def _stretched(self, T: np.ndarray) -> np.ndarray:
        """Poses (S, 4, 4), which are changed, as a longer lens makes them: farther ahead, and turned less across."""
        turn = Rotation.from_matrix(T[:, :3, :3]).as_rotvec() / [self.stretch, self.stretch, 1.0]
        T[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
        T[:, 2, 3] *= self.stretch
        return T

    def predicted_depth(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) float32 depth in window units and confidence of a slot."""
        errors, truth = self.errors, self.depths[slot]
        rng = self._frame_rng('depth', slot)
        if slot in self.blank:
            size = truth.shape
            log_depth = np.log(self.median) + 0.3 * rng.normal() + _smooth_field(rng, size, 0.3)
            error, valid = np.zeros(size), np.ones(size, bool)
        else:
            always = self.network.rng('depth', self.indices[slot])
            kept, drawn = np.sqrt(errors.persistence), np.sqrt(1 - errors.persistence)
            error = np.full(truth.shape, errors.depth_frame * (kept * always.normal() + drawn * rng.normal()))
            if errors.depth_smooth:
                fields = _smooth_field(always, truth.shape, 1.0), _smooth_field(rng, truth.shape, 1.0)
                error += errors.depth_smooth * (kept * fields[0] + drawn * fields[1])
            if errors.depth_pixel:
                error += errors.depth_pixel * rng.normal(size=truth.shape)
            if errors.outliers:
                wrong = rng.random(truth.shape) < errors.outliers
                error += np.where(wrong, errors.outlier_size * rng.normal(size=truth.shape), 0)
            if errors.flying:
                error += _flying(rng, truth, errors.flying)
            valid = np.isfinite(truth)
            log_depth = np.log(np.where(valid, truth, 1.0)) + error + self.depth_bias + np.log(self.frame_scale[slot])
        depth = np.where(valid, np.exp(log_depth) * self.stretch / self.unit, np.nan)
        if errors.centred:  # along the axis of the camera that the network sees
            depth *= rays(pixel_grid(truth.shape[::-1]), self.K[slot]) @ self.turned[slot, :3, 2]
        return depth.astype(np.float32), self._confidence(slot, error, valid).astype(np.float32)

    def _confidence(self, slot: int, error: np.ndarray, valid: np.ndarray) -> np.ndarray:
        errors = self.errors
        logit = np.log(errors.confidence / (1 - errors.confidence)) if errors.confidence < 1 else 30.0
        logit = np.full(error.shape, logit)
        if errors.confidence_correlation:
            spread = 1.48 * np.median(np.abs(error)) + 1e-9
            correlation = errors.confidence_correlation
            chance = np.abs(self._frame_rng('confidence', slot).normal(size=error.shape))
            badness = correlation * np.minimum(np.abs(error) / spread, 6) + np.sqrt(1 - correlation**2) * chance
            logit += 1 - badness
        if slot in self.doubted:
            logit -= 3
        return np.where(valid, 1 / (1 + np.exp(-logit)), 0)

    def tracks(self, queries: np.ndarray) -> TrackPrediction:
        """Follow queries (Q, 2) of slot 0 by the true geometry, then disturb them."""
        errors = self.errors
        if queries.ndim != 2 or queries.shape[1] != 2:
            raise ValueError(f'queries must be (Q, 2), not {queries.shape}')
        depth = sample_depth(self.depths[0], queries)
        points = transform(self.truths[0].T_world_camera, rays(queries, self.K[0]) * depth[:, None])
        objects = self._objects_at(queries)
        uv, visible = np.zeros((len(self.indices), len(queries), 2)), np.zeros((len(self.indices), len(queries)), bool)
        uv[0], visible[0] = queries, True
        for slot in range(1, len(self.indices)):
            rng = self._frame_rng('tracks', slot)
            truth, size = self.truths[slot], np.array(self.maps[slot].size)
            moved = points.copy()
            if not errors.track_rigid:
                for one in set(truth.moving) & set(self.truths[0].moving):
                    chosen = objects == one
                    moved[chosen] = transform(truth.moving[one] @ invert(self.truths[0].moving[one]), points[chosen])
            local = transform(invert(truth.T_world_camera), moved)
            exact = project(local, self.K[slot])
            seen = sample_depth(self.depths[slot], np.nan_to_num(exact, nan=-1e9))
            with np.errstate(invalid='ignore'):
                visible[slot] = np.abs(seen - local[:, 2]) < _VISIBLE * local[:, 2]
            lost = (rng.random(len(queries)) < errors.track_outliers) | (slot in self.blank)
            jump = rng.uniform(-0.1, 0.1, exact.shape) * size
            noisy = exact + errors.track_pixel * rng.normal(size=exact.shape) + np.where(lost[:, None], jump, 0)
            uv[slot] = np.where(np.isfinite(noisy), noisy, queries)
        visibility = visible.astype(np.float64)
        if errors.track_visibility:
            for slot in range(1, len(self.indices)):
                noise = self._frame_rng('visibility', slot).normal(size=len(queries))
                visibility[slot] = 1 / (1 + np.exp(-(6 * visible[slot] - 3 + errors.track_visibility * noise)))
        doubt = np.array([0.3 if slot in self.doubted else 1.0 for slot in range(len(self.indices))])
        confidence = visibility * errors.confidence * doubt[:, None]
        return TrackPrediction(uv.astype(np.float32), visibility.astype(np.float32), confidence.astype(np.float32))

    def _objects_at(self, queries: np.ndarray) -> np.ndarray:
        """(Q,) object ids under network pixels of slot 0."""
        table = self.truths[0].object_id
        if table is None:
            return np.zeros(len(queries), int)
        u, v = np.round(self.maps[0].to_source(queries)).astype(int).T
        return table[np.clip(v, 0, table.shape[0] - 1), np.clip(u, 0, table.shape[1] - 1)]


def _towards(ray: np.ndarray) -> np.ndarray:
    """(3, 3) smallest rotation that takes the optical axis to a ray (3,)."""
    x, y, z = ray / np.linalg.norm(ray)
    # Rodrigues' formula for the axis z x ray.
    return np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), x], [-x * y / (1 + z), 1 - y * y / (1 + z), y], [-x, -y, z]]
    )


def _strided(K: np.ndarray, step: int) -> np.ndarray:
    """Intrinsics of an image of which only every ``step``-th pixel is kept."""
    K = K.copy()
    K[:2] /= step
    return K


def _contrast(image: np.ndarray) -> float:
    """Mean absolute grey-level difference between neighbouring pixels."""
    grey = image.mean(-1) if image.ndim == 3 else image.astype(np.float64)
    return float(np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean()) / 2


def _random_rigid(rng: np.random.Generator, degrees: float, shift: float) -> np.ndarray:
    """(4, 4) rotation about a random axis by up to ``degrees``, translation of up to ``shift``."""
    axis, direction = rng.normal(size=(2, 3))
    T = np.eye(4)
    angle = np.radians(degrees) * rng.uniform(0.3, 1.0)
    T[:3, :3] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    T[:3, 3] = direction / np.linalg.norm(direction) * shift * rng.uniform(0.3, 1.0)
    return T


def _smooth_field(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """A smooth random field (h, w) of about unit variance times ``amplitude``."""
    coarse = rng.normal(size=(5, 6))
    return amplitude * zoom(coarse, (shape[0] / 5, shape[1] / 6), order=1, grid_mode=True, mode='nearest')


def _flying(rng: np.random.Generator, depth: np.ndarray, share: float) -> np.ndarray:
    """Log-depth error (h, w) that puts a share of the pixels at edges between their neighbours' depths."""
    log_depth = np.log(np.where(np.isfinite(depth), depth, 1.0))
    error = np.zeros(depth.shape)
    chosen, weight = rng.random(depth.shape) < share, rng.random(depth.shape)
    for axis in (0, 1):
        for shift in (-1, 1):
            step = np.roll(log_depth, shift, axis) - log_depth
            edge = chosen & (np.abs(step) > _EDGE) & np.isfinite(depth) & np.isfinite(np.roll(depth, shift, axis))
            error = np.where(edge, weight * step, error)
    return error
