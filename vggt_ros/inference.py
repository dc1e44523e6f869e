"""A network held ready: frames in, one WindowPrediction out.

Everything here is exact: what a frame's pixels alone decide (backbone tokens, the first frame-attention block) is kept
from window to window, depth is computed only for the frames that are asked for, and the result equals a plain forward
pass of the same network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

from vggt_ros import camera
from vggt_ros.device import failure_of, release
from vggt_ros.network import VGGT
from vggt_ros.network.vggt import forget_tables
from vggt_ros.types import Accuracy, DeviceError, Frame, TrackPrediction, WindowPrediction, WindowTooLargeError


@dataclass(eq=False)
class _CachedFrame:
    """What one frame's pixels decide: patch tokens (N, C), and what enters the aggregator in either role."""

    tokens: torch.Tensor
    entered: dict[bool, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.tokens, *self.entered.values()))


class NetworkPredictor:
    """VGGT on one device, with a per-frame cache bounded in bytes.

    name: what to call the network in logs.
    image_size: longest side of the network's image in pixels, a multiple of the patch size.
    cache_bytes: budget of the per-frame cache; the least recently used frames leave first. 0 turns it off.
    track_iterations: refinement steps of the tracker.
    accuracy: how exact this network is; by default VGGT-1B.
    precision: 'float32', or 'bfloat16' for the aggregator's matrices (all heads stay float32).
    why: this device and not a better one, in words. warnings: what a person should know before it is used, by kind.
    """

    def __init__(
        self,
        network: VGGT,
        *,
        name: str = 'VGGT',
        device: str | torch.device = 'cpu',
        precision: str = 'float32',
        image_size: int = 518,
        cache_bytes: int = 1 << 30,
        track_iterations: int = 4,
        accuracy: Accuracy | None = None,
        why: str = '',
        warnings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.precision = precision
        self.warnings = warnings or {}
        self._why = f' ({why})' if why else ''
        network.eval().requires_grad_(False).prepare(self.device, getattr(torch, precision))
        self._network: VGGT | None = network
        self.patch = network.config.patch_size
        self.image_size = image_size
        self.cache_bytes = cache_bytes
        self.track_iterations = track_iterations
        self.accuracy = accuracy or Accuracy()
        self._cache: OrderedDict[int, _CachedFrame] = OrderedDict()
        self.cached_bytes = 0  # that the per-frame cache holds on the device
        camera.fit((image_size, image_size), image_size, self.patch)  # refuses an impossible image_size early

    @property
    def network(self) -> VGGT:
        """What predicts. Raises RuntimeError after ``close``."""
        if self._network is None:
            raise RuntimeError(f'{self.name} was closed and cannot predict any more: make a new predictor')
        return self._network

    def close(self) -> None:
        """Give the network's memory back, on the device and here; not while another thread predicts."""
        self.clear()
        self._network = None
        forget_tables()
        release(self.device)

    def describe(self) -> dict[str, str]:
        """What runs where, and what memory it holds, for people."""
        text = {
            'network': self.name,
            'device': f'{self.device}, {self.precision}{self._why}',
            'image size [px]': str(self.image_size),
            'frame cache [MiB]': f'{self.cached_bytes / 2**20:.0f}',
        }
        if self.device.type == 'cuda':
            text['GPU memory [MiB]'] = f'{torch.cuda.memory_allocated(self.device) / 2**20:.0f}'
            text['GPU memory, peak [MiB]'] = f'{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}'
        return text

    def clear(self) -> None:
        """Forget all cached frames (after a reset, frame indices may mean other images)."""
        self._cache.clear()
        self.cached_bytes = 0

    def keep(self, indices: Collection[int]) -> None:
        """Forget the cached frames that are none of these."""
        for index in self._cache.keys() - set(indices):
            self.cached_bytes -= self._cache.pop(index).nbytes

    def pixel_map(self, size: tuple[int, int]) -> camera.PixelMap:
        """How source images of this (width, height) become the network's."""
        return camera.fit(size, self.image_size, self.patch)

    @torch.inference_mode()
    def predict(
        self, frames: Sequence[Frame], depth: Sequence[int] | None = None, queries: np.ndarray | None = None
    ) -> WindowPrediction:
        """Look at a window of S frames of one size; slot 0 is the origin.

        depth: the slots whose depth is wanted, None = all. queries: (Q, 2) points in network pixels of slot 0 to follow
        through the window, None = no tracking.
        Raises ValueError for frames of different sizes, WindowTooLargeError when the device runs out of memory, and
        DeviceError when it fails; then, too, nothing of the window stays there.
        """
        if not frames:
            raise ValueError('a window needs at least one frame')
        sizes = {frame.size for frame in frames}
        if len(sizes) > 1:
            raise ValueError(f'all frames of a window must have one size, not {sorted(sizes)}')
        pixel_map = self.pixel_map(frames[0].size)
        slots = list(range(len(frames))) if depth is None else list(depth)
        try:
            # To the last conversion: a GPU works behind our back, and its errors surface where numbers are fetched.
            return _to_prediction(frames, pixel_map, slots, *self._run(frames, pixel_map, slots, queries))
        except (RuntimeError, MemoryError) as error:
            failure = failure_of(error)
            if failure is None:
                raise
        # Past the except block: inside, the traceback would still hold everything that had been computed.
        self.clear()
        release(self.device)
        if failure.memory:
            raise WindowTooLargeError(len(frames), failure.reason)
        raise DeviceError(f'{self.device} failed ({failure.reason}): the node needs a restart to use it again')

    def _run(
        self, frames: Sequence[Frame], pixel_map: camera.PixelMap, slots: list[int], queries: np.ndarray | None
    ) -> tuple[dict[str, Any], torch.Tensor]:
        entries = self._look_up(frames, pixel_map)
        entered = torch.stack([entry.entered[slot == 0] for slot, entry in enumerate(entries)])
        query_points = None
        if queries is not None and len(queries):
            query_points = torch.as_tensor(np.asarray(queries, np.float32), device=self.device)
        width, height = pixel_map.size
        output = self.network.decode(
            entered,
            (height, width),
            depth_frames=slots,
            query_points=query_points,
            track_iterations=self.track_iterations,
        )
        descriptors = functional.normalize(torch.stack([entry.tokens.float().mean(0) for entry in entries]), dim=-1)
        return output, descriptors

    def _look_up(self, frames: Sequence[Frame], pixel_map: camera.PixelMap) -> list[_CachedFrame]:
        """The cached part of every frame, computed where missing; at most the budget stays for the next window."""
        width, height = pixel_map.size
        missing = [frame for frame in frames if frame.index not in self._cache]
        if missing:
            images = torch.cat([self._to_tensor(frame, pixel_map) for frame in missing])
            for frame, tokens in zip(missing, self.network.embed(images), strict=True):
                # Rows are cloned: a view would keep the whole batch in memory when its neighbours have left the cache.
                entry = self._cache[frame.index] = _CachedFrame(tokens.clone(), {})
                self.cached_bytes += entry.nbytes
        entries = [self._cache[frame.index] for frame in frames]
        for first in (True, False):
            absent = [entry for entry in (entries[:1] if first else entries[1:]) if first not in entry.entered]
            if absent:
                entered = self.network.enter(torch.stack([entry.tokens for entry in absent]), first, (height, width))
                for entry, tensor in zip(absent, entered, strict=True):
                    kept = entry.entered[first] = tensor.clone()
                    self.cached_bytes += kept.numel() * kept.element_size()
        for frame in frames:
            self._cache.move_to_end(frame.index)
        while self._cache and self.cached_bytes > self.cache_bytes:
            self.cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return entries

    def _to_tensor(self, frame: Frame, pixel_map: camera.PixelMap) -> torch.Tensor:
        """(1, 3, h, w) in [0, 1]: bicubic with antialiasing (as the published preprocessing), then the crop."""
        pixels = torch.from_numpy(np.ascontiguousarray(frame.image)).to(self.device)
        image = pixels.permute(2, 0, 1)[None].float() / 255
        width, height = pixel_map.resized
        if (width, height) != camera.image_size(frame.image):
            image = functional.interpolate(image, size=(height, width), mode='bicubic', antialias=True).clamp(0, 1)
        (left, top), (width, height) = pixel_map.offset, pixel_map.size
        return image[..., top : top + height, left : left + width]


def poses_from_encoding(encoding: np.ndarray) -> np.ndarray:
    """VGGT's pose encoding (S, 9) -> T_window_camera (S, 4, 4), re-anchored so that slot 0 is exactly the origin.

    The encoding is [t, quaternion (scalar last, any norm), fov_h, fov_w] of world-to-camera (arXiv 2503.11651, 3.1).
    A pose with a zero or non-finite quaternion becomes NaN.
    """
    encoding = np.asarray(encoding, np.float64)
    T_camera_window = np.tile(np.eye(4), (len(encoding), 1, 1))
    norms = np.linalg.norm(encoding[:, 3:7], axis=1)
    valid = np.isfinite(encoding[:, :7]).all(axis=1) & (norms > 1e-8)
    if valid.any():
        T_camera_window[valid, :3, :3] = Rotation.from_quat(encoding[valid, 3:7]).as_matrix()
        T_camera_window[valid, :3, 3] = encoding[valid, :3]
    poses = T_camera_window[0] @ camera.invert(T_camera_window)
    poses[0] = np.eye(4)
    poses[~valid if valid[0] else slice(None)] = np.nan
    return poses


def _to_prediction(
    frames: Sequence[Frame],
    pixel_map: camera.PixelMap,
    slots: list[int],
    output: dict[str, Any],
    descriptors: torch.Tensor,
) -> WindowPrediction:
    encoding = _numpy(output['pose_enc'][0]).astype(np.float64)
    depth, confidence = {}, {}
    if slots:
        raw_depth, raw_confidence = _numpy(output['depth'][0, ..., 0]), _numpy(output['depth_conf'][0])
        for row, slot in enumerate(slots):
            depth[slot] = np.where(np.isfinite(raw_depth[row]), raw_depth[row], np.nan)
            weight = 1 - 1 / raw_confidence[row]
            confidence[slot] = np.where(np.isfinite(weight), weight, 0.0).astype(np.float32)
    tracks = None
    if 'track' in output:
        tracks = TrackPrediction(*(_numpy(output[key][0]) for key in ('track', 'vis', 'conf')))
    return WindowPrediction(
        indices=tuple(frame.index for frame in frames),
        T_window_camera=poses_from_encoding(encoding),
        K=camera.intrinsics_from_fov(encoding[:, 7], encoding[:, 8], pixel_map.size),
        maps=(pixel_map,) * len(frames),
        depth=depth,
        confidence=confidence,
        descriptor=_numpy(descriptors),
        tracks=tracks,
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
