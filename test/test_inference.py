"""The network held ready: the cache changes nothing, geometry comes out in the project's conventions."""

import dataclasses
import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from scipy.spatial.transform import Rotation

from vggt_ros.inference import NetworkPredictor, poses_from_encoding
from vggt_ros.network import VGGT, VGGTConfig
from vggt_ros.network.layers import rope_table
from vggt_ros.types import DeviceError, Frame, WindowTooLargeError

CONFIG = VGGTConfig(
    img_size=140,
    embed_dim=64,
    depth=4,
    num_heads=4,
    patch_embed='conv',
    intermediate_layers=(0, 1, 2, 3),
    camera_trunk_depth=1,
    camera_num_heads=4,
    dpt_features=16,
    dpt_out_channels=(8, 16, 24, 24),
    track_features=16,
    track_hidden_size=32,
    track_corr_levels=3,
    track_corr_radius=2,
)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    network = VGGT(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        network.camera_head.pose_branch.fc2.bias[3:] += torch.tensor([0, 0, 0, 1.0, 1.0, 1.2])
    return network.eval()


def frames(count, size=(160, 120), seed=0):
    rng = np.random.default_rng(seed)
    return [Frame(i, i, rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for i in range(count)]


def predictor_of(network, **options):
    return NetworkPredictor(network, image_size=140, track_iterations=1, **options)


def assert_same(a, b, atol=1e-5):
    np.testing.assert_allclose(a.T_window_camera, b.T_window_camera, atol=atol)
    np.testing.assert_allclose(a.K, b.K, rtol=1e-4)
    for slot in a.depth:
        np.testing.assert_allclose(a.depth[slot], b.depth[slot], atol=atol)
        np.testing.assert_allclose(a.confidence[slot], b.confidence[slot], atol=atol)
    if a.tracks is not None:
        np.testing.assert_allclose(a.tracks.uv, b.tracks.uv, atol=1e-3)


@pytest.mark.parametrize('cache_bytes', [1 << 30, 0])
def test_a_sliding_window_equals_the_plain_forward_pass(network, cache_bytes):
    images = frames(7)
    streaming = predictor_of(network, cache_bytes=cache_bytes)
    queries = np.array([[20.0, 30], [60.3, 41.7], [100, 80]], np.float32)
    for start in range(4):
        window = images[start : start + 4]
        prediction = streaming.predict(window, depth=[2, 3], queries=queries)
        pixel_map = streaming.pixel_map(window[0].size)
        tensor = torch.cat([streaming._to_tensor(frame, pixel_map) for frame in window])
        with torch.inference_mode():
            plain = network(tensor, torch.from_numpy(queries), track_iterations=1)
        for slot in (2, 3):
            np.testing.assert_allclose(prediction.depth[slot], plain['depth'][0, slot, ..., 0], atol=1e-5)
            weight = 1 - 1 / plain['depth_conf'][0, slot]
            np.testing.assert_allclose(prediction.confidence[slot], weight, atol=1e-5)
        np.testing.assert_allclose(prediction.tracks.uv, plain['track'][0], atol=1e-3)
        expected = poses_from_encoding(plain['pose_enc'][0].numpy())
        np.testing.assert_allclose(prediction.T_window_camera, expected, atol=1e-5)
        assert set(prediction.depth) == {2, 3}


@pytest.fixture
def embedded(network, monkeypatch):
    """How many images the network has embedded at once, each time."""
    counts, embed = [], network.embed
    monkeypatch.setattr(network, 'embed', lambda images: counts.append(len(images)) or embed(images))
    return counts


def test_frames_are_embedded_once_and_the_budget_holds(network, embedded):
    streaming = predictor_of(network)
    images = frames(6)
    streaming.predict(images[:4])
    streaming.predict(images[1:5])
    streaming.predict([images[4], *images[2:4], images[5]])
    assert embedded == [4, 1, 1]
    one = streaming.cached_bytes // 6
    tight = predictor_of(network, cache_bytes=3 * one)
    tight.predict(images[:4])
    assert tight.cached_bytes <= 3 * one
    tight.clear()
    assert tight.cached_bytes == 0


def test_only_what_may_be_seen_again_is_held(network, embedded):
    streaming = predictor_of(network)
    images = frames(6)
    streaming.predict(images)
    streaming.keep([5, 3, 99])
    assert streaming.cached_bytes == sum(entry.nbytes for entry in streaming._cache.values()) > 0
    streaming.predict(images[2:])
    assert embedded == [6, 2]
    streaming.keep([])
    assert streaming.cached_bytes == 0


def test_order_of_the_other_frames_does_not_matter(network):
    images = frames(5)
    a = predictor_of(network).predict(images)
    b = predictor_of(network).predict([images[i] for i in (0, 3, 1, 4, 2)])
    for i in range(5):
        np.testing.assert_allclose(a.T_window_camera[a.slot(i)], b.T_window_camera[b.slot(i)], atol=1e-5)
        np.testing.assert_allclose(a.depth[a.slot(i)], b.depth[b.slot(i)], atol=1e-5)


def test_the_count_of_cached_bytes_is_the_caches_own_and_can_be_read_meanwhile(network):
    predictor = predictor_of(network, cache_bytes=400_000)
    told, ended = [], threading.Event()

    def watch():
        while not ended.is_set():
            told.append(predictor.describe()['frame cache [MiB]'])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for start in range(0, 24, 2):
            window = frames(start + 3)[start:]
            predictor.predict(window[::-1] if start % 4 else window, depth=[])
            held = sum(entry.nbytes for entry in predictor._cache.values())
            assert predictor.cached_bytes == held <= 400_000
    finally:
        ended.set()
        watcher.join()
    assert 1 < len(predictor._cache) < 26
    assert told
    predictor.clear()
    assert predictor.cached_bytes == 0


def test_prediction_is_in_our_conventions(network):
    prediction = predictor_of(network).predict(frames(3))
    np.testing.assert_array_equal(prediction.T_window_camera[0], np.eye(4))
    size = prediction.maps[0].size
    assert size == (140, 112)
    np.testing.assert_allclose(prediction.K[:, :2, 2], [[69.5, 55.5]] * 3)
    assert all(z.shape == (112, 140) and z.dtype == np.float32 for z in prediction.depth.values())
    assert all((c >= 0).all() and (c < 1).all() for c in prediction.confidence.values())
    np.testing.assert_allclose(np.linalg.norm(prediction.descriptor, axis=1), 1, atol=1e-5)


def test_pose_encoding_is_world_to_camera_with_unnormalised_scalar_last_quaternion():
    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, :3] = Rotation.random(4, random_state=rng).as_matrix()
    T[:, :3, 3] = rng.normal(size=(4, 3))
    encoding = np.zeros((4, 9))
    encoding[:, :3] = T[:, :3, 3]
    encoding[:, 3:7] = Rotation.from_matrix(T[:, :3, :3]).as_quat() * [[1], [3], [0.2], [-2]]
    poses = poses_from_encoding(encoding)
    np.testing.assert_allclose(poses, T[0] @ np.linalg.inv(T), atol=1e-12)
    encoding[2, 3:7] = 0
    broken = poses_from_encoding(encoding)
    assert np.isnan(broken[2]).all()
    np.testing.assert_allclose(broken[[0, 1, 3]], poses[[0, 1, 3]], atol=1e-12)
    encoding[0, 0] = np.nan
    assert np.isnan(poses_from_encoding(encoding)).all()


def test_preprocessing_is_the_published_one(network):
    """Bicubic with antialiasing, as PIL's: the same to within its rounding to 8 bits."""
    frame = frames(1, (320, 240))[0]
    smooth = np.array(PILImage.fromarray(frame.image).resize((80, 60)).resize((320, 240)))
    frame = Frame(0, 0, smooth)
    predictor = predictor_of(network)
    pixel_map = predictor.pixel_map(frame.size)
    ours = predictor._to_tensor(frame, pixel_map)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(PILImage.fromarray(smooth).resize(pixel_map.resized, PILImage.Resampling.BICUBIC)) / 255
    (left, top), (width, height) = pixel_map.offset, pixel_map.size
    np.testing.assert_allclose(ours, theirs[top : top + height, left : left + width], atol=1.6 / 255)


def test_bad_windows_are_refused(network):
    predictor = predictor_of(network)
    with pytest.raises(ValueError, match='at least one frame'):
        predictor.predict([])
    with pytest.raises(ValueError, match='one size'):
        predictor.predict([*frames(1), *frames(1, (80, 60))])
    with pytest.raises(ValueError, match='multiple of 14'):
        NetworkPredictor(network, image_size=150)


class Held:
    """An activation of a window that fails: something that a weak reference can point at."""


def failing(error, held):
    """A part of the network that computes something, keeps it in its frame, and fails."""

    def part(*args, **kwargs):
        activation = Held()
        held.append(weakref.ref(activation))
        raise type(error)(*error.args)

    return part


class Late:
    """A result whose computation failed behind our back: the error surfaces where the numbers are fetched."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, key):
        return self

    def float(self):
        return self

    def cpu(self):
        raise self.error


@pytest.mark.parametrize(
    ('error', 'said', 'match'),
    [
        (torch.OutOfMemoryError('CUDA out of memory'), WindowTooLargeError, r'3 frames.*\(CUDA out of memory\)'),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling'), WindowTooLargeError, 'CUBLAS'),
        (MemoryError(), WindowTooLargeError, '3 frames'),
        (torch.AcceleratorError('CUDA error: unspecified launch failure'), DeviceError, 'unspecified.*restart'),
    ],
)
@pytest.mark.parametrize('part', ['embed', 'enter', 'decode'])
def test_a_device_that_fails_has_its_own_errors_and_holds_nothing(network, monkeypatch, part, error, said, match):
    predictor, held = predictor_of(network), []
    predictor.predict(frames(2))
    monkeypatch.setattr(network, part, failing(error, held))
    gc.disable()
    try:
        with pytest.raises(said, match=match) as caught:
            predictor.predict(frames(5)[2:])
        # Whoever still holds the error holds nothing of the window.
        assert [one() for one in held] == [None]
        assert caught.value.__context__ is None
    finally:
        gc.enable()
    assert predictor.cached_bytes == 0


@pytest.mark.parametrize('result', ['pose_enc', 'depth', 'depth_conf', 'track', 'vis'])
def test_errors_that_surface_late_are_the_devices_too(network, monkeypatch, result):
    predictor, decode = predictor_of(network), network.decode
    late = Late(torch.AcceleratorError('CUDA error: an illegal memory access was encountered'))
    monkeypatch.setattr(network, 'decode', lambda *args, **options: decode(*args, **options) | {result: late})
    with pytest.raises(DeviceError, match='illegal memory access'):
        predictor.predict(frames(3), queries=np.array([[20.0, 30]], np.float32))


def test_an_error_that_is_not_the_devices_stays_what_it_is(network, monkeypatch):
    predictor = predictor_of(network)
    monkeypatch.setattr(network, 'decode', failing(RuntimeError('shapes do not match'), []))
    with pytest.raises(RuntimeError, match=r'^shapes do not match$'):
        predictor.predict(frames(3))


def test_a_closed_network_is_gone_without_waiting_for_anybody():
    torch.manual_seed(0)
    for _ in range(10):
        predictor = predictor_of(VGGT(CONFIG))
        predictor.predict(frames(3), queries=np.array([[20.0, 30]], np.float32))
        weights = [weakref.ref(parameter) for parameter in predictor.network.parameters()]
        cached = [weakref.ref(entry.tokens) for entry in predictor._cache.values()]
        knot = [predictor]
        knot.append(knot)  # somebody's cycle holds the predictor
        del knot
        gc.disable()
        try:
            predictor.close()
        finally:
            gc.enable()
        assert cached
        assert not [one for one in weights + cached if one() is not None]
        assert rope_table.cache_info().currsize == 0
        with pytest.raises(RuntimeError, match='VGGT was closed'):
            predictor.predict(frames(3))
        predictor.close()  # twice does no harm
        assert predictor.describe()['network'] == 'VGGT'


def test_a_cycle_through_the_network_is_broken():
    network = VGGT(CONFIG)
    network.aggregator.owner = [network]  # a list: modules would register
    weights = [weakref.ref(parameter) for parameter in network.parameters()]
    predictor = predictor_of(network)
    del network
    predictor.close()
    assert not [one for one in weights if one() is not None]


@pytest.mark.parametrize(
    'size', [(1024, 64), (64, 1024), (2000, 8), (8, 8), (1, 1), (15, 15), (300, 20), (1, 500), (4000, 63), (17, 14)]
)
@pytest.mark.parametrize('levels', [3, 7])
def test_images_of_any_size_are_looked_at(size, levels):
    """Tracks and all: the published pyramid of seven levels would want 128 pixels of every side."""
    torch.manual_seed(0)
    predictor = predictor_of(VGGT(dataclasses.replace(CONFIG, track_corr_levels=levels)))
    width, height = predictor.pixel_map(size).size
    queries = np.array([[0, 0], [width - 1, height - 1], [width / 2, height / 2]], np.float32)
    prediction = predictor.predict(frames(3, size), queries=queries)
    np.testing.assert_array_equal(prediction.tracks.uv[0], queries)
    assert np.isfinite(prediction.tracks.uv).all()
    assert all(np.isfinite(depth).all() and depth.shape == (height, width) for depth in prediction.depth.values())


def test_what_runs_where_says_why():
    predictor = predictor_of(VGGT(CONFIG), why='no NVIDIA GPU in this machine', warnings={'no GPU': 'so it is slow'})
    assert predictor.describe()['device'] == 'cpu, float32 (no NVIDIA GPU in this machine)'
    assert predictor.warnings == {'no GPU': 'so it is slow'}


def test_bfloat16_stays_near_float32(network):
    images = frames(3)
    exact = predictor_of(network).predict(images)
    torch.manual_seed(0)
    copy = VGGT(CONFIG)
    copy.load_state_dict(network.state_dict())
    rough = predictor_of(copy, precision='bfloat16').predict(images)
    for slot in range(3):
        error = np.abs(rough.depth[slot] / exact.depth[slot] - 1)
        assert 0 < np.median(error) < 0.02
