"""A network that is not there: predictions with the real one's interface, made from truth and an error model.

numpy and scipy only. Deterministic by the seed and the frames of the window, and equivariant to the order of slots
1..S-1, as the real network is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vggt_ros.camera import PixelMap, fit, pixel_grid
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.truth import FrameTruth, sample_depth
from vggt_ros.synthetic.window import SimulatedWindow
from vggt_ros.types import Accuracy, Frame, Predictor, WindowPrediction

DESCRIPTOR_SIZE = 128


class SimulatedNetwork(Predictor):
    """Stands in for the real predictor wherever odometry, tracks and mapping are tested against truth.

    truth: frame index -> :class:`FrameTruth`, as a mapping, a sequence or a function. longest, multiple: as in
    :func:`vggt_ros.camera.fit`. The same seed, window and truth give the same prediction.
    ``notes`` says which of the rarer errors struck the last window.
    """

    def __init__(
        self,
        truth: Mapping[int, FrameTruth] | Sequence[FrameTruth] | Callable[[int], FrameTruth],
        errors: ErrorModel | None = None,
        seed: int = 0,
        longest: int = 518,
        multiple: int = 14,
    ):
        self.truth = truth if callable(truth) else truth.__getitem__
        self.errors = ErrorModel() if errors is None else errors
        self.seed, self.longest, self.multiple = seed, longest, multiple
        self.accuracy = Accuracy(
            rotation=float(np.radians(self.errors.rotation)),
            translation=self.errors.translation,
            depth=self.errors.depth_frame,
            surface=float(np.hypot(self.errors.depth_smooth, self.errors.depth_pixel)),
            focal=float(np.hypot(self.errors.focal_window, self.errors.focal_frame)),
        )
        self.notes: tuple[str, ...] = ()
        self._depth: dict[tuple, np.ndarray] = {}

    def close(self) -> None:
        """Forget what was rendered."""
        self._depth.clear()

    def pixel_map(self, size: tuple[int, int]) -> PixelMap:
        """How source images of this (width, height) become the network's."""
        return fit(size, self.longest, self.multiple)

    def describe(self) -> dict[str, str]:
        """What it is, for people."""
        return {'network': f'simulated, seed {self.seed}', 'image size [px]': str(self.longest)}

    def predict(
        self, frames: Sequence[Frame], depth: Sequence[int] | None = None, queries: np.ndarray | None = None
    ) -> WindowPrediction:
        """Predict one window.

        frames: S >= 1 frames, slot 0 first, no index twice. depth: the slots whose depth is wanted; None = all.
        queries: (Q, 2) network pixels of slot 0 to follow, or None.
        """
        if not frames:
            raise ValueError('a window needs at least one frame')
        indices = tuple(frame.index for frame in frames)
        if len(set(indices)) < len(indices):
            raise ValueError(f'frames appear twice in the window: {indices}')
        window = SimulatedWindow(self, frames)
        slots = range(len(frames)) if depth is None else depth
        self.notes = tuple(window.notes)
        predicted = {slot: window.predicted_depth(slot) for slot in slots}
        return WindowPrediction(
            indices=indices,
            T_window_camera=window.poses(),
            K=window.K_predicted,
            maps=tuple(window.maps),
            depth={slot: pair[0] for slot, pair in predicted.items()},
            confidence={slot: pair[1] for slot, pair in predicted.items()},
            descriptor=np.stack([self._descriptor(window, slot) for slot in range(len(frames))]),
            tracks=None if queries is None else window.tracks(np.asarray(queries, np.float64)),
        )

    def rng(self, *key: int | str) -> np.random.Generator:
        """The generator for one purpose; strings and (also negative) integers make the key."""
        words = [zlib.crc32(one.encode()) if isinstance(one, str) else one & 0xFFFFFFFF for one in key]
        return np.random.default_rng((self.seed, *words))

    def network_depth(self, index: int, pixel_map: PixelMap) -> np.ndarray:
        """True z-depth (h, w) of a frame in network pixels, metres."""
        key = (index, pixel_map)
        if key not in self._depth:
            truth = self.truth(index)
            if callable(truth.depth):
                self._depth[key] = truth.depth(pixel_map.K_to_network(truth.K), pixel_map.size)
            else:
                self._depth[key] = sample_depth(truth.depth, pixel_map.to_source(pixel_grid(pixel_map.size)))
            while len(self._depth) > 256:
                self._depth.pop(next(iter(self._depth)))
        return self._depth[key]

    def _descriptor(self, window: SimulatedWindow, slot: int) -> np.ndarray:
        """(DESCRIPTOR_SIZE,) random Fourier features of where the camera is and looks: near views are alike."""
        rng = self.rng('descriptor')
        frequencies = rng.normal(size=(DESCRIPTOR_SIZE, 6)) * np.array([0.35, 0.35, 0.35, 0.8, 0.8, 0.8])
        phases = rng.uniform(0, 2 * np.pi, DESCRIPTOR_SIZE)
        truth = window.truths[slot]
        T = truth.T_world_camera if truth.T_alias_world is None else truth.T_alias_world @ truth.T_world_camera
        place = np.zeros(6) if slot in window.blank else np.concatenate([T[:3, 3], T[:3, 2]])
        descriptor = np.cos(frequencies @ place + phases)
        descriptor /= np.linalg.norm(descriptor)
        noise = self.rng('descriptor noise', window.indices[slot]).normal(size=DESCRIPTOR_SIZE) / DESCRIPTOR_SIZE**0.5
        descriptor = descriptor + self.errors.descriptor_noise * noise
        return (descriptor / np.linalg.norm(descriptor)).astype(np.float32)
