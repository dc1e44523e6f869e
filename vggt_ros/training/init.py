"""Initial weights of a small VGGT that is trained from nothing. The keys and shapes are those of every VGGT.

The published initialisation (LayerScale 0.01, tokens of 1e-6, matrices of 0.02) supposes a pretrained backbone and
weeks on many GPUs: with it a small network stays a patch-wise linear map for its first ten thousand steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vggt_ros.network import VGGT
from vggt_ros.network.layers import Block, Mlp

# Size of the camera and register tokens against patch tokens of about 1: the roles first/other must survive in the
# residual stream.
_TOKEN = 0.5
_FOV = 1.1  # radians, the middle of what cameras have
_LOG_DEPTH = -0.2  # the median of normalised depth is below the mean distance of 1
_LOG_CONFIDENCE = -1.0  # confidence 1.4
# Heads begin as constants: their last layers are so much smaller than fan-in would have it.
_TIMID = 0.1


@torch.no_grad()
def initialise(network: VGGT, seed: int) -> None:
    """Overwrite all weights of a network with a ``conv`` patch embedding; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        branches = 4 * len(network.aggregator.frame_blocks)
        for module in network.modules():
            if isinstance(module, Block):
                # Residual branches of depth L add up to the size of the stream (GPT-2's rule), so LayerScale can be 1.
                module.attn.proj.weight *= branches**-0.5
                module.mlp.fc2.weight *= branches**-0.5
                nn.init.ones_(module.ls1.gamma)
                nn.init.ones_(module.ls2.gamma)
        for token in (network.aggregator.camera_token, network.aggregator.register_token):
            nn.init.normal_(token, std=_TOKEN)
        if network.camera_head is not None:
            out = network.camera_head.pose_branch.fc2
            out.weight *= _TIMID
            # All rounds begin alike and their results add up: round k says k times this.
            out.bias.copy_(torch.tensor([0, 0, 0, 0, 0, 0, 1, _FOV, _FOV]) / 3)
        for head, value in ((network.depth_head, _LOG_DEPTH), (network.point_head, 0.0)):
            if head is not None:
                last = head.scratch.output_conv2[2]
                last.weight *= _TIMID
                nn.init.constant_(last.bias, value)
                last.bias[-1] = _LOG_CONFIDENCE
        if network.track_head is not None:
            former = network.track_head.tracker.updateformer
            former.flow_head.weight *= _TIMID
            for module in former.modules():
                if isinstance(module, Mlp):
                    module.fc2.weight *= (2 * len(former.time_blocks)) ** -0.5


@torch.no_grad()
def whiten(network: VGGT, images: Tensor) -> float:
    """Let the patch embedding begin with the principal components of patches, each of about unit variance.

    Natural patches are nearly flat: under random filters every token is mostly its patch's mean colour, and what
    matching needs, the fine structure, is faint. (As the first layer of fast CIFAR-10 training, arXiv 2404.00498.)
    images: (F, 3, H, W) in [0, 1]. Returns the share of the patches' variance that the tokens keep.
    """
    aggregator = network.aggregator
    proj = aggregator.patch_embed.proj
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=images.device)[:, None, None]
    side = proj.kernel_size[0]
    patches = nn.functional.unfold((images - mean) / std, side, stride=side).mT.flatten(0, 1).double()
    centre = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - centre).mT @ (patches - centre) / len(patches))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    count = min(len(proj.weight), values.numel())
    # Components fainter than the last one kept would be noise blown up to the size of a signal.
    gain = (values[:count] + values[count - 1] + 1e-6) ** -0.5
    filters = (vectors[:, :count] * gain).mT
    # eigh leaves the sign open.
    filters = filters * filters.sum(1, keepdim=True).sign()
    # Mixed by a random rotation, so that no channel, and after LayerNorm no head, is the mean colour alone.
    generator = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(count, count, generator=generator, dtype=torch.float64)).Q.to(filters.device)
    filters = mix @ filters
    proj.weight.zero_()
    proj.bias.zero_()
    proj.weight[:count] = filters.unflatten(1, proj.weight.shape[1:]).to(proj.weight.dtype)
    proj.bias[:count] = (-filters @ centre).to(proj.bias.dtype)
    return float(values[:count].sum() / values.sum())


def parameters_by_part(network: VGGT) -> dict[str, int]:
    """Number of parameters of the aggregator and of each head."""
    counts = {}
    for name, module in network.named_children():
        counts[name] = sum(parameter.numel() for parameter in module.parameters())
    assert math.prod(counts.values()) > 0
    return counts
