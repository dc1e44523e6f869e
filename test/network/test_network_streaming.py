"""Every saving of the network is exact: each is compared with the plain computation from the same weights."""

import copy

import pytest
import torch

import plain
from vggt_ros.network import VGGT, ConfigError, VGGTConfig
from vggt_ros.network.camera_head import CameraHead
from vggt_ros.network.config import SPECIAL_TOKENS
from vggt_ros.network.correlation import correlate, pyramid
from vggt_ros.network.layers import rope_table
from vggt_ros.network.track_head import position_embedding, sample

SMALL = VGGTConfig(
    img_size=112,
    embed_dim=96,
    depth=4,
    num_heads=4,
    patch_embed='stem',
    intermediate_layers=(0, 1, 2, 3),
    camera_trunk_depth=1,
    camera_num_heads=4,
    dpt_features=16,
    dpt_out_channels=(8, 16, 24, 24),
    track_features=16,
    track_hidden_size=32,
    track_corr_levels=4,
    track_corr_radius=3,
)
BACKBONE = VGGTConfig(
    embed_dim=384,
    depth=4,
    num_heads=6,
    patch_embed='dinov2_vits14_reg',
    intermediate_layers=(0, 1, 2, 3),
    camera_trunk_depth=1,
)
FRAMES, SIZE = 5, (84, 112)
GRID = (6, 8)


@pytest.fixture(scope='module', params=[False, True], ids=['', 'track_position_embedding'])
def network(request):
    values = {**SMALL.__dict__, 'track_position_embedding': request.param}
    return plain.fill(VGGT(VGGTConfig.from_dict(values))).eval().requires_grad_(False)


@pytest.fixture(scope='module')
def images():
    return plain.images(FRAMES, *SIZE)


@pytest.fixture(scope='module')
def queries():
    return plain.queries(11, *SIZE)


@pytest.fixture(scope='module')
def expected(network, images, queries):
    """The plain forward pass."""
    return plain.forward(network, images, queries)


@pytest.fixture(scope='module')
def entered(network, images):
    """What a sliding window keeps: each frame embedded and entered by itself, in its own call."""
    tokens = [network.embed(image[None]) for image in images]
    return torch.cat([network.enter(token, slot == 0, SIZE) for slot, token in enumerate(tokens)])


def assert_close(ours, plain, tolerance=1e-5):
    assert ours.shape == plain.shape
    assert (ours - plain).norm() < tolerance * plain.norm()


def rows_of(block):
    """Hook: the numbers of tokens for which this block computes an output."""
    rows = []
    block.register_forward_hook(lambda _, __, output: rows.append(output.shape[1]))
    return rows


def test_forward_equals_the_plain_computation(network, images, queries, expected):
    output = network(images, queries, track_iterations=1)
    for name in ('pose_enc', 'depth', 'depth_conf', 'world_points', 'world_points_conf', 'vis', 'conf'):
        assert_close(output[name], expected[name])
    assert (output['track'] - expected['track']).abs().max() < 1e-3
    for ours, plain_encoding in zip(output['pose_enc_list'], expected['pose_enc_list'], strict=True):
        assert_close(ours, plain_encoding)
    assert torch.equal(output['images'][0], images)


def test_a_window_of_frames_entered_one_by_one_equals_the_plain_computation(network, entered, queries, expected):
    output = network.decode(entered, SIZE, point_frames=None, query_points=queries, track_iterations=1)
    for name in ('pose_enc', 'depth', 'depth_conf', 'world_points', 'world_points_conf', 'vis', 'conf'):
        assert_close(output[name], expected[name])
    assert (output['track'] - expected['track']).abs().max() < 1e-3


def test_a_frame_enters_differently_as_first(network, images):
    tokens = network.embed(images[:1])
    assert not torch.allclose(network.enter(tokens, True, SIZE), network.enter(tokens, False, SIZE), atol=1e-3)


@pytest.mark.parametrize('slots', [[4], [3, 1], [0, 1, 2, 3, 4]])
def test_depth_of_some_frames(network, entered, expected, slots):
    output = network.decode(entered, SIZE, depth_frames=slots)
    assert_close(output['depth'], expected['depth'][:, slots])
    assert_close(output['depth_conf'], expected['depth_conf'][:, slots])
    assert_close(output['pose_enc'], expected['pose_enc'])
    assert set(output) == {'pose_enc', 'pose_enc_list', 'depth', 'depth_conf'}  # no points unless asked for


def test_depth_and_points_of_different_frames(network, entered, expected):
    output = network.decode(entered, SIZE, depth_frames=[4, 2], point_frames=[0, 2])
    assert_close(output['depth'], expected['depth'][:, [4, 2]])
    assert_close(output['world_points'], expected['world_points'][:, [0, 2]])


def test_tracks_without_depth(network, entered, queries, expected):
    output = network.decode(entered, SIZE, depth_frames=[], query_points=queries, track_iterations=1)
    assert (output['track'] - expected['track']).abs().max() < 1e-3
    assert 'depth' not in output


@pytest.mark.parametrize(('slots', 'rows'), [([], FRAMES), ([4], FRAMES + 48), ([1, 3], FRAMES + 2 * 48)])
def test_the_last_global_block_computes_only_what_is_read(network, entered, expected, slots, rows):
    network = copy.deepcopy(network)
    computed = rows_of(network.aggregator.global_blocks[-1])
    before = rows_of(network.aggregator.global_blocks[-2])
    output = network.decode(entered, SIZE, depth_frames=slots)
    assert computed == [rows]
    assert before == [FRAMES * (SPECIAL_TOKENS + 48)]
    assert_close(output['pose_enc'], expected['pose_enc'])


def test_order_of_other_frames_only_orders_the_output(network, images, expected):
    order = [0, 3, 1, 4, 2]
    output = network(images[order])
    for name in ('pose_enc', 'depth', 'world_points'):
        assert_close(output[name], expected[name][:, order])


def test_batch_equals_windows_one_by_one(network, images, queries):
    pair = torch.stack([images[:3], images[2:]])
    points = torch.stack([queries, queries.flip(0)])
    output = network(pair, points, track_iterations=1)
    for row in range(2):
        alone = network(pair[row], points[row], track_iterations=1)
        for name in ('pose_enc', 'depth', 'world_points', 'track', 'vis'):
            assert_close(output[name][row : row + 1], alone[name])


def test_one_frame_is_a_window(network, images, queries):
    expected = plain.forward(network, images[:1], queries)
    output = network(images[:1], queries, track_iterations=1)
    assert_close(output['depth'], expected['depth'])
    assert torch.allclose(output['track'][0, 0], queries, atol=1e-4)


def test_more_frames_than_a_dense_head_takes_at_once(network):
    images = plain.images(10, 70, 70)
    assert_close(network(images)['depth'], plain.forward(network, images)['depth'])


@pytest.mark.parametrize('grid', [(6, 8), (8, 6), (1, 5)])
def test_rope_table_against_complex_rotation(grid):
    rope = rope_table(grid, SPECIAL_TOKENS, 24, torch.device('cpu'))
    assert rope is rope_table(grid, SPECIAL_TOKENS, 24, torch.device('cpu'))
    places = [(0, 0)] * SPECIAL_TOKENS + [(y + 1, x + 1) for y in range(grid[0]) for x in range(grid[1])]
    x = torch.randn(2, 3 * len(places), 4, 24)  # three frames share the table
    rotated = plain.rotate(x.transpose(1, 2), torch.tensor(places * 3)).transpose(1, 2)
    assert torch.allclose(rope(x), rotated, atol=1e-5)
    assert torch.allclose(rope(x)[:, :SPECIAL_TOKENS], x[:, :SPECIAL_TOKENS])


def test_camera_head_shares_the_first_condition_among_frames():
    head = plain.fill(CameraHead(SMALL)).eval()
    seen = []
    head.poseLN_modulation.register_forward_hook(lambda _, __, output: seen.append(output.shape[1]))
    head(torch.randn(1, FRAMES, 2 * SMALL.embed_dim))
    assert seen == [1, FRAMES, FRAMES, FRAMES]


@pytest.mark.parametrize('levels', [4, 7])
@pytest.mark.parametrize('size', [(70, 97), (64, 64)])  # 7 levels end in 1 x 1 pixel
def test_correlation_on_the_lattice_equals_the_whole_volume(levels, size):
    torch.manual_seed(0)
    maps, features = torch.randn(3, 16, *size), torch.randn(3, 40, 16)
    # Well inside, at the border, outside and far away.
    coords = torch.rand(3, 40, 2) * torch.tensor([size[1], size[0]]) * 1.4 - 10
    coords[0, :4] = torch.tensor([[0.0, 0.0], [size[1] - 1.0, size[0] - 1.0], [-300.0, 5.5], [1e5, -1e5]])
    ours = correlate(features, pyramid(maps.permute(0, 2, 3, 1), levels), coords, 4)
    volume = plain.correlate(features, maps, coords, levels, 4)
    assert ours.shape == (3, 40, levels * 81)
    assert (ours - volume)[:, 4:].abs().max() < 1e-3  # the plain one loses digits when it scales to [-1, 1]
    assert (ours - volume)[0, :4].abs().max() < 1e-3
    assert (
        ours.double() - plain.correlate(*(t.double() for t in (features, maps, coords)), levels, 4)
    ).abs().max() < 1e-4


def test_correlation_survives_coordinates_that_are_no_numbers():
    coords = torch.tensor([[[float('nan'), 3.0], [float('inf'), float('-inf')], [4.0, 4.0]]])
    result = correlate(torch.ones(1, 3, 4), [torch.ones(1, 70, 70, 4)], coords, 4)
    assert torch.allclose(result[0, 1], torch.zeros(81))
    assert torch.allclose(result[0, 2], torch.full((81,), 2.0))


def test_samples_and_positions_equal_those_of_the_whole_grid():
    size = (9, 13)
    coords = torch.cat([plain.queries(50, *size), torch.tensor([[0.0, 0.0], [12.0, 8.0], [-3.0, 20.0], [12.5, 4.0]])])
    maps = torch.randn(1, 6, *size)
    ours = sample(maps.permute(0, 2, 3, 1), coords[None])
    assert torch.allclose(ours, plain.bilinear(maps, coords[None], 'border').transpose(1, 2), atol=1e-5)
    ours = position_embedding(coords[None], 52, size)
    table = plain.grid_embedding(52, size)[None]
    assert torch.allclose(ours, plain.bilinear(table, coords[None], 'border').transpose(1, 2), atol=1e-5)


@pytest.fixture(scope='module')
def backbone():
    with torch.device('meta'):
        network = VGGT(BACKBONE, heads=()).aggregator.patch_embed
    return plain.fill(network.to_empty(device='cpu')).eval().requires_grad_(False)


@pytest.mark.parametrize('size', [(42, 56), (56, 42)])
def test_backbone_with_cached_positions(backbone, size):
    images = plain.images(3, *size)
    expected = plain.backbone(backbone, images)
    assert_close(backbone(images), expected)
    assert_close(backbone(images), expected)  # the cached positions
    assert_close(torch.cat([backbone(image[None]) for image in images]), expected)


def test_cached_positions_follow_the_weights(backbone):
    images = plain.images(1, 42, 56)
    before = backbone(images)
    changed = copy.deepcopy(backbone)
    state = changed.state_dict()
    state['pos_embed'] = state['pos_embed'].flip(1)
    changed.load_state_dict(state)
    assert_close(changed(images), plain.backbone(changed, images))
    assert not torch.allclose(changed(images), before, atol=1e-2)
    changed.load_state_dict(copy.deepcopy(backbone.state_dict()), assign=True)
    assert_close(changed(images), before)
    changed.pos_embed.add_(1.0)
    assert_close(changed(images), plain.backbone(changed, images))


def test_backbone_uses_its_positions_as_they_are_at_the_trained_size():
    config = VGGTConfig.from_dict({**BACKBONE.__dict__, 'img_size': 56})
    backbone = VGGT(config, heads=()).aggregator.patch_embed
    assert backbone._positions((4, 4)).data_ptr() == backbone.pos_embed[:, 1:].data_ptr()


def test_caches_filled_in_inference_mode_serve_training():
    images, queries = plain.images(2, 98, 70), plain.queries(5, 98, 70)
    network = VGGT(SMALL)
    with torch.inference_mode():
        network(images, queries, track_iterations=1)
    network.train()
    output = network(images, queries, track_iterations=2)
    assert 'images' not in output
    names = ('pose_enc', 'depth', 'depth_conf', 'world_points', 'world_points_conf', 'track', 'vis', 'conf')
    # The first round of the cameras is a result of its own: no gradient flows from round to round.
    (sum(output[name].mean() for name in names) + output['pose_enc_list'][0].mean()).backward()
    # The untrained zeros behind a ReLU or a zero bias may have no gradient, but none may be cut off.
    cut_off = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert cut_off == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_training_reaches_the_position_embedding():
    backbone = VGGT(VGGTConfig.from_dict({**BACKBONE.__dict__, 'img_size': 70}), heads=()).aggregator.patch_embed
    with torch.inference_mode():
        backbone(plain.images(1, 42, 56))
    backbone(plain.images(1, 42, 56)).pow(2).sum().backward()
    assert backbone.pos_embed.grad.abs().sum() > 0
    assert not backbone.mask_token.requires_grad


def test_prepared_in_bfloat16_gives_the_numbers_of_autocast(images, queries):
    network = plain.fill(VGGT(SMALL)).eval()
    exact = network(images, queries, track_iterations=1)
    with torch.autocast('cpu', torch.bfloat16):
        tokens = network.embed(images)
        autocast = network.aggregator.enter(tokens, [0, 1, 1, 1, 1], GRID)
        autocast = network.aggregator.decode(autocast[None], GRID, range(FRAMES))
    prepared = network.prepare('cpu', torch.bfloat16)
    rotated = []
    prepared.aggregator.global_blocks[0].attn.q_norm.register_forward_hook(lambda *args: rotated.append(args[-1].dtype))
    ours = prepared.aggregator.enter(prepared.embed(images), [0, 1, 1, 1, 1], GRID)
    ours = prepared.aggregator.decode(ours[None], GRID, range(FRAMES))
    for mine, other in zip((ours.camera, *ours.patches), (autocast.camera, *autocast.patches), strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, other, 2e-2)
    assert rotated == [torch.float32]  # queries meet the rotary positions unrounded
    output = prepared(images, queries, track_iterations=1)
    for name in ('pose_enc', 'depth', 'world_points'):
        assert output[name].dtype == torch.float32
        assert_close(output[name], exact[name], 3e-2)

    low = {name for name, tensor in prepared.state_dict().items() if tensor.dtype == torch.bfloat16}
    assert 'aggregator.global_blocks.0.attn.qkv.weight' in low
    assert not [name for name in low if not name.startswith('aggregator.') or 'norm' in name or 'gamma' in name]


BAD_INPUTS = [
    (lambda n, x, q: n(x[0]), 'images must be'),
    (lambda n, x, q: n(x[:, :1]), 'images must be'),
    (lambda n, x, q: n(x[:0]), 'images must be'),
    (lambda n, x, q: n((x * 255).byte()), 'floats'),
    (lambda n, x, q: n(x[..., :-1]), 'multiples of the patch size 14'),
    (lambda n, x, q: n(x, q[:, :1]), 'query points must be'),
    (lambda n, x, q: n(x, q[None].expand(2, -1, -1)), 'query points must be'),
    (lambda n, x, q: n(x, q[:0]), 'query points must be'),
    (lambda n, x, q: n(x, q, track_iterations=0), 'track_iterations'),
    (lambda n, x, q: n.enter(n.embed(x), True, (84, 84)), 'patch tokens of 84x84'),
    (lambda n, x, q: n.decode(n.embed(x), SIZE), 'tokens of 84x112'),
    (lambda n, x, q: n.decode(n.enter(n.embed(x), False, SIZE), SIZE, depth_frames=[5]), 'slots'),
    (lambda n, x, q: n.decode(n.enter(n.embed(x), False, SIZE), SIZE, depth_frames=[-1]), 'slots'),
]


@pytest.mark.parametrize(('call', 'message'), BAD_INPUTS)
def test_bad_input_is_refused(network, images, queries, call, message):
    with pytest.raises(ValueError, match=message):
        call(network, images, queries)


def test_heads_left_out_do_not_exist_and_are_missed_by_name(images, queries):
    network = VGGT(SMALL, heads=['camera']).eval()
    assert {name.split('.')[0] for name in network.state_dict()} == {'aggregator', 'camera_head'}
    assert set(network(images)) == {'pose_enc', 'pose_enc_list', 'images'}
    with pytest.raises(ValueError, match='track head'):
        network(images, queries)
    entered = network.enter(network.embed(images), False, SIZE)
    with pytest.raises(ValueError, match='depth head'):
        network.decode(entered, SIZE, depth_frames=[0])
    with pytest.raises(ConfigError, match='unknown heads dept'):
        VGGT(SMALL, heads=['dept'])


def test_config_survives_json_and_names_what_it_does_not_know():
    assert VGGTConfig.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(ConfigError, match='unknown network fields widht; known are img_size'):
        VGGTConfig.from_dict({'widht': 3})
    with pytest.raises(ConfigError, match='not JSON'):
        VGGTConfig.from_json('{')
    with pytest.raises(ConfigError, match='not a JSON object'):
        VGGTConfig.from_json('[1]')


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('depth', '4', 'depth must hold integers'),
        ('depth', 0, 'depth must hold integers of at least 1'),
        ('num_heads', 7, 'multiple of 4 \\* num_heads'),
        ('patch_embed', 'resnet', 'patch_embed must be conv, stem or one of'),
        ('patch_embed', 'dinov2_vitb14_reg', '768 wide'),
        ('intermediate_layers', [0, 1, 2], '4 entries'),
        ('intermediate_layers', [0, 2, 1, 3], 'must increase'),
        ('intermediate_layers', [0, 1, 2, 4], 'below depth'),
        ('img_size', 100, 'not a multiple of patch_size'),
        ('camera_num_heads', 5, 'camera_num_heads'),
        ('dpt_features', 12, 'dpt_features of 8'),
        ('track_position_embedding', 1, 'must be a bool'),
    ],
)
def test_config_refuses_what_makes_no_network(field, value, message):
    with pytest.raises(ConfigError, match=message):
        VGGTConfig.from_dict({**SMALL.__dict__, field: value})
