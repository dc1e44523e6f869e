"""Initial weights of a small VGGT that is trained from nothing. The keys and shapes are those of every VGGT.

The published initialisation (LayerScale 0.01, tokens of 1e-6, matrices of 0.02) supposes a pretrained backbone and
weeks on many GPUs: with it a small network stays a patch-wise linear map for its first ten thousand steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vggt_ros.network import VGGT, VGGTConfig
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
def fresh_network(config: VGGTConfig, heads: Sequence[str], seed: int) -> VGGT:
    """A network to be trained from nothing; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VGGT(config, heads)
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
                last: Any = head.scratch.output_conv2[2]
                last.weight *= _TIMID
                nn.init.constant_(last.bias, value)
                last.bias[-1] = _LOG_CONFIDENCE
        if network.track_head is not None:
            former = network.track_head.tracker.updateformer
            former.flow_head.weight *= _TIMID
            for module in former.modules():
                if isinstance(module, Mlp):
                    module.fc2.weight *= (2 * len(former.time_blocks)) ** -0.5
    return network
