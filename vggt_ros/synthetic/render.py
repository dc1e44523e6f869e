"""An exact ray caster in batched torch, CPU or CUDA: B worlds, F cameras in each, any pose and any K.

Everything is computed in the camera's optical frame: a primitive becomes an affine map from the camera to its unit
shape, built in float64, so a ray (x, y, 1) meets it at its z-depth, moving objects cost nothing extra and large world
coordinates lose no digits. Rays, depth and colours are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.shading import shade
from vggt_ros.synthetic.trace import Hits, SceneCameras, exact_arithmetic, trace

_CUDA_RAYS = 1 << 21


@dataclass(frozen=True, eq=False)
class Rendering:
    """What B x F cameras see; tensors on the scene's device.

    rgb: (B, F, H, W, 3) float32 in [0, 1], display-referred (gamma 2.2).
    depth: (B, F, H, W) float32 z-depth in metres at the pixel centres, NaN where nothing is hit (sky).
    normal: (B, F, H, W, 3) float32 unit surface normals in the optical frame, towards the camera; 0 in the sky.
    object_id: (B, F, H, W) int32, 0 = sky. primitive: (B, F, H, W) int64 row of the scene's table, -1 = sky.
    specular: (B, F, H, W) bool: mirror or glass; depth is that of its surface, colour that of what is seen in it.
    """

    rgb: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor
    object_id: torch.Tensor
    primitive: torch.Tensor
    specular: torch.Tensor


def pixel_rays(K: torch.Tensor, size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """(..., H * W, 3) float32 directions with z = 1 through the pixel centres moved by ``shift``; K (..., 3, 3)."""
    width, height = size
    u = torch.arange(width, dtype=torch.float64, device=K.device) + shift[0]
    v = torch.arange(height, dtype=torch.float64, device=K.device) + shift[1]
    v, u = torch.meshgrid(v, u, indexing='ij')
    return uv_rays(torch.stack([u, v], -1).reshape(-1, 2), K)


def uv_rays(uv: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Pixels (..., N, 2) and K (..., 3, 3) -> (..., N, 3) float32 directions with z = 1."""
    K = K.double()
    y = (uv[..., 1] - K[..., 1, 2, None]) / K[..., 1, 1, None]
    x = (uv[..., 0] - K[..., 0, 2, None] - K[..., 0, 1, None] * y) / K[..., 0, 0, None]
    return torch.stack([x, y, torch.ones_like(x)], -1).float()


def cast(scene: Scene, T_world_camera: torch.Tensor | np.ndarray, K, uv) -> Hits:
    """Exact first hits of the rays through pixels uv (B, F, N, 2) or (N, 2); G = B F cameras in order."""
    T_world_camera, K = scene.cameras(T_world_camera, K)
    uv = torch.as_tensor(uv, dtype=torch.float64, device=scene.device)
    directions = uv_rays(uv, K).expand(*T_world_camera.shape[:2], -1, 3).flatten(0, 1)
    with exact_arithmetic(scene.device):
        return trace(SceneCameras.of(scene, T_world_camera, K), directions)


def render(
    scene: Scene,
    T_world_camera: torch.Tensor | np.ndarray,
    K: torch.Tensor | np.ndarray,
    size: tuple[int, int],
    samples: int = 1,
    shadows: bool = False,
    occlusion: bool = False,
) -> Rendering:
    """Render every camera of every world.

    T_world_camera: (B, F, 4, 4) or (F, 4, 4) for one world, camera-to-world, optical axes. K: (3, 3), (F, 3, 3) or
    (B, F, 3, 3) in pixels with integer pixel centres. size: (width, height). samples: colour samples per pixel and
    axis (2 = 4 rays); geometry is always that of the pixel centre. shadows: of the sun and every lamp, one more ray
    for each. occlusion: ambient occlusion from distances to nearby surfaces. The result carries no gradients.
    """
    T_world_camera, K = scene.cameras(T_world_camera, K)
    batch, frames = T_world_camera.shape[:2]
    K = K.flatten(0, 1)
    # A CPU works on one image at a time, to stay in its cache; a GPU on as many as a few GB hold, at 1 kB a pixel.
    together = max(1, _CUDA_RAYS // (size[0] * size[1])) if scene.device.type == 'cuda' else 1
    with exact_arithmetic(scene.device):
        view = SceneCameras.of(scene, T_world_camera, K.view(batch, frames, 3, 3))
        parts = [
            _render(view.select(slice(g, g + together)), K[g : g + together], size, samples, shadows, occlusion)
            for g in range(0, batch * frames, together)
        ]
    shape = (batch, frames, size[1], size[0])
    return Rendering(*(torch.cat(one).reshape(*shape, *one[0].shape[2:]) for one in zip(*parts, strict=True)))


def _render(
    view: SceneCameras, K: torch.Tensor, size: tuple[int, int], samples: int, shadows: bool, occlusion: bool
) -> tuple[torch.Tensor, ...]:
    """The fields of a :class:`Rendering` for G cameras, (G, H W, ...)."""
    scene, rays = view.scene, pixel_rays(K, size)
    hits = trace(view, rays, size)
    colours = []
    for row in range(samples):
        for column in range(samples):
            shift = ((column + 0.5) / samples - 0.5, (row + 0.5) / samples - 0.5)
            if shift == (0.0, 0.0):
                colours.append(shade(view, rays, hits, shadows, occlusion))
            else:
                shifted = pixel_rays(K, size, shift)
                colours.append(shade(view, shifted, trace(view, shifted, size), shadows, occlusion))
    seen, rows = hits.primitive >= 0, hits.primitive.clamp(min=0)
    world = view.world[:, None]
    surface = scene.surface[scene.material[world, rows, hits.face]]
    object_id = torch.where(seen, scene.object_id[world, rows], 0)
    specular = seen & (surface[..., 15:17] > 0).any(-1)
    return torch.stack(colours).mean(0), hits.depth, hits.normal, object_id, hits.primitive, specular
