"""Which network a name stands for: the embedded one, a file, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vggt_ros.network import HEADS, VGGT, VGGTConfig, checkpoint

# Small enough for any CPU. Until it is trained its outputs mean nothing, and everything that shows them says so.
EMBEDDED = VGGTConfig(
    img_size=224,
    embed_dim=192,
    depth=6,
    num_heads=6,
    patch_embed='conv',
    intermediate_layers=(1, 2, 4, 5),
    camera_trunk_depth=2,
    camera_num_heads=6,
    dpt_features=64,
    dpt_out_channels=(32, 64, 96, 96),
    track_features=32,
    track_hidden_size=128,
    track_corr_levels=4,
    track_corr_radius=3,
)
UNTRAINED = 'untrained embedded network'


def load(name: str, device: str | torch.device = 'cpu', heads: Sequence[str] = HEADS) -> tuple[VGGT, str]:
    """The network and what to call it. name: '' for the embedded one, else a checkpoint file or hub id.

    Raises CheckpointError with the reason.
    """
    if name:
        return checkpoint.load(name, device=device, heads=heads), name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = VGGT(EMBEDDED, heads)
        # A pose head of pure noise may see no field of view at all; the middle of what cameras have is a neutral guess:
        # about 1 rad, the sum of the head's four refinements.
        network.get_parameter('camera_head.pose_branch.fc2.bias').data[7:] = 0.25
    return network.to(device), UNTRAINED
