"""The error model of the simulated network: one dataclass, all zeros = exact truth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorModel:
    """How wrong the simulated network is. Every default is harmless: ``ErrorModel()`` predicts the truth.

    Gauge (no error, but the freedom the real network has):
    normalised: the window's unit is the mean distance of its points, as VGGT was trained; else the metre.
    window_scale: standard deviation of the log of a further random unit per window.

    Depth (standard deviations of log-depth):
    depth_window: common to the whole window, poses excepted. depth_frame: per frame. depth_smooth: a smooth field over
    the image, per frame. depth_pixel: per pixel.
    persistence: share in [0, 1] of the variance of a frame's own errors that comes back in every window.
    outliers: share of pixels whose log-depth is off by a further normal error of outlier_size.
    flying: share of the pixels at depth edges that lie somewhere between foreground and background.

    Poses and focal length:
    rotation: standard deviation per axis in degrees. translation: per axis, as a share of the window's median depth.
    focal_window, focal_frame: standard deviation of log focal length, common to the window and per frame.
    centred: the principal point is predicted in the image's centre, as VGGT does, wherever it is.

    Little common surface: two frames are connected when the share of common surface is at least ``overlap``; the
    network keeps a group of frames that is not connected to slot 0 rigid, but places it at random: rotated by up to
    lost_rotation degrees, shifted by up to lost_translation median depths, its unit changed by lost_scale
    (standard deviation of the log). lost_confident: the probability that its confidence does not show it.
    alias: the probability that such a group is placed in slot 0's group where it stands in a look-alike of that place.

    Moving objects: frames in which a moving object fills more than pull_above of the image are pulled towards the pose
    that explains the object's motion, by ``pull`` (0..1) where it fills it all, linearly less down to the threshold.

    Blank views: frames whose mean absolute grey-level difference between neighbouring pixels is below ``blank``
    (grey levels, 0 = never) get nonsense: a random pose and a random smooth depth, blank_confident: the probability
    that its confidence does not show it.

    Confidence: weights in (0, 1) around ``confidence``; with confidence_correlation in [0, 1] they follow the
    pixel's own error in depth, the rest is chance. 0: the same everywhere.

    Descriptors: descriptor_noise: standard deviation of the noise relative to the descriptor's length.

    Tracks: track_pixel: standard deviation in network pixels. track_outliers: share of points that end up elsewhere
    (up to a tenth of the image away). track_visibility: standard deviation of the noise on the visibility's logit, 0 =
    exactly 0 or 1. track_rigid: points on moving objects are followed as if they stood still, as VGGT's tracker does.
    """

    normalised: bool = False
    window_scale: float = 0.0
    depth_window: float = 0.0
    depth_frame: float = 0.0
    depth_smooth: float = 0.0
    depth_pixel: float = 0.0
    persistence: float = 0.0
    outliers: float = 0.0
    outlier_size: float = 0.5
    flying: float = 0.0
    rotation: float = 0.0
    translation: float = 0.0
    focal_window: float = 0.0
    focal_frame: float = 0.0
    centred: bool = False
    overlap: float = 0.0
    lost_rotation: float = 60.0
    lost_translation: float = 1.0
    lost_scale: float = 0.3
    lost_confident: float = 0.0
    alias: float = 0.0
    pull_above: float = 0.2
    pull: float = 0.0
    blank: float = 0.0
    blank_confident: float = 0.0
    confidence: float = 0.9
    confidence_correlation: float = 0.0
    descriptor_noise: float = 0.0
    track_pixel: float = 0.0
    track_outliers: float = 0.0
    track_visibility: float = 0.0
    track_rigid: bool = False

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f'{name} must not be negative, but is {value}')
        shares = ('persistence', 'outliers', 'flying', 'overlap', 'lost_confident', 'alias', 'pull', 'blank_confident')
        for name in (*shares, 'confidence', 'confidence_correlation', 'track_outliers'):
            if getattr(self, name) > 1:
                raise ValueError(f'{name} is a share and must be at most 1, but is {getattr(self, name)}')

    @classmethod
    def typical(cls) -> ErrorModel:
        """Errors of the size assumed for VGGT on indoor windows, with its known weaknesses switched on."""
        return cls(
            normalised=True,
            window_scale=0.1,
            depth_window=0.015,
            depth_frame=0.015,
            depth_smooth=0.01,
            depth_pixel=0.01,
            outliers=0.04,
            flying=0.3,
            rotation=0.25,
            translation=0.006,
            focal_window=0.01,
            centred=True,
            overlap=0.1,
            lost_confident=0.3,
            alias=0.7,
            pull=0.5,
            blank=0.5,
            blank_confident=0.5,
            confidence_correlation=0.6,
            descriptor_noise=0.05,
            track_pixel=0.5,
            track_outliers=0.02,
            track_visibility=1.0,
            track_rigid=True,
        )
