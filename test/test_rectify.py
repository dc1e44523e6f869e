"""Rectification against OpenCV's exact forward projection of known 3-D points."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vggt_ros.calibration import Calibration, Roi
from vggt_ros.camera import pixel_grid
from vggt_ros.rectify import CameraInfoError, Rectifier

WIDTH, HEIGHT = 320, 240
K = np.array([[230.0, 0, 165.3], [0, 228.0, 117.6], [0, 0, 1]])
# x y swapped, turned by 2 degrees: as a stereo calibration has it.
R = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
P = np.array([[210.0, 0, 158.2, -21.0], [0, 210.0, 121.9, 0], [0, 0, 1, 0]])
LENSES = {
    'plumb_bob': (-0.34, 0.12, -0.0005, 0.001, 0.0),
    'rational_polynomial': (0.4, -0.3, 0.001, -0.0005, 0.02, 0.75, -0.3, 0.01),
    'equidistant': (-0.02, 0.01, -0.004, 0.001),
}


def camera_info(model='plumb_bob', projection=P, rotation=R, **changes):
    calibration = Calibration(
        WIDTH, HEIGHT, model, LENSES[model], tuple(K.ravel()), tuple(rotation.ravel()), tuple(projection.ravel())
    )
    return replace(calibration, **changes)


def points(count=2000):
    """Points all over the field of view, in the raw camera's frame."""
    rng = np.random.default_rng(5)
    z = rng.uniform(0.5, 8, count)
    return np.stack([rng.uniform(-0.9, 0.9, count) * z, rng.uniform(-0.7, 0.7, count) * z, z], -1)


def project_raw(X, info):
    """Full-resolution pixels (N, 2) of the raw image: OpenCV's forward model, no maps."""
    zero = np.zeros(3)
    if info.distortion_model == 'equidistant':
        return cv2.fisheye.projectPoints(X[:, None], zero, zero, K, np.array(info.d))[0][:, 0]
    return cv2.projectPoints(X[:, None], zero, zero, K, np.array(info.d))[0][:, 0]


def raw_image(info):
    """Image whose value at each pixel is the full-resolution pixel (u, v) it shows: cropped and averaged for real."""
    roi = info.roi
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    image = np.dstack([u, v])
    if roi.width:
        image = image[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width]
    bx, by = max(1, info.binning_x), max(1, info.binning_y)
    height, width = image.shape[0] // by, image.shape[1] // bx
    return image[: height * by, : width * bx].reshape(height, by, width, bx, 2).mean((1, 3))


def sample(image, uv):
    """Bilinear samples (N, C) of an image at pixels (N, 2)."""
    return cv2.remap(image, uv.astype(np.float32)[:, None], None, cv2.INTER_LINEAR).reshape(len(uv), -1)


def check_pixels(info, rotation, least):
    """Where the rectified image shows a point, it must show the raw pixel that the point projects to."""
    rectifier = Rectifier(info)
    raw = raw_image(info)
    image = rectifier(raw)
    width, height = rectifier.size
    assert image.shape == (height, width, 2)
    X = points()
    turned = X @ rotation.T
    uv = turned[:, :2] / turned[:, 2:] * rectifier.K.diagonal()[:2] + rectifier.K[:2, 2]
    seen = project_raw(X, info)
    inner = (uv >= 0).all(1) & (uv <= (width - 1, height - 1)).all(1)
    inner &= (seen >= raw.min((0, 1)) + 8).all(1) & (seen <= raw.max((0, 1)) - 8).all(1)
    assert inner.sum() > least
    if rectifier.valid is not None:
        assert (sample(rectifier.valid.astype(np.float32), uv[inner]) == 1).all()
    assert np.abs(sample(image, uv[inner]) - seen[inner]).max() < 0.1
    return rectifier


@pytest.mark.parametrize('model', LENSES)
def test_points_land_where_p_and_r_say(model):
    rectifier = check_pixels(camera_info(model), R, 800)
    assert np.array_equal(rectifier.K, P[:, :3])
    assert rectifier.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize('model', LENSES)
def test_without_p_the_image_keeps_k_and_is_not_turned(model):
    rectifier = check_pixels(camera_info(model, projection=np.zeros((3, 4))), np.eye(3), 800)
    assert np.array_equal(rectifier.K, K)


@pytest.mark.parametrize('do_rectify', [False, True])
@pytest.mark.parametrize('model', LENSES)
def test_roi_and_binning(model, do_rectify):
    roi = Roi(x_offset=61, y_offset=30, width=201, height=163, do_rectify=do_rectify)
    rectifier = check_pixels(camera_info(model, roi=roi, binning_x=2, binning_y=3), R, 100)
    assert rectifier.size == (100, 54)
    rectifier = check_pixels(camera_info(model, roi=replace(roi, x_offset=0, y_offset=0)), R, 200)
    assert rectifier.size == (201, 163)


def test_rectified_roi_follows_the_picture():
    # P sees twice the angle, so the corner of the raw image moves far into the rectified one.
    wide = np.array([[115.0, 0, 160, 0], [0, 115.0, 120, 0], [0, 0, 1, 0]])
    roi = Roi(x_offset=0, y_offset=0, width=100, height=80)
    same = Rectifier(camera_info(projection=wide, roi=roi))
    moved = check_pixels(camera_info(projection=wide, roi=replace(roi, do_rectify=True)), R, 100)
    assert moved.valid.mean() > same.valid.mean() + 0.1
    assert moved.valid.shape == same.valid.shape


def test_binning_of_an_undistorted_camera():
    info = replace(Calibration.pinhole(K, (WIDTH, HEIGHT)), binning_x=2, binning_y=2)
    rectifier = Rectifier(info)
    image = raw_image(info)
    assert rectifier(image) is image
    u, v = image[30, 40]  # the full-resolution pixel that this pixel shows
    assert np.allclose(np.linalg.inv(rectifier.K) @ (40, 30, 1), np.linalg.inv(K) @ (u, v, 1), atol=1e-12)


@pytest.mark.parametrize('model', LENSES)
def test_valid_is_false_exactly_where_the_raw_image_ends(model):
    wide = np.array([[120.0, 0, 160, 0], [0, 120.0, 120, 0], [0, 0, 1, 0]])
    rectifier = Rectifier(camera_info(model, projection=wide))
    white = rectifier(np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    assert (white[~rectifier.valid] == 0).all()
    assert (white[rectifier.valid] == 255).all()
    X = points()
    turned = X @ R.T
    uv = np.round(turned[:, :2] / turned[:, 2:] * 120 + (160, 120)).astype(int)
    shown = (uv >= 0).all(1) & (uv < (WIDTH, HEIGHT)).all(1)
    raw = project_raw(X[shown], camera_info(model))
    outside = np.maximum(-raw, raw - (WIDTH - 1, HEIGHT - 1)).max(1)  # pixels beyond the border
    valid = rectifier.valid[uv[shown][:, 1], uv[shown][:, 0]]
    assert 0 < valid.sum() < len(valid)
    assert valid[outside < -1.5].all()
    assert not valid[outside > 2.5].any()


def test_where_the_polynomial_folds_back_nothing_is_shown_twice():
    k1, focal = -0.4, 90.0
    wide = np.array([[focal, 0, 160, 0], [0, focal, 120, 0], [0, 0, 1, 0]])
    rectifier = Rectifier(camera_info(projection=wide, rotation=np.eye(3), d=(k1, 0.0, 0.0, 0.0, 0.0)))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot(u - 160, v - 120) / focal
    fold = np.sqrt(-1 / (3 * k1))  # r (1 + k1 r^2) is largest here
    folded = (radius > fold + 0.03) & (radius < 1.5)
    assert folded.sum() > 1000
    assert not rectifier.valid[folded].any()
    assert rectifier.valid[radius < 0.5].all()


def test_undistorted_images_pass_untouched():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for model, d in [('plumb_bob', (0.0,) * 5), ('', ()), ('none', ()), ('equidistant', (0.0,) * 4)]:
        same = np.hstack([K, [[-21], [0], [0]]])
        rectifier = Rectifier(camera_info(projection=same, rotation=np.eye(3), distortion_model=model, d=d))
        assert rectifier(image) is image
        assert rectifier.is_identity
        assert rectifier.valid is None
        assert np.array_equal(rectifier.K, K)
    no_p = Rectifier(camera_info(d=(), projection=np.zeros((3, 4)), rotation=np.zeros((3, 3))))
    assert np.array_equal(no_p.K, K)


def test_images_said_to_be_rectified_pass_untouched():
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    rectifier = Rectifier(camera_info(), rectified=True)
    assert rectifier(image) is image
    assert np.array_equal(rectifier.K, P[:, :3])


def test_a_changed_calibration_shows():
    rectifier = Rectifier(camera_info())
    assert rectifier.calibration == Calibration.from_message(camera_info())
    assert rectifier.calibration != Calibration.from_message(camera_info(d=(0.1, 0, 0, 0, 0)))


def test_real_message():
    message = pytest.importorskip('sensor_msgs.msg').CameraInfo()
    with pytest.raises(CameraInfoError, match='0x0 pixels'):
        Rectifier(message)
    info = camera_info(roi=Roi(2, 4, 100, 120, True), binning_x=2)
    info.fill(message)
    assert Calibration.from_message(message) == info


NAN = float('nan')


@pytest.mark.parametrize(
    ('changes', 'complaint'),
    [
        ({'k': (0.0,) * 9}, 'not calibrated: K is zero'),
        ({'k': (0.0, 0, 160, 0, 0, 120, 0, 0, 1)}, 'K is not'),
        ({'k': (-200.0, 0, 160, 0, 200, 120, 0, 0, 1)}, 'K is not'),
        ({'k': (NAN, 0, 160, 0, 200, 120, 0, 0, 1)}, 'numbers in k that are not finite'),
        ({'d': (NAN,) * 5}, 'numbers in d that are not finite'),
        ({'p': (float('inf'),) * 12}, 'numbers in p that are not finite'),
        ({'p': (-200.0, 0, 160, 0, 0, 200, 120, 0, 0, 0, 1, 0)}, 'P is not'),
        ({'r': (1.0, 1, 0, 0, 1, 0, 0, 0, 1)}, 'R is not a rotation'),
        ({'distortion_model': 'fish'}, "'fish' is not supported; supported: plumb_bob, rational_polynomial, equidist"),
        ({'distortion_model': ''}, "'' is not supported"),
        ({'d': (0.1, 0.2, 0.3)}, 'plumb_bob has 4, 5, 8, 12, 14 coefficients, camera_info gives 3'),
        (
            {'distortion_model': 'equidistant', 'd': (0.1, 0, 0, 0, 1e-3)},
            'equidistant has 4 coefficients, camera_info gives 5',
        ),
        ({'width': 0}, '0x240 pixels'),
        ({'roi': Roi(300, 0, 100, 100)}, 'leaves the sensor'),
        ({'binning_x': 400}, 'leaves nothing'),
    ],
)
def test_unusable_camera_info_is_refused_with_the_reason(changes, complaint):
    with pytest.raises(CameraInfoError, match=complaint):
        Rectifier(camera_info(**changes))


def test_an_image_of_another_size_is_refused():
    rectifier = Rectifier(camera_info(binning_x=2, binning_y=2))
    with pytest.raises(
        CameraInfoError, match=r'320x240 pixels, its camera_info describes 160x120 \(calibrated 320x240'
    ):
        rectifier(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def zeros(projection=P, rotation=R, **changes):
    return camera_info(projection=projection, rotation=rotation, d=(0.0,) * 5, **changes)


def test_without_distortion_the_image_is_still_turned_and_scaled():
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for info in (zeros(), zeros(rotation=np.eye(3)), zeros(projection=np.hstack([K, np.zeros((3, 1))]))):
        rectifier = Rectifier(info)
        assert not rectifier.is_identity
        turn, P3 = np.array(info.r).reshape(3, 3), np.array(info.p).reshape(3, 4)[:, :3]
        maps = cv2.initUndistortRectifyMap(K, None, turn, P3, (WIDTH, HEIGHT), cv2.CV_32FC1)
        maps = cv2.convertMaps(*maps, cv2.CV_16SC2)
        wanted = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if rectifier.valid is not None:
            wanted[~rectifier.valid] = 0
        assert np.array_equal(rectifier(image), wanted)
        assert np.array_equal(rectifier.K, P3)
        assert Rectifier(info, rectified=True)(image) is image


def test_rounding_in_p_is_no_reason_to_touch_an_image():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    near = np.hstack([K * (1 + 1e-7), np.zeros((3, 1))])
    assert Rectifier(zeros(near, cv2.Rodrigues(np.array([1e-6, 0, 0]))[0]))(image) is image


@pytest.mark.parametrize(
    ('model', 'like'),
    [
        ('fisheye', 'equidistant'),
        ('kannala_brandt', 'equidistant'),
        ('kannala_brandt4', 'equidistant'),
        ('Kannala_Brandt4', 'equidistant'),
        ('brown_conrady', 'plumb_bob'),
        ('radtan', 'plumb_bob'),
    ],
)
def test_other_names_of_the_same_lens(model, like):
    check_same(Rectifier(camera_info(like, distortion_model=model)), Rectifier(camera_info(like)))


def check_same(one, other):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(one(image), other(image))
    assert np.array_equal(one.K, other.K)


@pytest.mark.parametrize('zeros', [1, 4])
def test_coefficients_that_are_filled_up_with_zeros(zeros):
    for model in ('equidistant', 'rational_polynomial'):
        filled = camera_info(model, d=LENSES[model] + (0.0,) * zeros)
        if model == 'equidistant':  # one: the T265 has five
            filled = replace(filled, distortion_model='kannala_brandt4')
        check_same(Rectifier(filled), Rectifier(camera_info(model)))


def test_a_small_skew_is_left_out_as_opencv_leaves_it_out():
    skewed = list(K.ravel())
    skewed[1] = -0.97
    for model in LENSES:
        check_same(Rectifier(camera_info(model, k=tuple(skewed))), Rectifier(camera_info(model)))
    alone = Rectifier(camera_info('equidistant', k=tuple(skewed), projection=np.zeros((3, 4))))
    assert np.array_equal(alone.K, K)
    skewed[1] = 20.0
    with pytest.raises(CameraInfoError, match='K is not'):
        Rectifier(camera_info('equidistant', k=tuple(skewed)))


@pytest.mark.parametrize('model', ['inverse_brown_conrady', 'ftheta', 'thin_prism', 'double_sphere', 'omni'])
def test_lenses_that_opencv_has_not_are_refused_by_name(model):
    with pytest.raises(CameraInfoError, match=f"'{model}' is not supported"):
        Rectifier(camera_info(distortion_model=model))
    Rectifier(camera_info(distortion_model=model), rectified=True)  # nothing is to be undone


def test_librealsenses_modified_model_is_opencvs_without_tangential_coefficients():
    plain = camera_info(d=(-0.34, 0.12, 0.0, 0.0, 0.01))
    check_same(Rectifier(replace(plain, distortion_model='modified_brown_conrady')), Rectifier(plain))
    with pytest.raises(CameraInfoError, match='tangential'):
        Rectifier(camera_info(distortion_model='modified_brown_conrady'))


def test_how_far_pixels_move_with_a_calibration():
    for model in LENSES:
        base = Rectifier(camera_info(model))
        assert base.moved(Rectifier(camera_info(model))) < 1e-9
        further = Rectifier(camera_info(model, k=tuple(np.add(K, [[0, 0, 2.0], [0, 0, 0], [0, 0, 0]]).ravel())))
        assert np.isclose(further.moved(base), 2.0, atol=1e-3)
        assert base.moved(Rectifier(camera_info(model, binning_x=2))) == np.inf
    wider = Rectifier(zeros(P * [[1.01], [1.01], [1]]))
    assert 1.5 < wider.moved(Rectifier(zeros())) < 4


@pytest.mark.parametrize('model', LENSES)
@pytest.mark.parametrize('turned', [False, True])
def test_depth_of_a_plane(model, turned):
    """n X = 1 in the raw camera's frame: its depth in either image follows from the pixels' rays."""
    info = camera_info(model, rotation=R if turned else np.eye(3))
    rectifier = Rectifier(info)
    plane = np.array([0.1, -0.15, 0.4])
    grid = pixel_grid((WIDTH, HEIGHT)).reshape(-1, 1, 2)
    undistort = cv2.fisheye.undistortPoints if model == 'equidistant' else cv2.undistortPoints
    rays = cv2.convertPointsToHomogeneous(undistort(grid, K, np.array(LENSES[model])))[:, 0]
    raw = (1 / (rays @ plane)).reshape(HEIGHT, WIDTH).astype(np.float32)
    rays = np.concatenate([grid[:, 0], np.ones((len(grid), 1))], 1) @ np.linalg.inv(rectifier.K).T
    wanted = (1 / (rays @ (R @ plane if turned else plane))).reshape(HEIGHT, WIDTH)
    found = rectifier.depth(raw)
    known = np.isfinite(found)
    assert known.mean() > 0.8
    if rectifier.valid is not None:
        assert not known[~rectifier.valid].any()
    # A raw pixel that is up to half a pixel off: that much of the slope.
    assert np.abs(np.log(found[known] / wanted[known])).max() < 0.005
    with pytest.raises(CameraInfoError, match='the image has'):
        rectifier.depth(raw[1:])
