"""Similarities: composed, undone, applied, fitted."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.similarity import Similarity, for_all, move_poses, umeyama


def random(rng: np.random.Generator) -> Similarity:
    R = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    return Similarity(float(np.exp(rng.normal())), R, rng.normal(size=3))


def test_similarities_compose_invert_and_apply():
    rng = np.random.default_rng(0)
    a, b, x = random(rng), random(rng), rng.normal(size=3)
    np.testing.assert_allclose((a @ b).transform(x), a.transform(b.transform(x)), atol=1e-12)
    np.testing.assert_allclose(a.inverse().transform(a.transform(x)), x, atol=1e-12)
    np.testing.assert_allclose(a.transform(a.between(b).transform(x)), b.transform(x), atol=1e-12)
    np.testing.assert_array_equal(Similarity.identity().transform(x), x)
    np.testing.assert_allclose(a.transform(np.stack([x, 2 * x])), [a.transform(x), a.transform(2 * x)], atol=1e-12)


def test_a_moved_pose_stays_rigid_and_its_camera_goes_where_its_centre_goes():
    rng = np.random.default_rng(1)
    a, T = random(rng), np.eye(4)
    T[:3, :3], T[:3, 3] = random(rng).R, rng.normal(size=3)
    moved = a.pose(T)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(moved[:3, 3], a.transform(T[:3, 3]), atol=1e-12)
    np.testing.assert_allclose(Similarity.rigid(T).transform(np.zeros(3)), T[:3, 3])


def test_the_fit_of_exact_points_is_exact():
    rng = np.random.default_rng(2)
    truth, source = random(rng), rng.normal(size=(9, 3))
    found = umeyama(source, truth.transform(source))
    assert found.scale == pytest.approx(truth.scale)
    np.testing.assert_allclose(found.R, truth.R, atol=1e-9)
    np.testing.assert_allclose(found.t, truth.t, atol=1e-9)
    with pytest.raises(ValueError, match='too few'):
        umeyama(source[:2], source[:2])
    with pytest.raises(ValueError, match='does not move'):
        umeyama(np.ones((4, 3)), source[:4])


@pytest.mark.parametrize(
    ('one', 'what'),
    [
        (Similarity(0.0, np.eye(3), np.zeros(3)), 'positive'),
        (Similarity(1.0, np.eye(3), np.array([np.nan, 0, 0])), 'finite'),
        (Similarity(1.0, -np.eye(3), np.zeros(3)), 'rotation'),
        (Similarity(1.0, 2 * np.eye(3), np.zeros(3)), 'rotation'),
    ],
)
def test_what_is_no_similarity_says_so(one, what):
    assert what in one.problem()
    assert Similarity.identity().problem() is None


def test_poses_are_moved_at_once_as_one_by_one():
    rng = np.random.default_rng(7)
    poses = np.tile(np.eye(4), (40, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.random(40, random_state=rng).as_matrix(), rng.normal(size=(40, 3))
    corrections = {index: random(rng) for index in (3, 9, 21)}
    one_by_one = for_all(corrections, range(40))
    assert [one_by_one[index] for index in (0, 6, 7, 15, 39)] == [corrections[index] for index in (3, 3, 9, 9, 21)]
    expected = np.stack([one_by_one[index].pose(T) for index, T in enumerate(poses)])
    np.testing.assert_allclose(move_poses(corrections, range(40), poses), expected, atol=1e-12)
    assert move_poses({}, range(40), poses) is poses
