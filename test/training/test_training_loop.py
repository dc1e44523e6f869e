"""The training loop: the same twice, exact after a resume, safe on disk, and plain about what stops it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import training_small
from vggt_ros.network import ConfigError, checkpoint
from vggt_ros.training import __main__ as command
from vggt_ros.training import config as configuration
from vggt_ros.training import optim, state, step, stream
from vggt_ros.training.log import Log
from vggt_ros.training.loop import Trainer, TrainingError, choose_dtype

torch.set_num_threads(1)
CPU = torch.device('cpu')
ROOT = Path(__file__).parents[2]


def trained(config, folder, steps, **options):
    """A trainer after so many more steps, and its losses."""
    trainer = Trainer(config, folder, CPU, **options)
    losses = []
    batches = stream.batches(config, CPU, trainer.step)
    for _ in range(steps):
        trainer.train_step(next(batches))
        losses += trainer._look()
    return trainer, losses


def weights_of(trainer):
    return {**trainer.network.state_dict(), **{f'ema.{key}': tensor for key, tensor in trainer.ema.items()}}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# The same run ------------------------------------------------------------------------------------------------------


def test_two_runs_have_the_same_losses_and_weights(tmp_path):
    config = training_small.config()
    first, losses = trained(config, tmp_path / 'a', 4)
    second, again = trained(config, tmp_path / 'b', 4)
    assert losses == again
    assert same(weights_of(first), weights_of(second))
    _, different = trained(training_small.config(**{'run.seed': 4}), tmp_path / 'c', 1)
    assert different[0] != losses[0]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    config = training_small.config()
    whole, losses = trained(config, tmp_path / 'whole', 3)
    whole.save()
    batches = stream.batches(config, CPU, 3)
    for _ in range(3):
        whole.train_step(next(batches))
        losses += whole._look()
    broken, before = trained(config, tmp_path / 'broken', 3)
    broken.save()
    resumed, after = trained(config, tmp_path / 'broken', 3, resume=True)
    assert resumed.step == 6
    assert before + after == losses
    assert same(weights_of(resumed), weights_of(whole))


def test_training_learns(tmp_path):
    config = training_small.config(**{'optimizer.warmup': 1, 'optimizer.learning_rate': 0.003, 'run.steps': 1000})
    trainer = Trainer(config, tmp_path, CPU)
    batch = next(stream.batches(config, CPU))
    for _ in range(40):
        trainer.train_step(batch)
    losses = [one['loss'] for one in trainer._look()]
    assert losses[-1] < 0.5 * losses[0]


def test_frozen_parts_stay_and_the_others_move(tmp_path):
    config = training_small.config(**{'run.frozen': ['aggregator.*', 'camera_head.token_norm.weight']})
    trainer = Trainer(config, tmp_path, CPU)
    before = {key: tensor.clone() for key, tensor in trainer.network.state_dict().items()}
    trainer.train_step(next(stream.batches(config, CPU)))
    moved = {key for key, tensor in trainer.network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert not any(key.startswith('aggregator.') for key in moved)
    assert 'camera_head.token_norm.weight' not in moved
    assert 'camera_head.trunk_norm.weight' in moved
    with pytest.raises(ConfigError, match=r'no parameter matches .agregator'):
        Trainer(training_small.config(**{'run.frozen': ['agregator.*']}), tmp_path / 'typo', CPU)


def test_fine_tuning_begins_with_the_weights_of_a_checkpoint(tmp_path):
    first, _ = trained(training_small.config(), tmp_path / 'first', 1)
    checkpoint.save(first.network, tmp_path / 'start.safetensors')
    config = training_small.config(**{'run.weights': str(tmp_path / 'start.safetensors')})
    assert same(Trainer(config, tmp_path / 'second', CPU).network.state_dict(), first.network.state_dict())


def test_all_parts_of_the_loss_reach_the_weights(tmp_path):
    config = training_small.config(**{'heads': ['camera', 'depth', 'point', 'track'], 'loss.point': 1.0})
    trainer = Trainer(config, tmp_path, CPU)
    trainer.train_step(next(stream.batches(config, CPU)))
    missing = [name for name, parameter in trainer.network.named_parameters() if parameter.grad is None]
    assert missing == []
    row = trainer._look()[0]
    assert set(row) <= set(trainer.log.columns)
    assert {'camera_rotation', 'depth_gradient', 'point_error', 'track_matching'} <= set(row)


def test_the_training_pass_computes_what_the_network_does(tmp_path):
    trainer = Trainer(training_small.config(), tmp_path, CPU)
    batch = next(stream.batches(trainer.config, CPU))
    with torch.no_grad():
        outputs = step.predict(trainer.network, batch.images, depth_frames=[1], queries=batch.queries, iterations=1)
        plain = trainer.network(batch.images, batch.queries, track_iterations=1)
    torch.testing.assert_close(outputs.pose[-1], plain['pose_enc'], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.depth[0], plain['depth'][:, 1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.depth[1], plain['depth_conf'][:, 1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.tracks[0], plain['track'], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.visibility, plain['vis'], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        rough = step.predict(trainer.network, batch.images, depth_frames=[0, 1], dtype=torch.bfloat16)
    torch.testing.assert_close(rough.pose[-1], plain['pose_enc'], atol=0.05, rtol=0.05)
    assert outputs.depth[0].dtype == rough.pose[0].dtype == torch.float32


# The schedule ------------------------------------------------------------------------------------------------------


def test_the_learning_rate_is_a_trapezoid():
    config = replace(training_small.config().optimizer, warmup=10, decay=0.25, learning_rate=0.4)
    rates = [optim.learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[9:76] == pytest.approx([0.4] * 67)
    assert rates[88] == pytest.approx(0.4 * 12 / 25)
    assert rates[100] == 0
    # A longer training changes nothing but the end.
    assert [optim.learning_rate(step, 200, config) for step in range(76)] == pytest.approx(rates[:76])


def test_the_mean_follows_quickly_at_first_and_slowly_later():
    config = replace(training_small.config().optimizer, ema=0.99)
    assert optim.ema_decay(0, config) == pytest.approx(0.1)
    assert optim.ema_decay(10_000, config) == 0.99
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    mean = {key: torch.full_like(tensor, 5.0) for key, tensor in layer.state_dict().items()}
    optim.update_ema(mean, layer, 0.75)
    assert float(mean['weight']) == pytest.approx(4.0)
    assert float(mean['bias']) == pytest.approx(3.75)


def test_gradients_are_clipped_part_by_part(tmp_path):
    trainer = Trainer(training_small.config(), tmp_path, CPU)
    for parameter in trainer.network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-8)
    for parameter in trainer.network.camera_head.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    optim.clip(trainer.network, 1.0)
    camera = [parameter.grad for parameter in trainer.network.camera_head.parameters()]
    assert float(torch.nn.utils.get_total_norm(camera)) == pytest.approx(1.0, rel=1e-3)
    assert float(trainer.network.aggregator.camera_token.grad.flatten()[0]) == pytest.approx(1e-8)


def test_weight_decay_is_for_matrices_only(tmp_path):
    trainer = Trainer(training_small.config(), tmp_path, CPU)
    groups = [group for group in trainer.optimizer.param_groups if group['weight_decay']]
    decayed = {id(parameter) for group in groups for parameter in group['params']}
    names = {name for name, parameter in trainer.network.named_parameters() if id(parameter) in decayed}
    assert 'aggregator.frame_blocks.0.mlp.fc1.weight' in names
    assert not any('token' in name or 'norm' in name or name.endswith(('bias', 'gamma')) for name in names)


def test_heads_learn_at_their_own_rate(tmp_path):
    trainer = Trainer(training_small.config(**{'optimizer.heads': {'depth': 0.25}}), tmp_path, CPU)
    trainer.train_step(next(stream.batches(trainer.config, CPU)))
    rates = {id(one): group['lr'] for group in trainer.optimizer.param_groups for one in group['params']}
    aggregator = {rates[id(one)] for one in trainer.network.aggregator.parameters()}
    heads = {rates[id(one)] for one in trainer.network.depth_head.parameters()}
    assert aggregator == {0.0005}  # half of 0.001 in the first of two steps of warm-up
    assert heads == {0.25 * 0.0005}
    assert {rates[id(one)] for one in trainer.network.camera_head.parameters()} == aggregator
    with pytest.raises(ConfigError, match=r"optimizer.heads: 'point' is not one of the heads"):
        training_small.config(**{'optimizer.heads': {'point': 0.5}})


def test_a_stage_may_leave_heads_out(tmp_path):
    config = training_small.config()
    first, *rest = training_small.VALUES['stages']
    values = training_small.VALUES | {'stages': [first | {'heads': ['camera']}, *rest]}
    config = training_small.configuration.from_dict(values)
    trainer = Trainer(config, tmp_path, CPU)
    before = {key: tensor.clone() for key, tensor in trainer.network.state_dict().items()}
    batches = stream.batches(config, CPU)
    for _ in range(2):
        trainer.train_step(next(batches))
    assert same(trainer.network.depth_head.state_dict(), _of(before, 'depth_head.'))
    assert not same(trainer.network.camera_head.state_dict(), _of(before, 'camera_head.'))
    trainer.train_step(next(batches))
    assert not same(trainer.network.depth_head.state_dict(), _of(before, 'depth_head.'))
    assert {'depth_error', 'camera_rotation'} <= set(trainer._look()[-1])
    with pytest.raises(ConfigError, match=r"stages\[0\].heads: 'point' is not one of the heads camera"):
        training_small.configuration.from_dict(values | {'stages': [first | {'heads': ['point']}, *rest]})


def _of(state, prefix):
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def test_precision_is_what_was_asked_for():
    assert choose_dtype('bfloat16', CPU) == torch.bfloat16
    assert choose_dtype('float32', CPU) == torch.float32
    assert choose_dtype('auto', CPU) in (torch.bfloat16, torch.float32)


# What stops it -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_named_and_the_state_survives(tmp_path):
    config = training_small.config(**{'run.save_minutes': 0.0})

    def poisoned(config, device, first=0):
        for number, batch in enumerate(stream.batches(config, device, first)):
            if number == 2:
                truth = batch.truth._replace(depth=batch.truth.depth * torch.nan)
                batch = replace(batch, truth=truth)
            yield batch

    with pytest.raises(TrainingError, match=r'step 2: depth_error, depth_gradient is not finite'):
        Trainer(config, tmp_path, CPU, batches=poisoned).run()
    assert Trainer(config, tmp_path, CPU, resume=True).step == 2


class FullFile:
    """A file on a full disk."""

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk:
    """Opens files like Path.open; while ``full``, those that match are without room for a single byte."""

    def __init__(self, monkeypatch, suffix):
        self.full, real = False, Path.open

        def opened(path, *arguments, **options):
            file = real(path, *arguments, **options)
            return FullFile(file) if self.full and path.name.endswith(suffix) else file

        monkeypatch.setattr(Path, 'open', opened)


def test_a_full_disk_stops_the_training_and_the_last_state_goes_on(tmp_path, monkeypatch):
    config = training_small.config(**{'run.save_minutes': 0.0})
    disk, kept = FullDisk(monkeypatch, '.part'), {}

    def filling(config, device, first=0):
        for number, batch in enumerate(stream.batches(config, device, first)):
            if number == 2:
                kept.update({path.name: path.read_bytes() for path in tmp_path.glob('state*')})
                disk.full = True
            yield batch

    with pytest.raises(state.StateError, match=r'state of step 3 to .*No space left on device.*--resume'):
        Trainer(config, tmp_path, CPU, batches=filling).run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    disk.full = False
    resumed = Trainer(config, tmp_path, CPU, resume=True)
    assert resumed.step == 2
    assert resumed.run()


def test_a_full_disk_under_the_log_is_told(tmp_path, monkeypatch):
    log = Log(tmp_path / 'log.csv', ['depth'])
    log.add({'step': 1, 'loss': 2.0})
    disk = FullDisk(monkeypatch, 'log.csv')
    disk.full = True
    with pytest.raises(state.StateError, match=r'log\.csv: No space left on device.*--resume'):
        log.add({'step': 2, 'loss': 1.0})
    disk.full = False
    assert [row['step'] for row in log.read()] == ['1']


def test_a_log_is_cut_to_the_state_and_loses_a_broken_row(tmp_path):
    log = Log(tmp_path / 'log.csv', ['depth'])
    for number in (10, 20, 30):
        log.add({'step': number, 'loss': number / 7})
    with log.path.open('a') as file:
        file.write('15,0.3,')  # the disk was full
    log.cut(20)
    assert [(row['step'], row['loss']) for row in log.read()] == [('10', '1.42857'), ('20', '2.85714')]
    log.add({'step': 30, 'loss': 1.0})
    assert [row['step'] for row in log.read()] == ['10', '20', '30']


def test_a_time_limit_ends_cleanly_and_the_next_run_goes_on(tmp_path):
    config = training_small.config()
    assert not Trainer(config, tmp_path, CPU).run(minutes=0)
    rows = []
    resumed = Trainer(config, tmp_path, CPU, resume=True)
    assert resumed.step == 1
    assert resumed.run(progress=rows.append)
    assert resumed.step == 6
    assert rows[-1]['step'] == 6
    assert rows[-1]['val_absrel'] > 0
    saved = resumed.log.read()
    assert [int(row['step']) for row in saved] == [6]
    assert float(saved[0]['loss']) == pytest.approx(rows[-1]['loss'], rel=1e-4)


def test_an_interrupt_finishes_the_step_and_saves(tmp_path):
    config = training_small.config(**{'run.steps': 1000})

    def interrupted(config, device, first=0):
        for number, batch in enumerate(stream.batches(config, device, first)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    before = signal.getsignal(signal.SIGINT)
    trainer = Trainer(config, tmp_path, CPU, batches=interrupted)
    assert not trainer.run()
    assert trainer.step == 4
    assert state.load(tmp_path)['step'] == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_an_existing_state_is_not_overwritten_by_accident(tmp_path):
    trained(training_small.config(), tmp_path, 1)[0].save()
    with pytest.raises(TrainingError, match='--resume'):
        Trainer(training_small.config(), tmp_path, CPU)
    wider = training_small.config(**{'network.track_hidden_size': 16})
    with pytest.raises(TrainingError, match='does not fit'):
        Trainer(wider, tmp_path, CPU, resume=True)
    with pytest.raises(state.StateError, match=r'state\.json is missing'):
        Trainer(training_small.config(), tmp_path / 'empty', CPU, resume=True)


# The state on disk -------------------------------------------------------------------------------------------------

EXAMPLE = {
    'step': 7,
    'nested': {'a': torch.randn(300, 7), 'half': torch.randn(11).to(torch.bfloat16), 'text': 'x', 'list': [1, 2.5]},
    'scalar': torch.tensor(3.0),
    'empty': torch.zeros(0, 3),
}


def test_a_state_survives_being_cut_into_parts(tmp_path):
    state.save(tmp_path, EXAMPLE, 7, part_bytes=1000)
    parts = sorted(path.name for path in tmp_path.glob('state-*'))
    assert len(parts) > 5
    assert all((tmp_path / part).stat().st_size <= 1000 for part in parts)
    loaded = state.load(tmp_path)
    assert loaded['step'] == 7
    assert loaded['nested']['list'] == [1, 2.5]
    for path in (('nested', 'a'), ('nested', 'half'), ('scalar',), ('empty',)):
        ours, theirs = EXAMPLE, loaded
        for key in path:
            ours, theirs = ours[key], theirs[key]
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    state.save(tmp_path, {'step': 8}, 8)
    assert [path.name for path in tmp_path.glob('state-*')] == ['state-0000008.1of1']


@pytest.mark.parametrize('failing', [1, 3, 'manifest'])
def test_an_interrupted_write_leaves_the_old_state(tmp_path, monkeypatch, failing):
    state.save(tmp_path, {'step': 1, 'x': torch.ones(5)}, 1)
    written = []
    real = os.replace

    def full(source, target):
        written.append(Path(target).name)
        if len(written) == failing or (failing == 'manifest' and Path(target).name == state.MANIFEST):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(state.StateError, match=r'state of step 2 .*No space left'):
        state.save(tmp_path, EXAMPLE, 2, part_bytes=2000)
    monkeypatch.undo()
    assert state.load(tmp_path)['step'] == 1
    (tmp_path / '.state-0000002.1of9.part').touch()  # of a process that was killed
    state.save(tmp_path, {'step': 3}, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['state-0000003.1of1', state.MANIFEST]


def test_damaged_and_missing_parts_are_named(tmp_path):
    state.save(tmp_path, EXAMPLE, 7, part_bytes=3000)
    part = sorted(tmp_path.glob('state-*'))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(state.StateError, match=f'{part.name} is damaged'):
        state.load(tmp_path)
    part.unlink()
    with pytest.raises(state.StateError, match=f'{part.name} is missing'):
        state.load(tmp_path)
    (tmp_path / state.MANIFEST).write_text('{"parts": 3}')
    with pytest.raises(state.StateError, match='cannot read'):
        state.load(tmp_path)


# The command -------------------------------------------------------------------------------------------------------


def test_the_command_trains_resumes_and_exports(tmp_path):
    """In a process of its own, which has torch and numpy alone, with worlds from a worker: the losses are those of this
    process without one."""
    config = training_small.config(**{'run.workers': 1, 'run.steps': 4})
    (tmp_path / 'small.json').write_text(
        json.dumps(configuration.to_dict(config) | {'network': network_fields(config)})
    )
    arguments = ['train', '--config', str(tmp_path / 'small.json'), '--output', str(tmp_path / 'out')]
    others = ['cv2', 'huggingface_hub', 'matplotlib', 'rosbags', 'safetensors', 'scipy', 'tqdm', 'yaml']
    code = (
        f'import sys; sys.modules.update(dict.fromkeys({others}))\n'  # None: not installed
        'from vggt_ros.training.__main__ import main; sys.exit(main(sys.argv[1:]))'
    )
    run = [sys.executable, '-c', code, *arguments, '--device', 'cpu', '--threads', '1']
    done = subprocess.run([*run, '--steps', '2'], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert 'complete at step 2' in done.stdout
    assert command.main([*arguments, '--resume', '--device', 'cpu']) == 0
    weights = tmp_path / 'w.safetensors'
    assert command.main(['export', '--state', str(tmp_path / 'out'), '--weights', str(weights)]) == 0
    network = checkpoint.load(weights)
    assert network.config == config.network
    assert network.heads == config.heads
    _, losses = trained(training_small.config(**{'run.steps': 2}), tmp_path / 'here', 2)
    mean = sum(one['loss'] for one in losses) / 2
    rows = (tmp_path / 'out' / 'log.csv').read_text().splitlines()
    first = dict(zip(rows[0].split(','), rows[1].split(','), strict=True))
    assert float(first['loss']) == pytest.approx(mean, rel=1e-3)


def network_fields(config):
    return json.loads(config.network.to_json())


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / 'bad.json').write_text('{}')
    assert command.main(['train', '--config', str(tmp_path / 'bad.json'), '--output', str(tmp_path)]) == 1
    assert 'bad.json: missing network, heads, data' in capsys.readouterr().err
    assert command.main(['export', '--state', str(tmp_path), '--weights', str(tmp_path / 'w.safetensors')]) == 1
    assert 'state.json is missing' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'data.folders': ['FOLDER/nothing']}, 'nothing does not exist'),
        ({'data.folders': ['FOLDER']}, 'neither pictures'),
        ({'run.weights': 'FOLDER/no.safetensors'}, 'no.safetensors'),
    ],
)
def test_the_command_names_what_it_cannot_train_with(tmp_path, capsys, change, complaint):
    change = json.loads(json.dumps(change).replace('FOLDER', str(tmp_path)))
    values = configuration.to_dict(training_small.config(**change))
    values['network'] = network_fields(training_small.config())
    (tmp_path / 'small.json').write_text(json.dumps(values))
    arguments = ['train', '--config', str(tmp_path / 'small.json'), '--output', str(tmp_path / 'out')]
    assert command.main([*arguments, '--device', 'cpu']) == 1
    assert re.search(rf'^error: .*{re.escape(complaint)}', capsys.readouterr().err, re.MULTILINE)
