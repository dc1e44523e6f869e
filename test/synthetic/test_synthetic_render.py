"""The ray caster against closed forms, against the worlds' own distance function and against itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggt_ros.camera import invert, project, transform, unproject
from vggt_ros.synthetic.places import KINDS, make_world
from vggt_ros.synthetic.render import cast, pixel_rays, render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics, make_sequence
from vggt_ros.synthetic.textures import texture_id
from vggt_ros.synthetic.trace import SceneCameras, _trace_chunked, _trace_tiled
from vggt_ros.synthetic.trajectory import look_at, make_trajectory
from vggt_ros.synthetic.truth import sample_depth
from vggt_ros.synthetic.world import BOX, CYLINDER, ELLIPSOID, Builder, Lights, Options

SIZE = (96, 72)
K = default_intrinsics(SIZE)
FORWARD = look_at(np.zeros(3), np.array([1.0, 0.0, 0.0]))
GREY, RED, GREEN = (np.tile(np.array(c), (3, 1)) for c in ([0.3, 0.3, 0.3], [0.7, 0.02, 0.02], [0.02, 0.7, 0.02]))


class Lab:
    """A world of hand-placed primitives under even light."""

    def __init__(self, **lights):
        self.builder = Builder('lab', 0, np.random.default_rng(0), Options())
        nothing = np.zeros((0, 3))
        even = {'position': nothing, 'colour': nothing, 'sun': np.array([0, 0, 1.0]), 'sun_colour': np.zeros(3)}
        self.lights = Lights(**{**even, 'ambient': np.full((2, 3), 0.5), **lights})

    def add(self, shape, centre, half, colour=GREY, R=None, name='thing', **material):
        row = self.builder.material(texture_id('plain', 0), colour, **material)
        identity = self.builder.object(name)
        self.builder.add(shape, identity, centre, half, row, R)
        return identity

    def scene(self, times=None) -> Scene:
        return Scene.pack(self.world(), times)

    def world(self):
        return self.builder.build(self.lights, [[-1, -1, -1], [1, 1, 1]], [[0, 0, 0], [1, 0, 0]], [[1, 0, 0]])


def ray_depth(scene, uv, T=FORWARD):
    hits = cast(scene, T[None], K, np.atleast_2d(np.asarray(uv, float)))
    return hits.depth[0].numpy(), hits.normal[0].numpy()


CENTRE = (SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2


def test_shapes_are_met_where_geometry_says():
    lab = Lab()
    lab.add(ELLIPSOID, (5, 0, 0), (1, 1, 1))
    depth, normal = ray_depth(lab.scene(), CENTRE)
    assert depth[0] == pytest.approx(4, abs=1e-6)
    np.testing.assert_allclose(normal[0], (0, 0, -1), atol=1e-6)
    # A ray 0.6 m off the axis at the sphere's distance: x = tan a, closed form of the quadratic.
    slope = 0.1
    depth, normal = ray_depth(lab.scene(), (CENTRE[0] + slope * K[0, 0], CENTRE[1]))
    a, b, c = 1 + slope**2, -5, 24
    z = (-b - np.sqrt(b * b - a * c)) / a
    assert depth[0] == pytest.approx(z, rel=1e-6)
    np.testing.assert_allclose(normal[0], (slope * z, 0, z - 5), atol=1e-5)

    lab = Lab()
    lab.add(CYLINDER, (5, 0, -1), (0.5, 0.5, 2))
    assert ray_depth(lab.scene(), CENTRE)[0][0] == pytest.approx(4.5, abs=1e-6)
    above = look_at(np.array([4.8, 0.0, 4.0]), np.array([4.9, 0.0, 0.0]))
    depth, normal = ray_depth(lab.scene(), CENTRE, above)
    assert depth[0] == pytest.approx(3 * np.hypot(1, 0.1 / 4), rel=1e-6)  # the cap at z = 1
    np.testing.assert_allclose(above[:3, :3] @ normal[0], (0, 0, 1), atol=1e-6)

    lab = Lab()
    turn = np.array([[np.sqrt(0.5), -np.sqrt(0.5), 0], [np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1]])
    lab.add(BOX, (5, 0, 0), (1, 1, 1), R=turn)
    depth, _ = ray_depth(lab.scene(), (CENTRE[0] + 1e-3, CENTRE[1]))
    assert depth[0] == pytest.approx(5 - np.sqrt(2), abs=1e-4)  # the edge of the turned cube


def test_rays_along_faces_and_from_inside():
    lab = Lab()
    lab.add(BOX, (0, 0, 0), (3, 2, 1), name='shell')
    depth, normal = ray_depth(lab.scene(), [CENTRE, (CENTRE[0] + 0.5 * K[0, 0], CENTRE[1])])
    np.testing.assert_allclose(depth, (3, 3), atol=1e-6)
    np.testing.assert_allclose(normal, [(0, 0, -1)] * 2, atol=1e-6)
    exact = render(lab.scene(), FORWARD[None], K, SIZE).depth[0, 0]
    assert torch.isfinite(exact).all()


def test_nothing_hit_is_nan_and_object_zero():
    lab = Lab(sky=np.full((3, 3), 0.5))
    one = lab.add(ELLIPSOID, (5, 0, 0), (1, 1, 1))
    seen = render(lab.scene(), FORWARD[None], K, SIZE)
    sky = seen.object_id[0, 0] == 0
    assert 0.5 < sky.float().mean() < 1
    assert torch.equal(sky, torch.isnan(seen.depth[0, 0]))
    assert set(seen.object_id.unique().tolist()) == {0, one}
    assert (seen.normal[0, 0][sky] == 0).all()


@pytest.mark.parametrize('kind', KINDS)
def test_hits_lie_on_surfaces_with_nothing_in_front(kind):
    world = make_world(kind, 5)
    pose = make_trajectory(world, 'handheld', 2, 1).T_world_camera[0]
    rng = np.random.default_rng(0)
    uv = rng.uniform((0, 0), SIZE, (150, 2))
    hits = cast(Scene.pack(world), pose[None], K, uv)
    depth = hits.depth[0].double().numpy()
    met = np.isfinite(depth) & (depth < 60)
    rays = np.concatenate([(uv - K[:2, 2]) / K[0, 0], np.ones((150, 1))], axis=1)[met]
    ends = transform(pose, rays * depth[met, None])
    still = ~np.isin(hits.primitive[0].numpy()[met], np.flatnonzero(_ellipsoids(world)))
    error = np.abs(world.distance(ends)) / (1 + depth[met])
    # The distance to an ellipsoid is a lower bound: zero on its surface all the same.
    assert still.sum() > 20
    assert error.max() < 1e-5
    for share in rng.uniform(0.02, 0.98, 12):
        assert world.distance(transform(pose, rays * depth[met, None] * share)).min() > -1e-6


def _ellipsoids(world):
    order = np.concatenate([np.flatnonzero(world.shape == kind) for kind in (BOX, ELLIPSOID, CYLINDER)])
    return world.shape[order] == ELLIPSOID


@pytest.mark.parametrize('kind', ['room', 'street'])
def test_leaving_out_what_a_tile_cannot_see_changes_nothing(kind):
    world = make_world(kind, 1)
    poses = make_trajectory(world, 'handheld', 1, 3).T_world_camera
    scene = Scene.pack(world)
    view = SceneCameras.of(scene, *scene.cameras(poses, K))
    rays = pixel_rays(torch.from_numpy(K).expand(3, 3, 3), SIZE)
    found = []
    for trace_all in (
        lambda t, p: _trace_tiled(view, rays, SIZE, t, p),
        lambda t, p: _trace_chunked(view, rays, None, t, p),
    ):
        t, p = torch.full(rays.shape[:-1], torch.inf), torch.zeros(rays.shape[:-1], dtype=torch.int64)
        trace_all(t, p)
        found.append(t)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_depth_and_colour_of_one_frame_agree_with_another(kind):
    size = (160, 120)
    sequence = make_sequence(kind, 2, frames=5, size=size, samples=2)
    T, depth = sequence.trajectory.T_world_camera, sequence.depth
    i, j = 0, 4
    points = transform(invert(T[j]) @ T[i], unproject(depth[i], sequence.K))
    uv = project(points, sequence.K)
    difference = np.abs(sample_depth(depth[j], uv) - points[..., 2]) / points[..., 2]
    seen = difference < 0.02  # the rest is hidden or out of the image
    assert seen.mean() > 0.3
    assert np.median(difference[seen]) < 1e-4
    nearest = np.round(uv[seen]).astype(int)
    nearest = np.clip(nearest, 0, np.array(size) - 1)
    there = sequence.images[j][nearest[:, 1], nearest[:, 0]].astype(float)
    here = sequence.images[i][seen].astype(float)
    assert np.median(np.abs(there - here)) < 8
    assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.85


def test_a_crop_is_rendered_as_the_crop_of_the_whole():
    world = make_world('room', 4)
    pose = make_trajectory(world, 'handheld', 4, 1).T_world_camera
    scene = Scene.pack(world)
    whole = render(scene, pose, K, SIZE)
    K_crop = K.copy()
    K_crop[:2, 2] -= (20, 30)
    crop = render(scene, pose, K_crop, (32, 24))
    torch.testing.assert_close(crop.depth[0, 0], whole.depth[0, 0, 30:54, 20:52], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(crop.rgb[0, 0], whole.rgb[0, 0, 30:54, 20:52], rtol=0, atol=1e-3)


def test_a_batch_equals_its_worlds_one_by_one():
    kinds = (('room', 1), ('street', 2), ('park', 3))
    worlds = [make_world(kind, seed, moving=True) for kind, seed in kinds]
    paths = [make_trajectory(world, 'handheld', 0, 3) for world in worlds]
    times = np.stack([path.times for path in paths])
    poses = np.stack([path.T_world_camera for path in paths])
    together = render(Scene.pack(worlds, times), poses, K, SIZE)
    for b, world in enumerate(worlds):
        alone = render(Scene.pack(world, times[b]), poses[b], K, SIZE)
        torch.testing.assert_close(together.depth[b], alone.depth[0], equal_nan=True, rtol=1e-5, atol=1e-5)
        assert (together.object_id[b] == alone.object_id[0]).float().mean() > 0.9999
        assert (together.rgb[b] - alone.rgb[0]).abs().mean() < 1e-4


def test_the_same_seed_gives_the_same_bits():
    first, second = (make_sequence('hall', 7, frames=2, size=SIZE, world_options={'mirrors': True}) for _ in range(2))
    for name in ('images', 'depth', 'object_id'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.images, make_sequence('hall', 8, frames=2, size=SIZE).images)


def test_reduced_precision_around_it_changes_nothing():
    world = make_world('room', 0)
    pose = make_trajectory(world, 'handheld', 0, 1).T_world_camera
    scene = Scene.pack(world)
    before = render(scene, pose, K, SIZE)
    torch.set_float32_matmul_precision('medium')
    try:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            inside = render(scene, pose, K, SIZE)
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision('highest')
    assert torch.equal(before.rgb, inside.rgb)
    assert torch.equal(before.depth, inside.depth)


def test_more_samples_smooth_colours_and_leave_geometry():
    world = make_world('room', 3)
    pose = make_trajectory(world, 'handheld', 3, 1).T_world_camera
    one, two = (render(Scene.pack(world), pose, K, SIZE, samples=samples) for samples in (1, 2))
    assert torch.equal(one.depth, two.depth)
    assert torch.equal(one.object_id, two.object_id)
    edges = [seen.rgb.diff(dim=3).abs().mean() for seen in (one, two)]
    assert edges[1] < edges[0]


def test_shadow_falls_where_the_light_is_blocked():
    lab = Lab(position=np.array([[3.0, 0.0, 3.0]]), colour=np.full((1, 3), 5.0))
    lab.add(BOX, (3, 0, -1.5), (5, 5, 0.5))
    ball = lab.add(ELLIPSOID, (3, 0, 0.5), (0.4, 0.4, 0.4))
    pose = look_at(np.array([0.0, 0.0, 0.5]), np.array([3.0, 0.0, -0.5]))[None]
    scene = lab.scene()
    lit, dark = (render(scene, pose, K, SIZE, shadows=shadows) for shadows in (False, True))
    points = transform(pose[0], unproject(lit.depth[0, 0].numpy(), K))
    floor = (lit.object_id[0, 0] != ball).numpy()
    # The ball's umbra on the floor z = -1: tangent cone of the lamp 2.5 m above the ball's centre.
    radius = 4.0 * np.tan(np.arcsin(0.4 / 2.5))
    off_axis = np.hypot(points[..., 0] - 3, points[..., 1])
    darker = (dark.rgb < lit.rgb - 1e-3).all(-1)[0, 0].numpy()
    assert darker[floor & (off_axis < radius - 0.05)].all()
    assert not darker[floor & (off_axis > radius + 0.05)].any()
    assert (floor & (off_axis < radius - 0.05)).sum() > 20


def test_occlusion_darkens_contacts_only():
    lab = Lab()
    lab.add(BOX, (3, 0, -1.5), (5, 5, 0.5))
    lab.add(BOX, (4, 0, -0.5), (0.5, 0.5, 0.5), RED)
    pose = look_at(np.array([0.0, 0.0, 0.5]), np.array([3.0, 0.0, -0.5]))[None]
    plain, dark = (render(lab.scene(), pose, K, SIZE, occlusion=occlusion) for occlusion in (False, True))
    points = transform(pose[0], unproject(plain.depth[0, 0].numpy(), K))
    loss = (plain.rgb - dark.rgb)[0, 0].numpy().max(-1)
    from_box = np.hypot(*np.maximum(np.abs(points[..., :2] - (4, 0)) - 0.5, 0).transpose(2, 0, 1))
    floor = np.abs(points[..., 2] + 1) < 1e-4
    assert (loss[floor & (from_box < 0.05)] > 0.02).all()
    assert (np.abs(loss[floor & (from_box > 0.55)]) < 1e-6).all()
    assert (floor & (from_box < 0.05)).sum() > 3


def test_a_mirror_shows_what_stands_in_front_of_it():
    lab = Lab()
    lab.add(BOX, (4.1, 0, 0), (0.1, 3, 3), mirror=1.0)
    lab.add(ELLIPSOID, (-2, 1.0, 0), (0.5, 0.5, 0.5), RED)
    lab.add(BOX, (-9, 0, 0), (0.1, 20, 20), GREEN)
    seen = render(lab.scene(), FORWARD[None], K, SIZE)
    # The mirror's plane is x = 4: the ball's image stands at x = 10, y = 1.
    u, v = np.round(project(np.array([-1.0, 0.0, 10.0]), K)).astype(int)
    assert seen.rgb[0, 0, v, u, 0] > 2 * seen.rgb[0, 0, v, u, 1]
    assert seen.rgb[0, 0, v, SIZE[0] - 1 - u, 1] > 2 * seen.rgb[0, 0, v, SIZE[0] - 1 - u, 0]
    assert seen.specular[0, 0, v, u]
    assert seen.depth[0, 0, v, u] == pytest.approx(4, abs=1e-5)


def test_glass_lets_through():
    lab = Lab()
    lab.add(BOX, (2.0, 0, 0), (0.005, 3, 3), glass=1.0)
    lab.add(ELLIPSOID, (4, 0, 0), (1, 1, 1), RED)
    seen = render(lab.scene(), FORWARD[None], K, SIZE)
    v, u = SIZE[1] // 2, SIZE[0] // 2
    assert seen.rgb[0, 0, v, u, 0] > 2 * seen.rgb[0, 0, v, u, 1]
    assert seen.depth[0, 0, v, u] == pytest.approx(1.995, abs=1e-5)
    assert seen.specular[0, 0, v, u]


def test_objects_move_as_their_motion_says():
    lab = Lab()
    one = lab.add(ELLIPSOID, (5, 0, 0), (0.5, 0.5, 0.5))
    lab.builder.move(one, (0, 0, 0), swing=(1.0, 0.0, 0.0), rate=0.25)
    scene = lab.scene([0.0, 1.0, 2.0, 3.0])
    hits = cast(scene, np.tile(FORWARD, (4, 1, 1)), K, np.array([CENTRE]))
    np.testing.assert_allclose(hits.depth[:, 0].numpy(), (4.5, 5.5, 4.5, 3.5), atol=1e-5)


def test_wrong_shapes_are_refused():
    scene = Scene.pack([make_world('room', 0), make_world('room', 1)])
    with pytest.raises(ValueError, match=r'must be \(2, F, 4, 4\)'):
        render(scene, FORWARD[None], K, SIZE)
    moving = Scene.pack(make_world('room', 0, moving=True), [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match='3 moments'):
        render(moving, np.tile(FORWARD, (2, 1, 1)), K, SIZE)
