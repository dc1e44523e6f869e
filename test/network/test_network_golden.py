"""The network against outputs of the published code on deterministic weights (see golden/)."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import plain
from vggt_ros.network import VGGT, VGGTConfig

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture(scope='module', params=['small_dinov2', 'small_conv_portrait'])
def case(request):
    """(golden arrays, what our network says) of one small network."""
    golden = dict(np.load(GOLDEN / f'{request.param}.npz'))
    meta = json.loads(str(golden.pop('meta')))
    network = plain.fill(VGGT(VGGTConfig.from_dict(meta['config']))).eval()
    images = plain.images(meta['frames'], meta['height'], meta['width'])
    queries = plain.queries(meta['queries'], meta['height'], meta['width'])
    last = {}
    blocks = network.aggregator.frame_blocks[-1], network.aggregator.global_blocks[-1]
    for name, block in zip(('frame', 'global'), blocks, strict=True):
        block.register_forward_hook(lambda _, __, output, name=name: last.update({name: output}))
    with torch.inference_mode():
        output = network(images, queries, track_iterations=1)
        patch_tokens = network.embed(images)
    output['pose_enc_iterations'] = torch.stack(output['pose_enc_list'])
    output['patch_tokens'] = patch_tokens[:, :: max(1, patch_tokens.shape[1] // 16)]
    last = torch.cat([last['frame'].flatten(0, -3), last['global'].view(last['frame'].shape)], dim=-1)
    output['last_tokens'] = last[None, :, :6]
    return golden, {name: output[name.removesuffix('_1')].numpy() for name in golden}


ARRAYS = [
    *('pose_enc', 'pose_enc_iterations', 'depth', 'depth_conf', 'world_points', 'world_points_conf'),
    *('track_1', 'vis_1', 'conf_1', 'patch_tokens', 'last_tokens'),
]


@pytest.mark.parametrize('name', ARRAYS)
def test_golden(case, name):
    golden, ours = case[0][name].astype(np.float64), case[1][name].astype(np.float64)
    assert ours.shape == golden.shape
    assert np.linalg.norm(ours - golden) < 1e-5 * np.linalg.norm(golden)


def test_golden_tracks_in_pixels(case):
    assert np.abs(case[1]['track_1'] - case[0]['track_1']).max() < 1e-3


def test_every_golden_array_is_compared(case):
    assert sorted(case[0]) == sorted(ARRAYS)


def published_keys():
    """The shape of every tensor of VGGT-1B; ``{24}`` in the list stands for 0 to 23."""
    shapes = {}
    for line in (GOLDEN / 'vggt_1b_keys.tsv').read_text().splitlines():
        key, shape = line.split('\t')
        count = re.search(r'\{(\d+)\}', key)
        for index in range(int(count[1]) if count else 1):
            shapes[re.sub(r'\{\d+\}', str(index), key)] = tuple(map(int, shape.split('x')))
    return shapes


def test_vggt_1b_has_the_published_keys_and_shapes():
    with torch.device('meta'):
        network = VGGT()
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == published_keys()
    assert len(network.state_dict()) == 1797
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_256_537_516


def test_heads_left_out_leave_only_their_own_keys_out():
    with torch.device('meta'):
        network = VGGT(heads=('camera', 'depth'))
    left = {key for key in published_keys() if not key.startswith(('point_head.', 'track_head.'))}
    assert set(network.state_dict()) == left
