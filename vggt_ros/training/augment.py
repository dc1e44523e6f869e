"""Colours as other cameras, lights and exposures would give them: per window, and a little per frame."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# RGB -> YIQ, where hue is an angle in the plane of the last two.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# Standard deviations at strength 1, of a window and of a frame in it: exposure (log), contrast (log), saturation (log),
# hue (rad), white balance (log), gamma (log).
_WINDOW = np.array([0.2, 0.15, 0.25, 0.3, 0.06, 0.15])
_FRAME = np.array([0.08, 0.06, 0.06, 0.03, 0.02, 0.05])
_GREY = 0.05  # share of windows without colour
_BLURRED = 0.3  # share of frames out of focus


def colours(
    images: Tensor, rng: np.random.Generator, generator: torch.Generator, strength: float, noise: float
) -> Tensor:
    """Change images (B, S, 3, H, W) in [0, 1]: exposure, contrast, saturation, hue, white balance, gamma, focus, noise.

    strength: of the colour changes, 0 = none. noise: largest standard deviation of the sensor noise; 0 = none.
    rng decides on the changes, the device's generator draws the noise.
    """
    batch, frames = images.shape[:2]
    amount = rng.normal(size=(batch, 1, 6)) * _WINDOW + rng.normal(size=(batch, frames, 6)) * _FRAME
    exposure, contrast, saturation, hue, _, gamma = np.moveaxis(strength * amount, -1, 0)
    balance = strength * (rng.normal(size=(batch, 1, 3)) * _WINDOW[4] + rng.normal(size=(batch, frames, 3)) * _FRAME[4])
    saturation = np.exp(saturation) * (rng.random((batch, 1)) >= _GREY * min(strength, 1))

    turn = np.zeros((batch, frames, 3, 3))
    turn[..., 0, 0] = 1
    turn[..., 1, 1] = turn[..., 2, 2] = saturation * np.cos(hue)
    turn[..., 1, 2], turn[..., 2, 1] = -saturation * np.sin(hue), saturation * np.sin(hue)
    gain = np.exp(exposure + contrast)[..., None, None] * np.exp(balance)[..., None]
    matrix = gain * (np.linalg.inv(_YIQ) @ turn @ _YIQ)
    # Contrast turns about middle grey.
    offset = 0.5 * (1 - np.exp(contrast))[..., None] * np.ones(3)
    power = np.exp(gamma)[..., None]
    sigma = noise * rng.random((batch, frames)) ** 2
    focus = np.where(rng.random((batch, frames)) < _BLURRED * min(strength, 1), rng.random((batch, frames)), 0)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(images)

    flat = images.flatten(0, 1)
    flat = torch.baddbmm(tensor(offset).flatten(0, 1)[..., None], tensor(matrix).flatten(0, 1), flat.flatten(2))
    flat = flat.clamp(1e-4, 1).pow(tensor(power).flatten(0, 1)[..., None]).unflatten(2, images.shape[3:])
    soft = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode='replicate'), 3, stride=1)
    flat = torch.lerp(flat, soft, tensor(focus).flatten()[:, None, None, None])
    grain = torch.randn(flat.shape, device=flat.device, generator=generator)
    return (flat + grain * tensor(sigma).flatten()[:, None, None, None]).clamp(0, 1).view_as(images)
