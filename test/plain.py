"""VGGT the plain way: what the network computes cleverly, spelled out wastefully from the same weights.

Also the deterministic weights and inputs of the golden vectors in ``golden/``.
"""

import math
import zlib

import torch
import torch.nn.functional as F

# The tensors of the tests are so small that more threads only wait for each other: five times slower on a busy machine.
torch.set_num_threads(1)


@torch.no_grad()
def fill(network):
    """Overwrite every tensor of the state dict by noise seeded with the CRC-32 of its key; returns the network."""
    for key, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith('gamma'):
            value = 0.1 * (1 + 0.5 * noise)
        elif 'token' in key.rsplit('.', 1)[-1] or key.endswith('pos_embed'):
            value = 0.1 * noise
        elif tensor.ndim >= 2:
            value = noise / tensor[0].numel() ** 0.5
        elif key.endswith('weight'):
            value = 1 + 0.1 * noise
        else:
            value = 0.05 * noise
        tensor.copy_(value)
    return network


def images(frames, height, width, seed=0):
    """Smooth random images (frames, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 3, height // 7, width // 7, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode='bilinear', align_corners=False)
    return 0.8 * smooth + 0.2 * torch.rand(frames, 3, height, width, generator=generator)


def queries(count, height, width, seed=1):
    """Random points (count, 2) as (x, y) in pixels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])


@torch.no_grad()
def forward(network, images, query_points=None, track_iterations=1):
    """All outputs of one window of images (S, 3, H, W), with a batch dimension; nothing cached, nothing left out."""
    grid = images.shape[2] // network.config.patch_size, images.shape[3] // network.config.patch_size
    layers = tokens(network, images)
    maps = [layers[layer][:, 5:] for layer in network.config.intermediate_layers]
    output = {'pose_enc_list': network.camera_head(layers[-1][None, :, 0])}
    output['pose_enc'] = output['pose_enc_list'][-1]
    depth = dpt(network.depth_head, maps, grid)
    output['depth'], output['depth_conf'] = depth[:, :1].exp().permute(0, 2, 3, 1)[None], 1 + depth[:, 1].exp()[None]
    points = dpt(network.point_head, maps, grid)
    output['world_points'] = (points[:, :3].sign() * points[:, :3].abs().expm1()).permute(0, 2, 3, 1)[None]
    output['world_points_conf'] = 1 + points[:, 3].exp()[None]
    if query_points is not None:
        features = dpt(network.track_head.feature_extractor, maps, grid)
        places, visibility, confidence = track(network.track_head.tracker, features, query_points, track_iterations)
        output.update(track=places[None], vis=visibility[None], conf=confidence[None])
    return output


@torch.no_grad()
def tokens(network, images):
    """Tokens (S, P, 2C) of every layer."""
    aggregator = network.aggregator
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = backbone(aggregator.patch_embed, (images - mean[:, None, None]) / std[:, None, None])
    role = torch.tensor([0] + [1] * (len(x) - 1))
    x = torch.cat([aggregator.camera_token[0, role], aggregator.register_token[0, role], x], dim=1)
    rows, columns = (side // network.config.patch_size for side in images.shape[2:])
    places = torch.tensor([(0, 0)] * 5 + [(y, x) for y in range(1, rows + 1) for x in range(1, columns + 1)])
    layers = []
    for frame_block, global_block in zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True):
        local = block(frame_block, x, places)
        x = block(global_block, local.flatten(0, 1)[None], places.repeat(len(x), 1))[0].unflatten(0, (len(x), -1))
        layers.append(torch.cat([local, x], dim=-1))
    return layers


def stem(embed, images):
    """The convolutional stem: two convolutions, patches, and each patch's place as sines and cosines."""
    x = images
    for conv, norm in ((embed.conv1, embed.norm1), (embed.conv2, embed.norm2)):
        x = F.conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=1)
        x = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], norm.weight, norm.bias).permute(0, 3, 1, 2)
        x = F.gelu(x)
    x = F.conv2d(x, embed.proj.weight, embed.proj.bias, stride=embed.proj.stride)
    (rows, columns), quarter = x.shape[2:], x.shape[1] // 4
    for row in range(rows):
        for column in range(columns):
            for axis, (place, count) in enumerate(((column, columns), (row, rows))):
                place = (place + 0.5 - count / 2) / max(rows, columns)
                for wave in range(quarter):
                    angle = math.pi * 2 ** (5 * wave / quarter) * place
                    x[:, 2 * axis * quarter + wave, row, column] += math.sin(angle)
                    x[:, (2 * axis + 1) * quarter + wave, row, column] += math.cos(angle)
    return x.flatten(2).transpose(1, 2)


def backbone(embed, images):
    """Normalised images -> patch tokens."""
    if hasattr(embed, 'conv1'):
        return stem(embed, images)
    if not hasattr(embed, 'blocks'):
        return embed.proj(images).flatten(2).transpose(1, 2)
    patches = embed.patch_embed.proj(images)
    table = embed.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=patches.shape[2:], mode='bicubic', antialias=True)
    first = (embed.cls_token + embed.pos_embed[:, :1]).expand(len(images), -1, -1)
    registers = embed.register_tokens.expand(len(images), -1, -1)
    x = torch.cat([first, registers, (patches + table).flatten(2).transpose(1, 2)], dim=1)
    for layer in embed.blocks:
        x = block(layer, x)
    return embed.norm(x)[:, 5:]


def block(layer, x, places=None):
    """A transformer block on (B, L, C) with its softmax written out; places (L, 2) as (y, x) turn on RoPE."""
    heads = layer.attn.heads
    q, k, v = layer.attn.qkv(layer.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = (norm(t) for norm, t in ((layer.attn.q_norm, q), (layer.attn.k_norm, k)))
    if places is not None:
        q, k = rotate(q, places), rotate(k, places)
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    x = x + layer.ls1.gamma * layer.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return x + layer.ls2.gamma * layer.mlp(layer.norm2(x))


def rotate(x, places):
    """RoPE as multiplication by complex numbers: y turns the first half of the channels, x the second."""
    quarter = x.shape[-1] // 4
    angle = places[..., None] * 100.0 ** (-torch.arange(quarter) / quarter)  # (L, 2, quarter)
    pairs = x.unflatten(-1, (2, 2, quarter)).movedim(-2, -1).contiguous()
    turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.polar(torch.ones_like(angle), angle))
    return turned.movedim(-1, -2).flatten(-3)


def dpt(head, layers, grid):
    """Four tensors (S, N, 2C) -> maps (S, channels, h, w)."""
    aspect = grid[1] / grid[0]

    def place(x):
        return x + 0.1 * uv_embedding(x.shape[1], x.shape[2:], aspect) if head.positions else x

    maps = []
    for layer, project, resize in zip(layers, head.projects, head.resize_layers, strict=True):
        x = head.norm(layer).transpose(1, 2).unflatten(2, grid)
        maps.append(resize(place(F.conv2d(x, project.weight, project.bias))))
    scratch = head.scratch
    one, two, three, four = (getattr(scratch, f'layer{i}_rn')(x) for i, x in enumerate(maps, start=1))
    x = fuse(scratch.refinenet4, four, None, three.shape[2:])
    x = fuse(scratch.refinenet3, x, three, two.shape[2:])
    x = fuse(scratch.refinenet2, x, two, one.shape[2:])
    x = fuse(scratch.refinenet1, x, one, [2 * side for side in one.shape[2:]])
    size = [side * head.patch_size // head.down_ratio for side in grid]
    x = place(F.interpolate(scratch.output_conv1(x), size=size, mode='bilinear', align_corners=True))
    return scratch.output_conv2(x) if hasattr(scratch, 'output_conv2') else x


def fuse(layer, x, skip, size):
    """Interpolation before the 1x1 convolution; the residual is rectified."""
    if skip is not None:
        x = x + residual(layer.resConfUnit1, skip)
    x = residual(layer.resConfUnit2, x)
    return layer.out_conv(F.interpolate(x, size=list(size), mode='bilinear', align_corners=True))


def residual(unit, x):
    return x.relu() + unit.conv2(unit.conv1(x.relu()).relu())


def uv_embedding(channels, size, aspect):
    """Position embedding (channels, h, w) of every pixel."""
    height, width = size
    diagonal = math.hypot(aspect, 1)
    y = torch.linspace(-1, 1, height, dtype=torch.float64) * (height - 1) / height / diagonal
    x = torch.linspace(-1, 1, width, dtype=torch.float64) * (width - 1) / width * aspect / diagonal
    y, x = torch.meshgrid(y, x, indexing='ij')
    quarter = channels // 4
    frequency = (100.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter))[:, None, None]
    return torch.cat(
        [(frequency * a).sin() if i == 0 else (frequency * a).cos() for a in (x, y) for i in (0, 1)]
    ).float()


def bilinear(maps, coords, padding):
    """Samples of maps (B, C, h, w) at coords (B, ..., 2) in pixels -> (B, C, ...); an axis of one pixel reads that."""
    scale = torch.tensor([2 / max(side - 1, 1) for side in (maps.shape[3], maps.shape[2])])
    grid = (coords * scale - 1).flatten(1, -2)[:, None]
    samples = F.grid_sample(maps, grid, mode='bilinear', padding_mode=padding, align_corners=True)
    return samples[:, :, 0].unflatten(2, coords.shape[1:-1])


def correlate(features, maps, coords, levels, radius):
    """The whole correlation volume of features (S, Q, C) and maps (S, C, h, w), sampled around coords (S, Q, 2)."""
    offset = torch.arange(-radius, radius + 1.0)
    window = torch.stack(torch.meshgrid(offset, offset, indexing='ij'), dim=-1)  # x offset first
    result = []
    for level in range(levels):
        volume = torch.einsum('sqc,schw->sqhw', features, maps) / features.shape[-1] ** 0.5
        around = coords[:, :, None, None] / 2**level + window
        samples = bilinear(volume.flatten(0, 1)[:, None], around.flatten(0, 1), 'zeros')
        result.append(samples.view(*features.shape[:2], -1))
        if level + 1 < levels:
            maps = F.avg_pool2d(maps, 2)
    return torch.cat(result, dim=-1)


def grid_embedding(channels, size):
    """Sine-cosine embedding (channels, h, w) of pixel coordinates, x half before y half."""
    frequency = 10000.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    axes = [torch.arange(side, dtype=torch.float64)[:, None] * frequency for side in size]
    y, x = (torch.cat([a.sin(), a.cos()], dim=1) for a in axes)
    y, x = y[:, None].expand(-1, size[1], -1), x[None].expand(size[0], -1, -1)
    return torch.cat([x, y], dim=-1).permute(2, 0, 1).float()


@torch.no_grad()
def track(tracker, maps, query_points, iterations):
    """Feature maps (S, C, h, w), queries (Q, 2) in image pixels -> tracks (S, Q, 2), visibility, confidence (S, Q)."""
    frames, channels, *size = maps.shape
    maps = tracker.fmap_norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    start = query_points / 2
    features = bilinear(maps[:1], start[None], 'border')[0].T.expand(frames, -1, -1)
    position = bilinear(grid_embedding(3 * channels + 4, size)[None], start[None], 'border')[0].T
    role = tracker.query_ref_token[0, [0] + [1] * (frames - 1)]
    coords = start.expand(frames, -1, -1)
    frequency = torch.arange(0, channels // 2, 2) * 1000 / (channels // 2)
    for _ in range(iterations):
        correlation = tracker.corr_mlp(correlate(features, maps, coords, tracker.levels, tracker.radius))
        flow = coords - start
        waves = torch.zeros(frames, len(start), channels)
        for axis in (0, 1):
            angle = flow[..., axis, None] * frequency
            waves[..., axis * channels // 2 : (axis + 1) * channels // 2 : 2] = angle.sin()
            waves[..., axis * channels // 2 + 1 : (axis + 1) * channels // 2 : 2] = angle.cos()
        x = torch.cat([waves, flow / 518, flow / 518, correlation, features], dim=-1)
        delta = tracker.updateformer((x + position + role[:, None])[None])[0]
        features = features + tracker.ffeat_updater(tracker.ffeat_norm(delta[..., 2:].flatten(0, 1))).view_as(features)
        coords = torch.cat([start[None], (coords + delta[..., :2])[1:]])
    visibility, confidence = tracker.vis_predictor(features), tracker.conf_predictor(features)
    return coords * 2, visibility[..., 0].sigmoid(), confidence[..., 0].sigmoid()
