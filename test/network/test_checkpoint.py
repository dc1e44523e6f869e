"""Checkpoints: what was saved comes back, what does not fit is named, what cannot be had says what to do."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import utils as hub_errors
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from vggt_ros.network import HEADS, VGGT, ConfigError, VGGTConfig, checkpoint, hub
from vggt_ros.network.checkpoint import CheckpointError

SMALL = VGGTConfig(
    img_size=56,
    embed_dim=48,
    depth=4,
    num_heads=4,
    patch_embed='conv',
    intermediate_layers=(0, 1, 2, 3),
    camera_trunk_depth=1,
    camera_num_heads=4,
    dpt_features=8,
    dpt_out_channels=(8, 8, 8, 8),
    track_features=16,
    track_hidden_size=16,
    track_corr_levels=2,
    track_corr_radius=1,
    track_position_embedding=True,
)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return VGGT(SMALL).eval()


@pytest.fixture(scope='module')
def original(network, tmp_path_factory):
    """A file that tests may read."""
    path = tmp_path_factory.mktemp('checkpoint') / 'small.safetensors'
    checkpoint.save(network, path)
    return path


@pytest.fixture
def path(original, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copy(original, tmp_path))


def assert_same(loaded, network):
    expected = network.state_dict()
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_round_trip_keeps_weights_and_configuration(network, original):
    loaded = checkpoint.load(original)
    assert loaded.config == SMALL
    assert loaded.heads == HEADS
    assert not loaded.training
    assert set(loaded.state_dict()) == set(network.state_dict())
    assert_same(loaded, network)
    images = torch.rand(2, 3, 56, 56)
    assert torch.equal(loaded(images)['depth'], network(images)['depth'])


def test_loaded_networks_can_be_trained(original):
    loaded = checkpoint.load(original).train()
    loaded(torch.rand(1, 3, 28, 28))['depth'].mean().backward()
    before = original.read_bytes()
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1.0)
    assert original.read_bytes() == before  # mapped, but privately


def test_half_precision_file_loads_as_float32(network, tmp_path):
    checkpoint.save(network, tmp_path / 'half.safetensors', torch.float16)
    assert {t.dtype for t in load_file(tmp_path / 'half.safetensors').values()} == {torch.float16}
    loaded = checkpoint.load(tmp_path / 'half.safetensors')
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, network.state_dict()[key].half().float())


def test_matrices_load_straight_as_bfloat16(network, original):
    loaded = checkpoint.load(original, dtype=torch.bfloat16).state_dict()
    expected = VGGT(SMALL).prepare('cpu', torch.bfloat16).state_dict()
    assert {key: tensor.dtype for key, tensor in loaded.items()} == {key: t.dtype for key, t in expected.items()}
    key = 'aggregator.frame_blocks.0.mlp.fc1.weight'
    assert torch.equal(loaded[key], network.state_dict()[key].bfloat16())


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_a_device_never_holds_more_than_the_finished_network(network, original, tmp_path, suffix):
    """Each tensor gets its type before it travels; 'meta' stands for a GPU."""
    path = original
    if suffix == '.pt':
        path = tmp_path / 'small.pt'
        torch.save(network.state_dict(), path)
    arrived = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default and args[0].device.type == 'cpu' and result.is_meta:
                arrived.append((args[0].dtype, result.dtype))
            return result

    with Watch():
        loaded = checkpoint.load(path, 'meta', config=SMALL, dtype=torch.bfloat16)
    assert len(arrived) == len(loaded.state_dict())
    assert set(arrived) == {(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)}


def test_heads_left_out_are_not_read(network, original):
    loaded = checkpoint.load(original, heads=('camera', 'depth'))
    assert loaded.heads == ('camera', 'depth')
    assert {key.split('.')[0] for key in loaded.state_dict()} == {'aggregator', 'camera_head', 'depth_head'}
    assert_same(loaded, network)


def test_a_file_tells_which_heads_it_has(tmp_path):
    checkpoint.save(VGGT(SMALL, heads=('camera',)), tmp_path / 'a.safetensors')
    assert checkpoint.load(tmp_path / 'a.safetensors').heads == ('camera',)
    with pytest.raises(CheckpointError, match=r'no depth and no track head; it has camera'):
        checkpoint.load(tmp_path / 'a.safetensors', heads=('camera', 'depth', 'track'))
    with pytest.raises(ConfigError, match='unknown heads depths'):
        checkpoint.load(tmp_path / 'a.safetensors', heads=('depths',))


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'model': s, 'epoch': 3}, lambda s: {'state_dict': s}])
def test_pytorch_files(network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / 'model.pt')
    (tmp_path / 'config.json').write_text(SMALL.to_json())
    assert_same(checkpoint.load(tmp_path / 'model.pt'), network)
    assert checkpoint.load(tmp_path / 'model.pt', heads=['depth'], config=SMALL).heads == ('depth',)


def test_pytorch_file_without_a_state_dict(tmp_path):
    torch.save({'model': [1, 2]}, tmp_path / 'model.pt')
    with pytest.raises(CheckpointError, match='holds no state dict'):
        checkpoint.load(tmp_path / 'model.pt')


def test_pytorch_file_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'evil'),)

    torch.save({'model': Evil()}, tmp_path / 'model.pt')
    with pytest.raises(CheckpointError, match='cannot read'):
        checkpoint.load(tmp_path / 'model.pt')
    assert not (tmp_path / 'evil').exists()


def test_published_configuration_beside_the_file(network, tmp_path):
    save_file(network.state_dict(), tmp_path / 'model.safetensors')
    published = {'img_size': 518, 'patch_size': 14, 'embed_dim': 1024, 'enable_camera': True, 'enable_track': True}
    (tmp_path / 'config.json').write_text(json.dumps(published))
    assert VGGTConfig.from_json(json.dumps(published)) == VGGTConfig()
    with pytest.raises(CheckpointError, match=r'does not fit VGGTConfig\(img_size=518'):  # VGGT-1B was asked for
        checkpoint.load(tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(json.dumps({'img_size': 518, 'enable_camera': True, 'colour': 'red'}))
    with pytest.raises(CheckpointError, match=r'config\.json: unknown network fields colour'):
        checkpoint.load(tmp_path / 'model.safetensors')


def test_every_difference_is_listed(network, path):
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    del state['aggregator.camera_token'], state['depth_head.norm.bias']
    state['aggregator.extra'] = torch.zeros(2)
    state['camera_head.embed_pose.bias'] = torch.zeros(7)
    save_file(state, path, {'config': SMALL.to_json()})
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    lines = str(caught.value).splitlines()
    assert lines[1:] == [
        '2 missing:',
        '  aggregator.camera_token',
        '  depth_head.norm.bias',
        '1 unexpected:',
        '  aggregator.extra',
        '1 of another shape:',
        '  camera_head.embed_pose.bias (7,) instead of (96,)',
    ]


def test_a_file_for_another_network_lists_its_first_differences(path):
    with pytest.raises(CheckpointError, match=r'\.\.\. and \d+ more'):
        checkpoint.load(path, config=VGGTConfig())


@pytest.mark.parametrize('keep', [0, 5, 5000, -1])
@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_truncated_file(network, path, keep, suffix):
    target = path.with_suffix(suffix)
    if suffix == '.pt':
        torch.save(network.state_dict(), target)
    target.write_bytes(target.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r'cannot read .*small' + suffix) as caught:
        checkpoint.load(target, config=SMALL)
    assert f'({target.stat().st_size} bytes)' in str(caught.value)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_file_of_something_else(tmp_path, suffix):
    path = tmp_path / f'page{suffix}'
    path.write_bytes(b'<!doctype html><title>429 Too Many Requests</title>' * 100)
    with pytest.raises(CheckpointError, match='cannot read'):
        checkpoint.load(path)


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(CheckpointError, match='there is no file'):
        checkpoint.load(tmp_path / 'nothing.safetensors')
    with pytest.raises(CheckpointError, match='there is no file'):
        checkpoint.load('weights/nothing.pt')
    with pytest.raises(CheckpointError, match='is a folder'):
        checkpoint.load(tmp_path)


def test_progress_counts_to_the_end(original):
    steps = []
    checkpoint.load(original, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == sum(tensor.nbytes for tensor in load_file(original).values())
    assert steps == sorted(steps)


def test_failed_save_leaves_the_old_file_and_no_other(network, path, monkeypatch):
    before = path.read_bytes()

    def full(*args, **kwargs):
        Path(args[1]).write_bytes(b'half a file')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(checkpoint, 'save_file', full)
    with pytest.raises(CheckpointError, match='No space left'):
        checkpoint.save(network, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_weights_that_do_not_fit_in_half_precision_are_refused(tmp_path):
    network = VGGT(SMALL, heads=())
    with torch.no_grad():
        network.aggregator.camera_token.fill_(1e5)
    with pytest.raises(CheckpointError, match=r'camera_token is not finite as torch\.float16'):
        checkpoint.save(network, tmp_path / 'a.safetensors', torch.float16)
    assert list(tmp_path.iterdir()) == []


MAPPED = """
import resource, sys, torch
from vggt_ros.network import checkpoint
checkpoint.load(sys.argv[1], heads=('camera',))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
network = checkpoint.load(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_loading_takes_no_second_copy(original, tmp_path):
    """A network of 250 MB grows the process by less than a tenth of it, for its tensors stay in the file."""
    config = VGGTConfig.from_dict({**SMALL.__dict__, 'embed_dim': 768, 'num_heads': 12, 'depth': 4})
    big = tmp_path / 'big.safetensors'
    checkpoint.save(VGGT(config, heads=('depth',)), big)
    assert big.stat().st_size > 200e6
    run = subprocess.run(
        [sys.executable, '-c', MAPPED, str(original), str(big)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) * 1024 < 0.1 * big.stat().st_size


# --- the hub -----------------------------------------------------------------------------------------------------


def response(status):
    """What huggingface_hub's errors carry, whichever HTTP library is behind them."""
    return type('Response', (), {'status_code': status, 'headers': {}, 'request': None, 'url': 'https://hub'})()


@pytest.fixture
def hub_files(monkeypatch):
    """A hub with the files of this dictionary; an exception as a value is raised."""
    files = {}

    def download(repository, filename):
        found = files.get(filename, hub_errors.EntryNotFoundError)
        if isinstance(found, Path):
            return str(found)
        raise found if isinstance(found, Exception) else found.__new__(found)

    monkeypatch.setattr(hub, 'hf_hub_download', download)
    return files


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pt'])
def test_hub_id_with_configuration(network, original, tmp_path, hub_files, name):
    if name == 'model.pt':
        torch.save(network.state_dict(), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(original.read_bytes())
    (tmp_path / 'config.json').write_text(SMALL.to_json())
    hub_files.update({name: tmp_path / name, 'config.json': tmp_path / 'config.json'})
    assert_same(checkpoint.load('facebook/VGGT-1B'), network)


def test_hub_id_with_a_file_name(network, original, hub_files):
    hub_files['sub/small.safetensors'] = original
    assert_same(checkpoint.load('owner/name:sub/small.safetensors'), network)
    with pytest.raises(CheckpointError, match=r'owner/name has no model\.safetensors and no model\.pt; name one'):
        checkpoint.load('owner/name')
    with pytest.raises(CheckpointError, match=r'owner/name has no other\.pt'):
        checkpoint.load('owner/name:other.pt')


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (hub_errors.LocalEntryNotFoundError('offline'), r'cannot be reached.*HF_HUB_OFFLINE.*give its path'),
        (hub_errors.GatedRepoError.__new__(hub_errors.GatedRepoError), r'gated: accept its terms.*hf auth login'),
        (hub_errors.RepositoryNotFoundError.__new__(hub_errors.RepositoryNotFoundError), 'neither a file here nor'),
        (OSError(errno.ENOSPC, 'No space left on device'), r'disk of .* is full.*HF_HOME'),
        (ConnectionError('reset by peer'), r'failed: reset by peer.*goes on where it stopped'),
    ],
)
def test_hub_errors_say_what_to_do(hub_files, error, message):
    hub_files['model.safetensors'] = error
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load('owner/name')


def test_offline_for_real(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError, match='cannot be reached'):
        checkpoint.load('facebook/VGGT-1B')


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('facebook/VGGT-1B', ('facebook/VGGT-1B', None)),
        ('owner/name:file.pt', ('owner/name', 'file.pt')),
        ('weights/model.pt', None),
        ('./weights/model', None),
        ('/abs/model', None),
        ('a/b/c', None),
        ('model', None),
    ],
)
def test_what_counts_as_a_hub_id(source, expected):
    assert hub.parse(source) == expected
