"""Where physical points are in every frame, and whether they are seen: exact, also on moving objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vggt_ros.synthetic.render import cast
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.trace import rows_of

_SAME = 1e-4  # relative and metres: a ray through the point's image that ends this near to the point ends at it


@dataclass(frozen=True, eq=False)
class PointTracks:
    """Q points of each of B worlds in F frames.

    uv: (B, F, Q, 2) float64 pixels, NaN behind the camera and for queries that met nothing. depth: (B, F, Q) float64
    z-depth of the point, seen or not. visible: (B, F, Q) bool: in the image and the first thing on its ray.
    points: (B, F, Q, 3) float64 world coordinates. object_id: (B, Q) int32, 0 = the query met the sky.
    """

    uv: torch.Tensor
    depth: torch.Tensor
    visible: torch.Tensor
    points: torch.Tensor
    object_id: torch.Tensor


def follow(
    scene: Scene,
    T_world_camera: torch.Tensor | np.ndarray,
    K: torch.Tensor | np.ndarray,
    size: tuple[int, int],
    queries: torch.Tensor | np.ndarray,
    frame: int = 0,
) -> PointTracks:
    """Follow the surface points seen at ``queries`` (Q, 2) or (B, Q, 2), pixels of ``frame``, through all F frames.

    Arguments otherwise as for :func:`render`. Points in mirrors and panes are points of the mirror and the pane.
    """
    T_world_camera, K = scene.cameras(T_world_camera, K)
    queries = torch.as_tensor(queries, dtype=torch.float64, device=scene.device)
    batch, frames = T_world_camera.shape[:2]
    queries = queries.expand(batch, *queries.shape[-2:])
    frame = frame % frames
    only = slice(frame, frame + 1)
    hits = cast(scene.moment(frame), T_world_camera[:, only], K[:, only], queries[:, None])
    met, rows = hits.primitive >= 0, hits.primitive.clamp(min=0)
    # From the unit shape back to metres, then along with the primitive.
    local = hits.point.double() * rows_of(scene.half, rows)
    T_world_primitive = rows_of(scene.T_world_primitive.transpose(1, 2), rows).transpose(1, 2)  # (B, F or 1, Q, 4, 4)
    points = (T_world_primitive[..., :3, :3] @ local[:, None, :, :, None])[..., 0] + T_world_primitive[..., :3, 3]
    points = points.expand(-1, frames, -1, -1)
    R_wc, t_wc = T_world_camera[:, :, None, :3, :3], T_world_camera[:, :, None, :3, 3]
    seen_from = (R_wc.mT @ (points - t_wc)[..., None])[..., 0]
    depth = torch.where(met[:, None], seen_from[..., 2], torch.nan)
    image = (K[:, :, None] @ seen_from[..., None])[..., :2, 0] / depth[..., None]
    image = torch.where(depth[..., None] > 0, image, torch.nan)
    first = cast(scene, T_world_camera, K, image.nan_to_num(-1e6)).depth.double().view(depth.shape)
    inside = ((image > -0.5) & (image < image.new_tensor(size) - 0.5)).all(-1)
    visible = inside & ((first - depth).abs() <= _SAME * (1 + depth))
    object_id = torch.where(met, rows_of(scene.object_id, rows), 0)
    return PointTracks(image, depth, visible, points, object_id)
