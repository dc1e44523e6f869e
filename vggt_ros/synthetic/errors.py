"""The error model of the simulated network: one dataclass, all zeros = exact truth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorModel:
    """How wrong the simulated network is. Every default is harmless: ``ErrorModel()`` predicts the truth."""

    # gauge: the window's unit is the mean distance of its points, as VGGT was trained; else the metre
    normalised: bool = False
    window_scale: float = 0.0  # gauge: standard deviation of the log of a further random unit per window
    depth_window: float = 0.0  # standard deviation of log depth common to the whole window, poses excepted
    depth_frame: float = 0.0  # the same, per frame
    depth_smooth: float = 0.0  # the same, a smooth field over the image, per frame
    depth_pixel: float = 0.0  # the same, per pixel
    persistence: float = 0.0  # share in [0, 1] of the variance of a frame's own errors that comes back in every window
    outliers: float = 0.0  # share of pixels whose log depth is off by a further normal error
    outlier_size: float = 0.5  # standard deviation of that error
    flying: float = 0.0  # share of the pixels at depth edges that lie somewhere between foreground and background
    rotation: float = 0.0  # of poses, standard deviation per axis in degrees
    translation: float = 0.0  # of poses, per axis, as a share of the window's median depth
    focal_window: float = 0.0  # standard deviation of log focal length, common to the window
    focal_frame: float = 0.0  # the same, per frame
    focal: float = 1.0  # factor of every focal length
    # in [0, 1], how far a window's depth and poses are those of a camera with the focal length that it predicts: what
    # is seen stays in its pixels, so depth is longer by the same factor, and turns are smaller
    focal_follows: float = 0.0
    # the principal point is predicted in the image's centre, as VGGT does, wherever it is; poses and depth are those of
    # a camera that looks there
    centred: bool = False
    # share of common surface from which two frames are connected; a group of frames that is not connected to slot 0
    # stays rigid, but is placed at random
    overlap: float = 0.0
    lost_rotation: float = 60.0  # degrees by which it is rotated at most
    lost_translation: float = 1.0  # median depths by which it is shifted at most
    lost_scale: float = 0.3  # standard deviation of the log by which its unit is changed
    lost_confident: float = 0.0  # probability that its confidence does not show it
    alias: float = 0.0  # probability that it is placed in slot 0's group where it stands in a look-alike of that place
    pull_above: float = 0.2  # share of the image that a moving object must fill to pull the pose towards its motion
    pull: float = 0.0  # by how much (0 to 1) where it fills all of it, linearly less down to the threshold
    # mean absolute difference of neighbouring pixels, grey levels, below which a frame gets a random pose and a random
    # smooth depth; 0 = never
    blank: float = 0.0
    blank_confident: float = 0.0  # probability that its confidence does not show it
    confidence: float = 0.9  # weights in (0, 1) around this
    # in [0, 1], how far they follow the pixel's own error in depth, the rest is chance; 0 = the same everywhere
    confidence_correlation: float = 0.0
    descriptor_noise: float = 0.0  # standard deviation of the noise relative to the descriptor's length
    track_pixel: float = 0.0  # standard deviation in network pixels
    track_outliers: float = 0.0  # share of points that end up elsewhere, up to a tenth of the image away
    track_visibility: float = 0.0  # standard deviation of the noise on the visibility's logit, 0 = exactly 0 or 1
    track_rigid: bool = False  # points on moving objects are followed as if they stood still, as VGGT's tracker does

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f'{name} must not be negative, but is {value}')
        shares = ('persistence', 'outliers', 'flying', 'overlap', 'lost_confident', 'alias', 'pull', 'blank_confident')
        for name in (*shares, 'confidence', 'confidence_correlation', 'track_outliers', 'focal_follows'):
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
