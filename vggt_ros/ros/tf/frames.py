"""Which frames the camera's pose is published in: REP-105's map, odom and base_link, or the camera alone.

========  =========================================  ==================  =========================
tf_mode   what is broadcast on /tf                   ~/odometry is in    transforms of others needed
========  =========================================  ==================  =========================
none      nothing                                    map -> camera       none
camera    map -> camera                              map -> camera       none
odom      odom -> base                               odom -> base        base -> camera
map       map -> odom, over odom -> base of others   map -> base         base -> camera, odom -> base
full      map -> odom and odom -> base               odom -> base        base -> camera
========  =========================================  ==================  =========================

Without a name for base, the camera takes its place, and nothing is needed from base to camera. Where others hang the
camera in a tree of their own (a driver's camera_link -> optical frame), the root of that tree is broadcast in place of
the camera, so that the camera comes to lie where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.types import PosedFrame

_STILL = ('earth', 'map', 'odom')  # REP-105
MODES = ('none', 'camera', 'odom', 'map', 'full')


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a frame is and how it moves, as nav_msgs/Odometry has it.

    stamp: ns. T: (4, 4) T_frame_child. covariance: (6, 6) of the child's origin (x, y, z) and of the rotation about
    x, y, z, both in the axes of frame_id. velocity: (6,) linear velocity of the child's origin and angular velocity,
    in the child's axes, or None where unknown; velocity_covariance: (6, 6), likewise.
    """

    stamp: int
    frame_id: str
    child_frame_id: str
    T: np.ndarray
    covariance: np.ndarray
    velocity: np.ndarray | None
    velocity_covariance: np.ndarray

    def in_frame(self, frame_id: str, T_new_old: np.ndarray) -> Placement:
        """The same in another frame. T_new_old: (4, 4) maps points of the present frame there, exactly known."""
        turn = np.kron(np.eye(2), T_new_old[:3, :3])
        return replace(self, frame_id=frame_id, T=T_new_old @ self.T, covariance=turn @ self.covariance @ turn.T)

    def of_child(self, child_frame_id: str, T_child_new: np.ndarray) -> Placement:
        """The same of another frame that is fixed to the child.

        T_child_new: (4, 4) maps points of the new child to the present one. With r its origin, a rotation by w about
        the present child moves the new one by w x r; the twist's map is the adjoint of inv(T_child_new).
        """
        r = T_child_new[:3, 3]
        motion = np.kron(np.eye(2), T_child_new[:3, :3].T) @ _arm(r)
        arm = _arm(self.T[:3, :3] @ r)
        return replace(
            self,
            child_frame_id=child_frame_id,
            T=self.T @ T_child_new,
            covariance=arm @ self.covariance @ arm.T,
            velocity=None if self.velocity is None else motion @ self.velocity,
            velocity_covariance=motion @ self.velocity_covariance @ motion.T,
        )


def _arm(r: np.ndarray) -> np.ndarray:
    """(6, 6) small motion (v, w) of a body's point -> that of the point at r (3,) from it: v + w x r, w."""
    arm = np.eye(6)
    arm[:3, 3:] = [[0, r[2], -r[1]], [-r[2], 0, r[0]], [r[1], -r[0], 0]]
    return arm


@dataclass(frozen=True)
class Frames:
    """The names of the frames and the parameter ``tf_mode``. base: empty for the camera itself.

    Raises ValueError for an unknown mode, and where two of the frames that it uses have one name.
    """

    mode: str
    map: str = 'map'
    odom: str = 'odom'
    base: str = ''

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'tf_mode: {self.mode!r} is not one of {", ".join(MODES)}')
        if not all(self.worlds):
            raise ValueError('map_frame and odom_frame need names')
        if len({*self.worlds, self.base}) <= len(self.worlds):
            raise ValueError(f'map_frame {self.map}, odom_frame {self.odom} and base_frame {self.base} must differ')

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Frames:
        """From the node's parameters. Raises ValueError."""
        return cls(settings['tf_mode'], settings['map_frame'], settings['odom_frame'], settings['base_frame'])

    @property
    def worlds(self) -> tuple[str, ...]:
        """The frames that stand still, of those in use."""
        return (self.map,) if self.mode in ('none', 'camera') else (self.map, self.odom)

    @property
    def places_odom(self) -> bool:
        """Whether odom -> base is ours."""
        return self.mode in ('odom', 'full')

    @property
    def looks_up(self) -> bool:
        """Whether transforms of others are needed. Theirs are in metres: a map of unknown scale does not fit them."""
        return self.mode == 'map' or (self.places_odom and self.base != '')

    def stands_still(self, name: str) -> bool:
        """Whether robots are placed in it: by our names or by REP-105's, with a prefix or without."""
        return name in (self.map, self.odom) or name.rpartition('/')[2] in _STILL

    def child(self, camera: str) -> str:
        """The frame whose pose is published: the base where there is one, else the camera."""
        return camera if self.mode in ('none', 'camera') else self.base or camera

    def of_camera(self, located: PosedFrame) -> Placement:
        """The camera in this mode's frame, odom or map; ``of_child`` makes it the base's.

        In odom the covariance is still that of the place in the map, in odom's axes: with respect to where it began,
        odom drifts without bound, and whoever fuses odometry takes its twist.
        """
        in_map = Placement(
            located.frame.stamp,
            self.map,
            located.frame.frame_id,
            located.T_map_camera,
            located.covariance,
            located.velocity,
            located.velocity_covariance,
        )
        if not self.places_odom:
            return in_map
        return in_map.in_frame(self.odom, invert(correction(located)))


def correction(located: PosedFrame) -> np.ndarray:
    """(4, 4) T_map_odom: what loops, relocalisation and fused anchors have corrected so far."""
    return located.T_map_camera @ invert(located.T_odom_camera)
