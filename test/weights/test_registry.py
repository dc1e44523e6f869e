"""From a name to a network held ready, the one way for everybody."""

import numpy as np
import pytest

from vggt_ros.network.checkpoint import CheckpointError
from vggt_ros.types import Accuracy, DeviceError, Frame
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

    def load(source, device, heads):
        asked.append((source, str(device), list(heads)))
        return registry.LOADERS['vggt'](NETWORKS[EMBEDDED].weights, device, heads)

    monkeypatch.setattr(registry, 'LOADERS', {**registry.LOADERS, 'ours': load})
    entry = NetworkEntry('ours', 'ours.safetensors', 'ours', ('camera', 'depth'), Accuracy(rotation=0.1))
    monkeypatch.setattr(registry, 'NETWORKS', {**NETWORKS, 'ours-small': entry})
    predictor = make_predictor('ours-small', device='cpu', image_size=140, cache_bytes=7)
    assert asked == [('ours.safetensors', 'cpu', ['camera', 'depth'])]
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
