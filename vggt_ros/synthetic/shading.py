"""Colours: textures with mip levels, Lambert light from sun, lamps and sky, shadows, occlusion, mirrors and glass."""

from __future__ import annotations

import torch

from vggt_ros.synthetic import textures
from vggt_ros.synthetic.trace import Hits, SceneCameras, blocked, trace

_BLOTS = textures.texture_id('plaster', 3)
_LIFT = 2e-3  # metres secondary rays start off a surface
GAMMA = 2.2


def _sample(
    bank: torch.Tensor, texture: torch.Tensor, uv: torch.Tensor, footprint: torch.Tensor, channels: int = 3
) -> torch.Tensor:
    """Pattern (N, channels) in [0, 1] at uv (N, 2) in tiles, bilinear, where texels are about ``footprint`` tiles."""
    level = torch.log2(footprint * textures.SIZE).round().nan_to_num(0).clamp(0, textures.LEVELS - 1).long()
    side = torch.bitwise_right_shift(torch.full_like(level, textures.SIZE), level)
    # The levels before one with this side hold SIZE^2 + SIZE^2 / 4 + ... + 4 side^2 texels: a geometric series.
    base = texture * textures.TEXELS + (textures.SIZE**2 - side * side) * 4 // 3
    u, v = (uv - uv.floor()).unbind(-1)
    x, y = u * side - 0.5, v * side - 0.5
    left, top = x.floor(), y.floor()
    wx, wy = x - left, y - top
    # Sides are powers of two, so & wraps around, below zero too.
    x0, y0 = left.long() & (side - 1), top.long() & (side - 1)
    x1, y1 = (x0 + 1) & (side - 1), base + ((y0 + 1) & (side - 1)) * side
    y0 = base + y0 * side
    texels = bank[torch.stack([y0 + x0, y0 + x1, y1 + x0, y1 + x1]).view(-1)].view(4, -1)
    weights = torch.stack([(1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy]) / 255
    return torch.stack([(((texels >> 8 * c) & 255) * weights).sum(0) for c in range(channels)], -1)


def _surface_uv(view: SceneCameras, hits: Hits) -> torch.Tensor:
    """Metres (N, 2) on the surface, to the right and down from its upper left corner; hits flattened to N."""
    scene = view.scene
    half = scene.half.float()[view.world[:, None], hits.primitive.clamp(min=0)].reshape(-1, 3)
    q = hits.point.reshape(-1, 3)
    x, y, z = (q * half).unbind(-1)
    hx, hy, hz = half.unbind(-1)
    face = hits.face.reshape(-1)
    p = hits.primitive.reshape(-1)
    split = scene.split
    # Boxes: seen from outside, u runs to the right and v down on the four sides.
    u_box = torch.stack([hy - y, hy + y, hx + x, hx - x, hx + x, hx + x], -1)
    v_box = torch.stack([hz - z, hz - z, hz - z, hz - z, hy + y, hy - y], -1)
    u = torch.gather(u_box, -1, face[:, None])[:, 0]
    v = torch.gather(v_box, -1, face[:, None])[:, 0]
    angle = torch.atan2(q[:, 1], q[:, 0])
    is_sphere = (p >= split[0]) & (p < split[0] + split[1])
    is_side = (p >= split[0] + split[1]) & (face == 0)
    is_cap = (p >= split[0] + split[1]) & (face > 0)
    latitude = torch.asin(q[:, 2].clamp(-1, 1))
    u = torch.where(is_sphere | is_side, angle * hx, torch.where(is_cap, x, u))
    v = torch.where(is_sphere, -latitude * hz, torch.where(is_side, hz - z, torch.where(is_cap, -y, v)))
    return torch.stack([u, v], -1)


def _sky(view: SceneCameras, directions: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Sky colours (N, 3) in world directions (N, 3): a gradient with clouds. group: (N,) the world."""
    sky = view.scene.sky[group]
    direction = torch.nn.functional.normalize(directions, dim=-1)
    up = direction[:, 2].clamp(0, 1)
    colour = torch.lerp(sky[:, 0], sky[:, 1], up[:, None].sqrt())
    height = direction[:, 2].clamp(min=0.03)[:, None]
    cover = _sample(
        view.scene.bank, view.scene.clouds[group], direction[:, :2] / height * 0.22 + 0.5, 0.004 / height[:, 0]
    )[:, :1]
    fade = (direction[:, 2:] * 6).clamp(0, 1)
    glow = ((direction * view.scene.sun[group]).sum(-1, keepdim=True).clamp(min=0) ** 64) * 0.3
    return torch.lerp(colour, sky[:, 2], cover * fade) + glow


def shade(view: SceneCameras, directions: torch.Tensor, hits: Hits, shadows: bool, occlusion: bool) -> torch.Tensor:
    """Display-referred colours (G, R, 3) in [0, 1] of primary rays."""
    light = _radiance(view, directions, None, hits, shadows, occlusion, bounces=2)
    # A soft shoulder instead of hard clipping; then the display's gamma.
    return (1 - torch.exp(-1.6 * light)).clamp(min=0) ** (1 / GAMMA)


def _radiance(
    view: SceneCameras,
    directions: torch.Tensor,
    origins: torch.Tensor | None,
    hits: Hits,
    shadows: bool,
    occlusion: bool,
    bounces: int,
) -> torch.Tensor:
    """Linear light (G, R, 3) that arrives along rays; origins None: from the camera."""
    scene = view.scene
    cameras, count = hits.primitive.shape
    seen = hits.primitive >= 0
    world_of = view.world[:, None].expand(cameras, count).reshape(-1)
    R_wc = view.T_world_camera[:, :3, :3].float()
    t_wc = view.T_world_camera[:, None, :3, 3].float()
    depth = hits.depth.nan_to_num(0.0)
    position = depth[..., None] * directions
    if origins is not None:
        position = position + origins
    position_world = position @ R_wc.mT + t_wc

    faces = scene.material[view.world[:, None], hits.primitive.clamp(min=0), hits.face].reshape(-1)
    surface = scene.surface[faces]
    metres = _surface_uv(view, hits)
    size, offset = surface[:, 0:2], surface[:, 2:4]
    distance = depth * directions.norm(dim=-1)
    facing = (hits.normal * torch.nn.functional.normalize(directions, dim=-1)).sum(-1).abs().clamp(min=0.1)
    footprint = (distance * view.pixel[:, None] / facing.sqrt()).reshape(-1)
    pattern = _sample(scene.bank, scene.texture[faces], metres / size + offset, footprint / size.amin(-1))
    palette = surface[:, 4:13].view(-1, 3, 3)
    albedo = torch.lerp(torch.lerp(palette[:, 0], palette[:, 1], pattern[:, :1]), palette[:, 2], pattern[:, 1:2])
    albedo = albedo * (0.4 + 0.6 * pattern[:, 2:])
    variation, gloss, mirror, glass, emission = (surface[:, 13 + i, None] for i in range(5))
    blots = _sample(scene.bank, torch.full_like(faces, _BLOTS), metres / 3.7 + offset, footprint / 3.7, 1)
    albedo = albedo * (1 + variation * (2 * blots - 1))

    normal = (hits.normal @ R_wc.mT).reshape(-1, 3)
    ambient = scene.ambient[world_of]
    light = torch.lerp(ambient[:, 0], ambient[:, 1], 0.5 + 0.5 * normal[:, 2:])
    if occlusion:
        light = light * _openness(view, hits, position)
    towards_eye = -torch.nn.functional.normalize(directions @ R_wc.mT, dim=-1).reshape(-1, 3)
    highlight = torch.zeros_like(light)
    start = position + hits.normal * _LIFT
    sources: list[tuple[torch.Tensor, torch.Tensor]] = []
    if scene.sunny:
        sources.append((scene.sun[view.world, None].expand(cameras, count, 3) * 1e3, scene.sun_colour[world_of]))
    for lamp in range(scene.lamp_position.shape[1]):
        to_lamp = scene.lamp_position[view.world, None, lamp] - position_world
        squared = (to_lamp * to_lamp).sum(-1).reshape(-1, 1)
        sources.append((to_lamp, scene.lamp_colour[world_of, lamp] / (squared + 0.3)))
    for towards, colour in sources:
        unit = torch.nn.functional.normalize(towards, dim=-1).reshape(-1, 3)
        cosine = (unit * normal).sum(-1, keepdim=True).clamp(min=0)
        if shadows:
            lit = ~blocked(view, start, towards @ R_wc)
            cosine = cosine * lit.reshape(-1, 1)
        light = light + cosine * colour
        middle = torch.nn.functional.normalize(unit + towards_eye, dim=-1)
        highlight = highlight + colour * (cosine > 0) * (middle * normal).sum(-1, keepdim=True).clamp(min=0) ** 40
    colour = albedo * torch.lerp(light, torch.ones_like(light), emission) + gloss * highlight
    if not scene.open_sky:
        colour = colour * seen.reshape(-1, 1)
    else:
        world_directions = (directions @ R_wc.mT).reshape(-1, 3)
        colour = torch.where(seen.reshape(-1, 1), colour, _sky(view, world_directions, world_of))
    colour = colour.view(cameras, count, 3)
    if bounces and scene.specular:
        for share, reflecting in ((mirror, True), (glass, False)):
            share = share.view(cameras, count) * seen
            colour = _through(view, directions, position, hits, colour, share, reflecting, shadows, occlusion, bounces)
    return colour


def _through(view, directions, position, hits, colour, share, reflecting, shadows, occlusion, bounces) -> torch.Tensor:
    """colour (G, R, 3) mixed with what mirrors reflect or glass lets pass, of which there is ``share`` (G, R)."""
    special = share > 0
    which = special.any(1).nonzero()[:, 0]
    if not len(which):
        return colour
    # Only these rays of these cameras, padded to the largest number in one camera.
    most = int(special.sum(1).max())
    order = special[which].to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]

    def take(values: torch.Tensor) -> torch.Tensor:
        return values[which].gather(1, order[..., None].expand(*order.shape, values.shape[-1]))

    onward, normal = take(directions), take(hits.normal)
    if reflecting:
        onward = onward - 2 * (onward * normal).sum(-1, keepdim=True) * normal
    start = take(position) + normal * (_LIFT if reflecting else -_LIFT)
    behind = view.select(which)
    beyond = trace(behind, onward, origins=start)
    arriving = _radiance(behind, onward, start, beyond, shadows, occlusion, bounces - 1)
    mixed = torch.lerp(take(colour), arriving, take(share[..., None]))
    colour = colour.clone()
    colour[which[:, None], order] = mixed
    return colour


def _openness(view: SceneCameras, hits: Hits, position: torch.Tensor) -> torch.Tensor:
    """(N, 1) share of the sky dome a point sees, from distances to surfaces along its normal (Evans 2006)."""
    reaches = (0.06, 0.2, 0.5)
    probes = torch.cat([position + reach * hits.normal for reach in reaches], 1)
    dark = torch.zeros(hits.primitive.shape, device=position.device)
    for step, (reach, room) in enumerate(zip(reaches, _distance(view, probes).chunk(3, 1), strict=True)):
        dark += (reach - room).clamp(min=0) / reach * (0.5**step) * 0.7
    return (1 - dark).clamp(min=0.25).reshape(-1, 1)


def _distance(view: SceneCameras, points: torch.Tensor) -> torch.Tensor:
    """Distance (G, R) from optical-frame points (G, R, 3) to the nearest surface, approximate for ellipsoids."""
    scene = view.scene
    half, hollow = scene.half.float()[view.world], scene.hollow[view.world]
    result = torch.full(points.shape[:-1], torch.inf, device=points.device)
    for row in range(half.shape[1]):
        affine = view.unit_camera[:, row]
        local = points @ affine[..., :3].mT + affine[:, None, :, 3]
        size = half[:, None, row]
        if row < scene.split[0]:
            excess = (local.abs() - 1) * size
        elif row < scene.split[0] + scene.split[1]:
            excess = ((local.norm(dim=-1, keepdim=True) - 1) * size.amin(-1, keepdim=True)).expand(*local.shape)
        else:
            side = (local[..., :2].norm(dim=-1, keepdim=True) - 1) * size[..., :1]
            excess = torch.cat([side, (local[..., 2:].abs() - 1) * size[..., 2:]], -1)
        signed = excess.clamp(min=0).norm(dim=-1) + excess.amax(-1).clamp(max=0)
        if row >= scene.split[0]:
            signed = torch.where(excess.amax(-1) > 0, excess.amax(-1), signed)
        signed = torch.where(hollow[:, None, row], -signed, signed)
        result = torch.minimum(result, signed)
    return result
