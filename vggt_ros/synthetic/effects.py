"""What a sensor and a lens add to a perfect picture: each effect one function on (H, W, 3) uint8 RGB images.

Rolling shutter and motion blur need the world, not only a picture: they render.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.shading import GAMMA
from vggt_ros.synthetic.trajectory import CameraPath
from vggt_ros.synthetic.world import SyntheticWorld


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def noise(image: np.ndarray, rng: np.random.Generator, read: float = 1.5, shot: float = 0.3) -> np.ndarray:
    """Sensor noise: standard deviation ``read`` grey levels in the dark, growing with the signal.

    shot: variance per grey level of signal, as photon noise has it.
    """
    signal = image.astype(np.float64)
    return _to_uint8(signal + np.sqrt(read**2 + shot * signal) * rng.normal(size=image.shape))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Defocus as a Gaussian of ``sigma`` pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def exposure(image: np.ndarray, stops: float) -> np.ndarray:
    """Exposure changed by ``stops``: +1 doubles the light. Bright parts saturate."""
    return _to_uint8(255 * ((image / 255.0) ** GAMMA * 2.0**stops) ** (1 / GAMMA))


def vignette(image: np.ndarray, strength: float = 0.4) -> np.ndarray:
    """Darker corners: light falls by the share ``strength`` from the centre to the corner."""
    height, width = image.shape[:2]
    v, u = np.mgrid[:height, :width]
    radius = np.hypot(u - (width - 1) / 2, v - (height - 1) / 2) / np.hypot((width - 1) / 2, (height - 1) / 2)
    return _to_uint8(image * ((1 - strength * radius**2) ** (1 / GAMMA))[..., None])


def jpeg(image: np.ndarray, quality: int = 60) -> np.ndarray:
    """Compressed to JPEG of a quality of 1 to 100 and back."""
    _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert back is not None
    return cv2.cvtColor(back, cv2.COLOR_BGR2RGB)


def distort(
    image: np.ndarray, K_image: np.ndarray, K: np.ndarray, coefficients: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """What a lens with OpenCV's distortion ``coefficients`` (k1 k2 p1 p2 k3 ...) makes of an undistorted picture.

    K_image: intrinsics of ``image``, which should see more than the lens does. K, size: of the distorted camera.
    Pixels of which ``image`` shows nothing become black.
    """
    width, height = size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    coefficients = np.asarray(coefficients, np.float64)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)
    ideal = cv2.undistortPointsIter(pixels, K, coefficients, np.eye(3), K_image, criteria)
    source = ideal.reshape(height, width, 2).astype(np.float32)
    return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def interpolate(trajectory: CameraPath, times: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) at ``times`` (N,) between those of a trajectory; held before its beginning and after its end."""
    known = trajectory.times
    if len(known) == 1:
        return np.tile(trajectory.T_world_camera, (len(times), 1, 1))
    times = np.clip(times, known[0], known[-1])
    T = np.tile(np.eye(4), (len(times), 1, 1))
    T[:, :3, :3] = Slerp(known, Rotation.from_matrix(trajectory.T_world_camera[:, :3, :3]))(times).as_matrix()
    for axis in range(3):
        T[:, axis, 3] = np.interp(times, known, trajectory.T_world_camera[:, axis, 3])
    return T


def motion_blur(
    world: SyntheticWorld,
    trajectory: CameraPath,
    time: float,
    exposure_time: float,
    K: np.ndarray,
    size: tuple[int, int],
    steps: int = 5,
) -> np.ndarray:
    """The image (H, W, 3) uint8 of a shutter that is open for ``exposure_time`` seconds around ``time``."""
    times = time + exposure_time * ((np.arange(steps) + 0.5) / steps - 0.5)
    rendering = render(Scene.pack(world, times), interpolate(trajectory, times), K, size)
    light = (rendering.rgb[0].double() ** GAMMA).mean(0) ** (1 / GAMMA)
    return _to_uint8(255 * light.numpy())


def rolling_shutter(
    world: SyntheticWorld, trajectory: CameraPath, time: float, readout: float, K: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and z-depth (H, W) of a sensor whose first row is read at ``time``, the last ``readout``
    seconds later: every row has its own pose, and its depth is from that pose."""
    width, height = size
    times = time + readout * np.arange(height) / max(height - 1, 1)
    # Row v of the image is the only row of a camera whose principal point lies v pixels higher.
    K_rows = np.tile(np.asarray(K, np.float64), (height, 1, 1))
    K_rows[:, 1, 2] -= np.arange(height)
    rendering = render(Scene.pack(world, times), interpolate(trajectory, times), K_rows, (width, 1))
    return _to_uint8(255 * rendering.rgb[0, :, 0].numpy()), rendering.depth[0, :, 0].numpy()
