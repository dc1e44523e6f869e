"""The hints against what is true of a rendered window."""

import math

import pytest
import torch

import training_small
from vggt_ros.training import hints, stream
from vggt_ros.training.loop import Trainer

CPU = torch.device('cpu')
PATCH = 14
SPECIAL = 5


@pytest.fixture(scope='module')
def batch():
    config = training_small.config(**{'stages': training_small.VALUES['stages'][1:], 'data.frames_per_step': 12})
    return next(stream.batches(config, CPU))


def middles(truth):
    h, w = (side // PATCH for side in truth.depth.shape[2:])
    return [(row * PATCH + 6, column * PATCH + 6) for row in range(h) for column in range(w)], h, w


def test_matches_are_where_the_surface_is_seen(batch):
    truth = batch.truth
    matches = hints.Matches(truth, PATCH)
    places, h, w = middles(truth)
    windows, frames = truth.depth.shape[:2]
    assert matches.index.shape == (windows, frames, frames, h * w)
    assert not any(matches.seen[:, frame, frame].any() for frame in range(frames))
    distances = []
    for b, s, t, n in matches.seen.nonzero().tolist():
        row, column = places[n]
        point = truth.points[b, s, row, column]
        found_row, found_column = divmod(int(matches.index[b, s, t, n]), w)
        # Somewhere in that patch the other frame sees the same point, both in the first camera's frame.
        rows = slice(found_row * PATCH, (found_row + 1) * PATCH)
        columns = slice(found_column * PATCH, (found_column + 1) * PATCH)
        distance = (truth.points[b, t, rows, columns] - point).norm(dim=-1)[truth.known[b, t, rows, columns]]
        distances.append(float(distance.min()))
    # Half a pixel on a surface seen at a grazing angle is far.
    assert len(distances) > 100
    assert max(distances) < 0.3
    assert sorted(distances)[len(distances) // 2] < 0.02


def heads_that_attend(matches, strength, heads=2):
    """Queries and keys (B, S * P, heads, D) with which every patch attends to its match in the first frame."""
    windows, frames, _, patches = matches.index.shape
    size = patches + 1
    keys = torch.zeros(windows, frames, SPECIAL + patches, heads, size)
    queries = torch.zeros_like(keys)
    keys[:, 0, SPECIAL:, :, :patches] = torch.eye(patches)[None, :, None]
    for b in range(windows):
        for frame in range(1, frames):
            place = torch.nn.functional.one_hot(matches.index[b, frame, 0], patches).float()
            queries[b, frame, SPECIAL:, :, :patches] = place[:, None] * strength * size**0.5
    return queries.flatten(1, 2), keys.flatten(1, 2)


def test_attention_to_the_right_patch_costs_nothing_and_chance_costs_its_logarithm(batch):
    matches = hints.Matches(batch.truth, PATCH)
    frames, patches = matches.index.shape[1], matches.index.shape[3]
    q, k = heads_that_attend(matches, 0.0)
    within, first = hints.attention(q, k, matches)
    assert float(within) == pytest.approx(math.log(patches), rel=1e-5)
    assert float(first) == pytest.approx(math.log(frames * (SPECIAL + patches)), rel=1e-5)
    within, first = hints.attention(*heads_that_attend(matches, 50.0), matches)
    assert float(first) == pytest.approx(0, abs=1e-6)
    assert float(within) > 0.1  # the queries know nothing of the other frames


def test_tokens_that_tell_the_truth_cost_nothing(batch):
    truth = batch.truth
    matches = hints.Matches(truth, PATCH)
    places, _, _ = middles(truth)
    rows, columns = torch.tensor(places).T
    told = torch.zeros(*truth.depth.shape[:2], len(places), 6)
    point = truth.points[:, :, rows, columns]
    told[..., 2:5] = point
    told[..., 5] = truth.depth[:, :, rows, columns].clamp(min=1e-2).log()
    width, height = truth.depth.shape[3], truth.depth.shape[2]
    fov = truth.pose[:, :1, None, 7:]
    # Of the first camera: x / z in half images.
    u = (point[..., 0] / point[..., 2] / torch.tan(fov[..., 1] / 2) + 1) * width / 2 - 0.5
    v = (point[..., 1] / point[..., 2] / torch.tan(fov[..., 0] / 2) + 1) * height / 2 - 0.5
    told[..., :2] = torch.stack([u - columns, v - rows], -1) / width / 0.3
    errors = hints.tokens(told, truth, matches)
    assert {name: round(float(value), 4) for name, value in errors.items()} == {'flow': 0, 'point': 0, 'depth': 0}
    told[..., 0] += 1.0  # 0.3 image widths
    assert float(hints.tokens(told, truth, matches)['flow']) == pytest.approx(3.0 * 0.3, rel=1e-4)


def test_hints_reach_queries_keys_and_readers_and_survive_a_resume(tmp_path):
    config = training_small.config(**{'loss.hint_attention': 1.0, 'loss.hint_tokens': 1.0})
    trainer = Trainer(config, tmp_path, CPU)
    batches = stream.batches(config, CPU)
    trainer.train_step(next(batches))
    row = trainer._look()[0]
    assert {f'hint_{name}' for name in hints.HINTS} <= set(row)
    assert all(one.grad is not None for one in trainer.hints.parameters())
    trainer.save()
    resumed = Trainer(config, tmp_path, CPU, resume=True)
    following = next(batches)
    for one in (trainer, resumed):
        one.train_step(following)
    assert trainer._look() == resumed._look()
    assert not any('hint' in key or 'reader' in key for key in trainer.mean_network().state_dict())
