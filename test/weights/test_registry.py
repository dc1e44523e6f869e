"""From a name to a network held ready, the one way for everybody."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from vggt_ros.device import Choice
from vggt_ros.inference import NetworkPredictor
from vggt_ros.network import VGGT, checkpoint
from vggt_ros.network.checkpoint import CheckpointError
from vggt_ros.types import Accuracy, DeviceError, DeviceMemoryError, Frame
from vggt_ros.weights import registry
from vggt_ros.weights.registry import EMBEDDED, NETWORKS, NetworkEntry, find, make_predictor


def test_no_name_is_the_embedded_network():
    assert find('') is find(EMBEDDED) is NETWORKS[EMBEDDED]
    assert find('').accuracy.rotation > Accuracy().rotation  # it is a weak one, and says so


def test_another_name_is_a_file_or_hub_id_as_exact_as_the_published_network():
    entry = find('facebook/VGGT-1B')
    assert (entry.title, entry.weights, entry.family) == ('facebook/VGGT-1B', 'facebook/VGGT-1B', 'vggt')
    assert entry.accuracy == Accuracy()
    assert 'point' in entry.heads


def test_every_family_has_a_loader():
    assert {entry.family for entry in NETWORKS.values()} <= set(registry.LOADERS)


def test_the_embedded_network_is_held_ready_without_the_heads_that_it_has_not():
    predictor = make_predictor(device='cpu', heads=('camera', 'depth', 'point'))
    assert predictor.name == 'vggt-tiny (embedded)'
    assert predictor.network.point_head is predictor.network.track_head is None
    assert predictor.image_size == predictor.network.config.img_size == 112
    assert (predictor.precision, str(predictor.device)) == ('float32', 'cpu')
    assert predictor.accuracy == NETWORKS[EMBEDDED].accuracy
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), np.uint8)
    prediction = predictor.predict([Frame(i, i, image) for i, image in enumerate(images)])
    assert np.isfinite(prediction.T_window_camera).all()


def test_a_new_network_is_an_entry_and_a_loader(monkeypatch):
    asked = []

    def load(source, device, heads, dtype):
        asked.append((source, str(device), list(heads), dtype))
        return registry.LOADERS['vggt'](NETWORKS[EMBEDDED].weights, device, heads, dtype)

    monkeypatch.setattr(registry, 'LOADERS', {**registry.LOADERS, 'ours': load})
    entry = NetworkEntry('ours', 'ours.safetensors', 'ours', ('camera', 'depth'), Accuracy(rotation=0.1))
    monkeypatch.setattr(registry, 'NETWORKS', {**NETWORKS, 'ours-small': entry})
    predictor = make_predictor('ours-small', device='cpu', image_size=140, cache_bytes=7)
    assert asked == [('ours.safetensors', 'cpu', ['camera', 'depth'], torch.float32)]
    assert (predictor.name, predictor.image_size, predictor.cache_bytes) == ('ours', 140, 7)
    assert predictor.accuracy.rotation == 0.1


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        ({'name': './nowhere.safetensors'}, CheckpointError, 'no file'),
        ({'device': 'tpu9000'}, DeviceError, 'is not a device'),
        ({'image_size': 113}, ValueError, 'multiple of 14'),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        make_predictor(**({'device': 'cpu'} | options))


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_loading_straight_into_a_precision_changes_no_bit(precision):
    """As the whole network in float32, converted afterwards."""
    converted = NetworkPredictor(checkpoint.load(NETWORKS[EMBEDDED].weights), precision=precision, image_size=112)
    straight = make_predictor(device='cpu', precision=precision)
    wanted = converted.network.state_dict()
    for key, tensor in straight.network.state_dict().items():
        assert (tensor.dtype, tensor.stride()) == (wanted[key].dtype, wanted[key].stride()), key
        assert torch.equal(tensor, wanted[key]), key
    images = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    window = [Frame(i, i, image) for i, image in enumerate(images)]
    ours, theirs = (one.predict(window, queries=np.array([[9.0, 9]], np.float32)) for one in (straight, converted))
    np.testing.assert_array_equal(ours.T_window_camera, theirs.T_window_camera)
    np.testing.assert_array_equal(ours.tracks.uv, theirs.tracks.uv)
    for slot in range(3):
        np.testing.assert_array_equal(ours.depth[slot], theirs.depth[slot])


def test_random_weights_are_made_where_and_as_they_are_wanted(monkeypatch):
    small = replace(checkpoint.load(NETWORKS[EMBEDDED].weights).config, patch_embed='conv')
    monkeypatch.setattr(registry, 'VGGTConfig', lambda: small)
    predictor = make_predictor('random', device='cpu', precision='bfloat16')
    kinds = {key: tensor.dtype for key, tensor in predictor.network.state_dict().items()}
    expected = VGGT(small, ('camera', 'depth', 'track')).prepare('cpu', torch.bfloat16).state_dict()
    assert kinds == {key: tensor.dtype for key, tensor in expected.items()}
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), np.uint8)
    prediction = predictor.predict([Frame(i, i, image) for i, image in enumerate(images)])
    assert np.isfinite(prediction.depth[1]).all()
    assert np.isfinite(prediction.T_window_camera).all()


@pytest.mark.parametrize(
    ('error', 'said', 'words'),
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), DeviceMemoryError, 'smaller network'),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), DeviceMemoryError, 'bfloat16'),
        (MemoryError(), DeviceMemoryError, 'too little memory on cpu for vggt-tiny'),
        (torch.AcceleratorError('CUDA error: unspecified launch failure'), DeviceError, 'failed while vggt-tiny'),
        (RuntimeError('something else'), RuntimeError, 'something else'),
    ],
)
@pytest.mark.parametrize('step', ['read', 'move'])
def test_a_device_that_fails_while_loading_holds_nothing(monkeypatch, step, error, said, words):
    made = []

    def fail(network, *args, **kwargs):
        made.append(weakref.ref(next(network.parameters())))
        raise type(error)(*error.args)

    if step == 'read':
        monkeypatch.setattr(VGGT, 'load_state_dict', fail)
    else:
        whole = VGGT.prepare
        monkeypatch.setattr(VGGT, 'prepare', lambda one, to, dtype: (whole if to == 'meta' else fail)(one, to, dtype))
    gc.disable()
    try:
        with pytest.raises(said, match=words) as caught:
            make_predictor(device='cpu')
        if said is not RuntimeError:
            assert [one() for one in made] == [None]
            assert caught.value.__context__ is None
        else:
            assert len(made) == 1
    finally:
        gc.enable()


def test_a_file_that_the_host_has_no_memory_for_is_no_broken_file(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(12, 'Cannot allocate memory')

    monkeypatch.setattr(checkpoint.safetensors, 'safe_open', full)
    with pytest.raises(DeviceMemoryError, match='Cannot allocate memory'):
        make_predictor(device='cpu')


@pytest.mark.parametrize('warning', [True, False])
def test_why_it_is_the_cpu_is_told(monkeypatch, warning):
    monkeypatch.setattr(registry, 'choose_device', lambda name: Choice(torch.device('cpu'), 'a reason', warning))
    predictor = make_predictor()
    assert predictor.describe()['device'] == 'cpu, float32 (a reason)'
    assert predictor.warnings == ({'no GPU': 'a reason'} if warning else {})
