"""The losses against values computed by hand."""

import math

import pytest
import torch

from vggt_ros.training import losses


def test_huber_is_quadratic_up_to_epsilon_and_of_slope_1_beyond():
    values = losses.huber(torch.tensor([0.0, 0.1, -0.2, 0.5, -3.0]), 0.2)
    assert values.tolist() == pytest.approx([0.0, 0.025, 0.1, 0.4, 2.9])


def test_later_iterations_weigh_more_and_all_weigh_1():
    assert losses.iteration_weights(3, 0.5) == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_camera_by_parts():
    target = torch.tensor([[[0.0, 0, 0, 0, 0, 0, 1, 1.0, 1.2], [1, 2, 3, 0, 0, 0, 1, 1.0, 1.2]]])
    first, second = target.clone(), target.clone()
    first[0, 1, 0] += 2.0  # one of two frames is 2 off in x: Huber 1.95, mean over frames 0.975
    second[0, 0, 7] += 0.05  # 0.05^2 / 0.2
    parts = losses.camera([first, second], target, epsilon=0.1, discount=0.5)
    assert float(parts['translation']) == pytest.approx(0.975 / 3)
    assert float(parts['fov']) == pytest.approx(2 / 3 * 0.0125 / 2, rel=1e-4)
    assert float(parts['rotation']) == 0


def test_the_sign_of_a_quaternion_does_not_matter_its_length_does():
    target = torch.tensor([[[0.0, 0, 0, 0, 0, 0.6, 0.8, 1, 1]]])
    opposite = target.clone()
    opposite[..., 3:7] *= -1
    assert float(losses.camera([opposite], target, 0.1, 1.0)['rotation']) == 0
    longer = target.clone()
    longer[..., 3:7] *= 2  # errors 0.6 and 0.8, beyond epsilon
    assert float(losses.camera([longer], target, 0.1, 1.0)['rotation']) == pytest.approx(0.55 + 0.75)


def test_dense_error_gradient_and_confidence():
    target = torch.zeros(1, 1, 2, 3, 1)
    value = torch.tensor([[1.0, 1.0, 3.0], [0.0, 9.0, 0.0]])[None, None, ..., None]
    known = torch.tensor([[True, True, True], [True, False, True]])[None, None]
    confidence = torch.tensor([[2.0, 1.0, 1.0], [1.0, 5.0, math.e]])[None, None]
    parts = losses.dense(value, confidence, target, known, alpha=0.2)
    assert float(parts['error']) == pytest.approx((2 * 1 + 1 + 3) / 5)
    # To the right: |1-1| and |3-1| of the first row; the second row has an unknown middle. Down: |0-1| and |0-3|.
    assert float(parts['gradient']) == pytest.approx((2 * 0 + 1 * 2) / 2 + (2 * 1 + 1 * 3) / 2)
    assert float(parts['confidence']) == pytest.approx(-0.2 * (math.log(2) + 1) / 5)


def test_points_have_euclidean_errors():
    value = torch.zeros(1, 1, 1, 1, 3)
    value[..., :2] = torch.tensor([3.0, 4.0])
    known = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    parts = losses.dense(value, torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 3), known, 0.2)
    assert float(parts['error']) == pytest.approx(5)


def test_unknown_pixels_send_no_gradient():
    value = torch.rand(1, 2, 4, 4, 1, requires_grad=True)
    confidence = (1 + torch.rand(1, 2, 4, 4)).requires_grad_()
    known = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    known[0, 0, :2] = True
    target = torch.where(known[..., None], 1.0, torch.nan)
    sum(losses.dense(value, confidence, target, known, 0.2).values()).backward()
    assert torch.isfinite(value.grad).all()
    assert (value.grad[~known] == 0).all()
    assert (confidence.grad[~known] == 0).all()
    assert (value.grad[known] != 0).all()


def test_a_batch_without_any_known_pixel_costs_nothing():
    nothing = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    parts = losses.dense(torch.ones(1, 1, 2, 2, 1), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, 1), nothing, 0.2)
    assert [float(part) for part in parts.values()] == [0, 0, 0]


def test_track_positions_of_visible_points_in_other_frames():
    target = torch.zeros(1, 3, 2, 2)
    target[0, 2, 1] = torch.nan  # behind the camera
    visible = torch.tensor([[True, True], [True, True], [True, False]])[None]
    near, far = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    far[0, 0] = 100.0  # frame 0 does not count
    far[0, 1, 0] = torch.tensor([3.0, 4.0])
    far[0, 2, 1] = 50.0  # invisible
    assert float(losses.track_position([near], target, visible, 0.8)) == 0
    assert float(losses.track_position([far], target, visible, 0.8)) == pytest.approx(5 / 3)
    assert float(losses.track_position([far, near], target, visible, 0.5)) == pytest.approx(5 / 3 / 3)


def test_matching_is_the_cross_entropy_of_the_place():
    features = torch.zeros(1, 1, 4)
    features[0, 0, 0] = 2.0
    maps = torch.zeros(1, 2, 2, 3, 4)
    maps[0, 1, 1, 2, 0] = 3.0  # logit 2 * 3 / sqrt(4) = 3 at (x 2, y 1), 0 at the five others
    visible = torch.ones(1, 2, 1, dtype=torch.bool)
    peak = math.exp(3) / (math.exp(3) + 5)
    at = torch.tensor([2.0, 1.0]).expand(1, 2, 1, 2)
    assert float(losses.matching(features, maps, at, visible)) == pytest.approx(-math.log(peak), rel=1e-5)
    between = torch.tensor([1.75, 1.0]).expand(1, 2, 1, 2)
    mixed = 0.75 * peak + 0.25 / (math.exp(3) + 5)
    assert float(losses.matching(features, maps, between, visible)) == pytest.approx(-math.log(mixed), rel=1e-5)
    visible[0, 1] = False
    assert float(losses.matching(features, maps, at, visible)) == 0


def test_binary_entropy_of_the_judged_points():
    probability = torch.tensor([[0.5, 0.5], [0.8, 0.1]])[None]
    truth = torch.tensor([[False, False], [True, True]])[None]
    judged = torch.tensor([[True, True], [True, False]])[None]
    assert float(losses.binary(probability, truth, judged)) == pytest.approx(-math.log(0.8))
    assert math.isfinite(float(losses.binary(torch.zeros(1, 2, 2), truth, judged)))
