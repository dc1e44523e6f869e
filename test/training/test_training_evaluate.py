"""The evaluation: exact predictions score perfectly, known errors score as computed by hand."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import training_small
from vggt_ros import camera
from vggt_ros.network import VGGT, checkpoint
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.sequence import frame_truths
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.training import __main__ as command
from vggt_ros.training import baselines, evaluate, metrics, plots, report, unseen
from vggt_ros.training.report import Result
from vggt_ros.training.step import StepOutputs
from vggt_ros.training.validate import Validation, add_scores

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def window():
    """The first evaluation window."""
    return next(unseen.windows(1))


def simulated(window, **errors):
    truths = frame_truths(window.world, window.trajectory, window.K)
    return SimulatedNetwork(truths, ErrorModel(**errors), longest=168)


def test_exact_predictions_score_perfectly(window):
    result = Result('exact')
    predictor = simulated(window, normalised=True)
    evaluate.score(predictor, window, result)
    evaluate.time_window(predictor, window, result)
    figures = result.figures()
    assert figures['auc30'] == pytest.approx(1.0)
    assert figures['rotation'] < 1e-4
    assert figures['direction'] < 1e-3
    assert figures['absrel'] < 1e-4
    assert figures['inliers'] == 1
    assert figures['focal'] < 1e-6
    assert figures['tracked'] == 1
    assert figures['visibility'] > 0.97  # the simulation tells visibility by depth, the evaluation by ray
    assert figures['seconds_depth'] > 0
    assert figures['seconds_tracks'] > 0


def test_wrong_predictions_score_what_they_deserve(window):
    result = Result('wrong')
    evaluate.score(
        simulated(window, rotation=10.0, depth_pixel=0.3, focal_window=0.2, track_pixel=20.0), window, result
    )
    figures = result.figures()
    assert figures['auc30'] < 0.6
    assert 5 < figures['rotation'] < 40
    assert 0.15 < figures['absrel'] < 0.4
    assert figures['focal'] > 0.005
    assert figures['tracked'] < 0.2
    assert np.isnan(figures['seconds_depth'])


def test_windows_are_unseen_worlds_and_always_the_same(window):
    again = next(unseen.windows(1))
    assert window.world.seed == unseen.FIRST_SEED
    assert np.array_equal(window.frames[3].image, again.frames[3].image)
    assert np.array_equal(window.queries, again.queries)
    assert len(window.frames) == 8
    assert window.frames[0].size == (224, 168)


def test_angles():
    R = Rotation.from_rotvec([0, 0, np.radians(0.001)]).as_matrix()
    assert metrics.rotation_angle(R) == pytest.approx(0.001)
    assert metrics.rotation_angle(Rotation.from_rotvec([np.pi, 0, 0]).as_matrix()) == pytest.approx(180)
    assert metrics.rotation_angle(np.full((3, 3), np.nan)) == 180
    assert metrics.angle_between(np.array([1.0, 0, 0]), np.array([0, 2.0, 0])) == pytest.approx(90)
    assert metrics.angle_between(np.zeros(3), np.array([0, 2.0, 0])) == 90
    assert metrics.angle_between(np.array([1.0, 0, 0]), np.array([-1.0, 0, 0])) == pytest.approx(180)


def test_pairs_without_baseline_do_not_count():
    T = np.tile(np.eye(4), (3, 1, 1))
    T[1, 0, 3] = 0.02  # frames 0 and 1 are 0.02 apart, 2 is 1 away from both
    T[2, 2, 3] = 1.0
    ours = T.copy()
    ours[2, :3, :3] = Rotation.from_rotvec([0, np.radians(3), 0]).as_matrix()
    errors = metrics.pair_errors(metrics.relative_poses(ours), T, median_depth=0.5)
    assert errors.rotation == pytest.approx([3.0, 3.0])
    assert errors.direction == pytest.approx([0.0, 0.0], abs=2)
    assert errors.baseline == pytest.approx([2.0, 2.0], rel=1e-3)
    assert len(metrics.pair_errors({}, T, median_depth=100.0).rotation) == 0


def test_pairs_without_an_answer_are_as_wrong_as_can_be():
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = [0, 1, 2]
    poses = metrics.relative_poses(T)
    del poses[0, 2]
    errors = metrics.pair_errors(poses, T, median_depth=1.0)
    assert errors.rotation.tolist() == errors.direction.tolist() == [0, 180, 0]
    assert errors.baseline.tolist() == [1, 2, 1]


def test_windows_without_anything_to_judge_count_nowhere():
    scores = metrics.Scores()
    scores.add_depth(np.ones((1, 2, 2)), np.full((1, 2, 2), np.nan))
    scores.add_depth(np.ones((1, 2, 2)), np.array([[[1.0, 1.0], [1.0, 2.0]]]))
    for _ in range(2):
        scores.add_tracks(np.zeros((2, 1, 2)), np.zeros((2, 1)), np.zeros((2, 1, 2)), np.zeros((2, 1), bool), 224)
    figures = scores.figures()
    assert figures['absrel'] == pytest.approx(0.5 / 4)
    assert figures['visibility'] == 1
    assert np.isnan([figures[name] for name in ('tracked', 'auc30', 'focal')]).all()
    assert len(scores.absrel) == 2
    assert np.isnan(scores.of([0]).figures()['absrel'])
    assert scores.of([1]).figures()['absrel'] == figures['absrel']


def test_auc_is_the_mean_accuracy_over_thresholds():
    assert metrics.auc(np.zeros(5)) == 1
    assert metrics.auc(np.full(5, 31.0)) == 0
    # Below thresholds 11 .. 30 of 1 .. 30.
    assert metrics.auc(np.array([10.0])) == pytest.approx(20 / 30)
    assert metrics.auc(np.array([10.0, 100.0])) == pytest.approx(10 / 30)
    assert np.isnan(metrics.auc(np.zeros(0)))


def test_depth_is_compared_after_one_scale():
    truth = np.array([[1.0, 2.0, 4.0, np.nan, 2.0]])
    errors, scale = metrics.depth_errors(2.5 * truth, truth)
    assert scale == pytest.approx(0.4)
    assert errors == pytest.approx([0, 0, 0, 0], abs=1e-9)
    scores = metrics.Scores()
    scores.add_depth(np.array([[1.0, 2.0, 4.0, 9.0, 3.0]]), truth)
    assert scores.absrel == pytest.approx([0.5 / 4])
    assert scores.inliers == [0.75]


def test_tracks_count_where_they_are_visible_at_the_scale_of_224_pixels():
    truth = np.zeros((2, 4, 2))
    ours = truth.copy()
    ours[0] = 50.0  # frame 0 does not count
    ours[1, 0, 0], ours[1, 1, 0] = 5.9, 6.1  # of 448 pixels: 2.95 and 3.05 of 224
    visible = np.array([[True] * 4, [True, True, True, False]])
    visibility = np.array([[1.0] * 4, [0.9, 0.9, 0.2, 0.1]])
    scores = metrics.Scores()
    scores.add_tracks(ours, visibility, truth, visible, width=448)
    assert scores.tracked == pytest.approx([2 / 3])
    assert scores.visibility == [0.75]


def test_focal_lengths_are_compared_by_frame():
    K = np.tile(np.diag([100.0, 100.0, 1.0]), (2, 1, 1))
    wrong = K * np.array([1.1, 1.1, 1.0])
    scores = metrics.Scores()
    scores.add_focal(np.stack([K[0], wrong[1]]), K)
    assert scores.focal[0] == pytest.approx([0.0, 0.1])
    assert scores.figures()['focal'] == pytest.approx(0.05)


def test_validation_scores_its_own_truth_perfectly():
    config = training_small.config()
    validation = Validation(config, torch.device('cpu'), windows=2, frames=3)
    scores = metrics.Scores()
    for batch in validation.batches:
        visibility = batch.tracks.visible.float()
        exact = StepOutputs(
            pose=[batch.truth.pose],
            frames=[0, 1, 2],
            depth=(batch.truth.depth[..., None], torch.ones_like(batch.truth.depth)),
            points=None,
            tracks=[batch.tracks.uv],
            visibility=visibility,
            confidence=visibility,
            maps=None,
        )
        add_scores(scores, exact, batch)
    figures = scores.figures()
    assert figures['rotation'] < 1e-3
    assert figures['absrel'] == pytest.approx(0, abs=1e-6)
    assert figures['focal'] < 1e-5
    assert figures['tracked'] == figures['visibility'] == 1


def test_the_still_baseline(window):
    still, result = baselines.Still(lambda size: camera.fit(size, 168)), Result('still')
    evaluate.score(still, window, result)
    figures = result.figures()
    nothing = metrics.relative_poses(np.tile(np.eye(4), (8, 1, 1)))
    errors = metrics.pair_errors(nothing, window.T_camera_world, 1e-9)
    assert figures['rotation'] <= errors.rotation.max()
    assert (errors.direction == 90).all()
    assert figures['auc30'] == 0
    assert figures['visibility'] == pytest.approx(window.visible[1:].mean())


@pytest.mark.parametrize('detector', ['SIFT', 'ORB'])
def test_essential_matrices_find_the_poses(window, detector):
    result = Result(detector)
    evaluate.score_essential(window, 1.0, result, detector)
    figures = result.figures()
    assert figures['auc30'] > 0.3  # the ends of the path see too little of one another
    assert figures['rotation'] < 5
    assert np.isnan(figures['tracked'])


def test_klt_follows_the_points(window):
    result = Result('KLT')
    evaluate.score_klt(window, result)
    figures = result.figures()
    assert figures['tracked'] > 0.4  # what moves too far is lost for good
    assert np.isnan(figures['auc30'])


def test_pictures_without_texture_have_no_pose(window):
    blank = [np.full_like(frame.image, 128) for frame in window.frames]
    assert baselines.essential_poses(blank, window.K) == {}


def test_tables_and_plots(window, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, 'windows', lambda count: [window] * count)
    monkeypatch.setattr(evaluate, 'TIMED', 1)
    predictor = simulated(window)
    evaluation, shown = evaluate.evaluate(predictor, 'exact', 2)
    assert len(shown) == 1  # one of each kind of world
    assert evaluation.kinds == [window.world.kind] * 2
    assert len(evaluation.results[0].seconds_tracks) == 1
    lines = report.table(evaluation.results).splitlines()
    assert lines[0].startswith('| figure | goal | exact | identity pose, constant depth | SIFT')
    assert lines[2].startswith('| relative pose AUC@30 | >= 0.70 | 1.000 | 0.000 | 0.')
    assert lines[2].endswith('| - |')  # KLT has no poses
    assert lines[-1].endswith('| - | - | - | - |')  # the baselines are not timed
    assert f'| {window.world.kind} | 2 | 1.000 | 0.00 | ' in report.table_by_kind(evaluation)
    page = report.document(evaluation, 'Two windows.')
    assert '# Evaluation of exact' in page
    assert f']({report.FIGURES_NAME})' in page
    plots.draw_figures(evaluation, tmp_path / 'figures.png')
    plots.draw_windows(shown, predictor.pixel_map((224, 168)), tmp_path / 'depth.jpg')
    assert (tmp_path / 'figures.png').stat().st_size > 10_000
    assert (tmp_path / 'depth.jpg').stat().st_size > 5_000


def test_the_command_writes_a_page_with_its_plots(window, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, 'windows', lambda count: [window] * count)
    weights = tmp_path / 'tiny.safetensors'
    small = training_small.config()
    checkpoint.save(VGGT(small.network, small.heads), weights)
    assert (
        command.main(['evaluate', '--weights', str(weights), '--worlds', '1', '--output', str(tmp_path / 'page')]) == 0
    )
    assert '| relative pose AUC@30 | >= 0.70 | ' in capsys.readouterr().out
    names = {report.NAME, report.FIGURES_NAME, report.DEPTH_NAME}
    assert {path.name for path in (tmp_path / 'page').iterdir()} == names
    assert '# Evaluation of tiny.safetensors\n\n1 windows of 8 frames' in (tmp_path / 'page' / report.NAME).read_text()


def test_the_command_refuses_what_cannot_work_before_it_begins(tmp_path, capsys):
    assert command.main(['evaluate', '--weights', str(tmp_path / 'no.safetensors')]) == 1
    assert 'no.safetensors' in capsys.readouterr().err
    (tmp_path / 'file').touch()
    assert command.main(['evaluate', '--output', str(tmp_path / 'file')]) == 1
    assert 'file' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(['evaluate', '--worlds', '0'])
