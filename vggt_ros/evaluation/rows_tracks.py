"""How well keypoint tracks keep their identity, how long they live, and what a back end gets out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import numpy as np

from vggt_ros.evaluation import downstream, hazards, live, plots, runs, tracking, walks
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, median
from vggt_ros.evaluation.scenarios import PERIOD, Scenario
from vggt_ros.evaluation.tracking import Judged
from vggt_ros.inference import NetworkPredictor
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.klt import KltConfig, KltTracker
from vggt_ros.pipeline import Pipeline
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.types import Predictor, Scale, Tracks
from vggt_ros.weights.registry import make_predictor

NOISE = replace(hazards.ROUGH, track_pixel=0.5, track_outliers=0.1, track_visibility=1.0, track_rigid=True)
"""The usual errors; points off by 0.5 px, a tenth of them elsewhere, and on moving objects taken for still."""
COVERED = 0.6  # of the grid, the least at which identity counts
WINDOWS = 5  # of a run, the least at which identity counts
CLIP = 66  # images of the animation
STRETCH = 100  # images from which a back end has to tell the poses
HIDDEN = (0.1, 0.35)  # share of the image that passes


@dataclass(frozen=True)
class Network:
    """A predictor by name, and the windows it is given: of ``window`` images, ``stride`` of them new."""

    name: str
    make: Callable[[Scenario, int], Predictor]
    window: int
    stride: int


def _simulated(scenario: Scenario, seed: int) -> Predictor:
    return SimulatedNetwork(scenario.truths, NOISE, seed, runs.LONGEST)


@cache
def _embedded() -> Predictor:
    return make_predictor(device='cpu', precision='float32')


def _tiny(scenario: Scenario, seed: int) -> Predictor:
    predictor = _embedded()
    assert isinstance(predictor, NetworkPredictor)
    predictor.clear()  # the same indices are other images now
    return predictor


TINY = Network('vggt-tiny', _tiny, 8, 4)
SIMULATED = Network('simulated tracker, 0.5 px and 10 % outliers', _simulated, 12, 6)


@dataclass(frozen=True, eq=False)
class Tracked:
    """What was published of a scenario, beside the truth. windows: how many were solved."""

    scenario: Scenario
    tracks: Sequence[Tracks]
    windows: int
    judged: Judged

    @classmethod
    def of(cls, scenario: Scenario, tracks: Sequence[Tracks], windows: int = 0) -> Tracked:
        """Judge them."""
        return cls(scenario, tracks, windows, tracking.judge(tracks, tracking.exactly(scenario)))


def follow(scenario: Scenario, network: Network, seed: int) -> Tracked:
    """All images through a pipeline of its own, as the node runs it live."""
    predictor = network.make(scenario, seed)
    odometry = OdometryConfig(window=network.window, anchor_depths=network.window, accuracy=predictor.accuracy)
    tracks, windows = [], 0
    for image, solved in live.drive(Pipeline(predictor, odometry), scenario.frames, network.stride, 2, track=True):
        tracks += [image.tracks] if image.tracks is not None else []
        windows += solved is not None and bool(solved.result.estimates)
    return Tracked.of(scenario, tracks, windows)


def klt(scenario: Scenario) -> Tracked:
    """Corners followed from image to image and nothing else, as many at most."""
    tracker = KltTracker(KltConfig(max_corners=TrackerConfig().max_tracks))
    tracks = []
    for frame in scenario.frames:
        corners = tracker.update(frame)
        nowhere, sure = np.full((len(corners), 3), np.nan), np.ones(len(corners))
        ids, age = corners.id.astype(np.uint64), np.zeros(len(corners), np.uint32)
        tracks.append(Tracks(frame, 0, Scale.UNKNOWN, ids, corners.uv, sure, sure, age, nowhere, nowhere))
    return Tracked.of(scenario, tracks)


@lru_cache(maxsize=12)
def _among_pillars(network: Network | None, seed: int) -> Tracked:
    """None: corners alone."""
    scenario = walks.pillars(seed)
    return klt(scenario) if network is None else follow(scenario, network, seed)


def identity(settings: EvaluationSettings) -> Findings:
    """Worlds that no training saw: whether an id stays on its own point."""
    rows = []
    runs_of: dict[Network, list[Tracked]] = {network: [] for network in (TINY, SIMULATED)}
    for seed in settings.runs(min(settings.seeds, 8)):
        for network, found in runs_of.items():
            found.append(follow(walks.unseen(seed), network, seed))
    for (network, found), goal in zip(runs_of.items(), (0.9, 0.98), strict=True):
        judged = [one.judged for one in found]
        share, covered = _identity(judged), _coverage(judged)
        later = _identity(judged, later_only=True)
        windows = min(one.windows for one in found)
        rows += [
            Row(
                f'{network.name}, {len(found)} unseen worlds: share of published (id, image) pairs within 3 px of '
                "the id's own point (without each id's first image); grid coverage; fewest windows",
                f'{share:.3f} ({later:.3f}); {covered:.2f}; {windows}',
                f'>= {goal}; >= {COVERED}; >= {WINDOWS}',
                share >= goal and covered >= COVERED and windows >= WINDOWS,
            ),
            _switched(f'{network.name}, the same', judged),
        ]
    return Findings(rows)


def _switched(test: str, judged: Sequence[Judged], goal: bool = True) -> Row:
    living = sum(len(tracking.switches(one, living_only=True)) for one in judged)
    every = sum(len(tracking.switches(one)) for one in judged)
    back = sum(tracking.returns(one) for one in judged)
    ids = sum(len(one.pairs.first) for one in judged)
    return Row(
        f"{test}: ids that leave their point and stay on another id's (or on one that ended long ago); that come back "
        'elsewhere; of all',
        f'{living} ({every}); {back}; {ids}',
        '0' if goal else '',
        living == 0 if goal else None,
    )


def _identity(judged: Sequence[Judged], later_only: bool = False) -> float:
    """Share of all pairs of all runs."""
    pairs = [one.pairs.age > 0 if later_only else np.ones(len(one.right), bool) for one in judged]
    right = np.concatenate([one.right[chosen] for one, chosen in zip(judged, pairs, strict=True)])
    return float(right.mean()) if len(right) else 0.0


def _coverage(judged: Sequence[Judged]) -> float:
    return float(np.mean([tracking.coverage(one.pairs) for one in judged]))


def life(settings: EvaluationSettings) -> Findings:
    """200 images past pillars, there and back: how long a track lives, against corners alone."""
    rows = []
    found: dict[Network | None, list[Tracked]] = {one: [] for one in (TINY, SIMULATED, None)}
    for seed in settings.runs(min(settings.seeds, 4)):
        for network, tracked in found.items():
            tracked.append(_among_pillars(network, seed))
    theirs = median(_lives(found[None]))
    for network in (TINY, SIMULATED):
        ours, judged = median(_lives(found[network])), [one.judged for one in found[network]]
        covered = _coverage(judged)
        rows += [
            Row(
                f'{network.name}, 200 images past pillars: images for which a track is within 3 px of its own point, '
                'median; of KLT alone; ratio',
                f'{ours:g}; {theirs:g}; x{ours / max(theirs, 1):.2f}',
                '> 1',
                ours > theirs,
            ),
            Row(f'{network.name}, the same, textured: grid coverage', f'{covered:.2f}', '>= 0.80', covered >= 0.8),
            _switched(f'{network.name}, the same', judged),
        ]
    judged = [one.judged for one in found[None]]
    figure = f'{_identity(judged):.3f}; {_coverage(judged):.2f}'
    rows += [
        Row('KLT alone, the same: share of pairs within 3 px; grid coverage', figure),
        _switched('KLT alone, the same', judged, goal=False),
    ]
    names = {TINY: 'vggt-tiny', SIMULATED: 'simulated', None: 'KLT alone'}
    curves = {
        name: (*tracking.by_age(found[network][0].judged), tracking.lives(found[network][0].judged))
        for network, name in names.items()
    }
    maps = {name: tracking.occupancy(found[network][0].judged.pairs) for network, name in names.items()}
    return Findings(
        rows,
        {
            'tracks_identity.png': partial(plots.draw_identity, curves),
            'tracks_coverage.png': partial(plots.draw_coverage, maps),
            'tracks.jpg': partial(plots.write_overlay, found[TINY][0].tracks[:CLIP]),
            'tracks.gif': partial(plots.write_clip, found[TINY][0].tracks[:CLIP], period=PERIOD * 1e-9),
        },
    )


def _lives(found: Sequence[Tracked]) -> np.ndarray:
    """Of all runs' tracks."""
    return np.concatenate([tracking.lives(one.judged) for one in found])


def moving(settings: EvaluationSettings) -> Findings:
    """An object passes: how many of the published tracks are on it."""
    rows = []
    for share in HIDDEN:
        scenario = hazards.passing_object(share)
        for network in (TINY, SIMULATED):
            seeds = settings.runs(min(settings.seeds, 4) if network is SIMULATED else 1)
            found = float(np.mean([tracking.moved(follow(scenario, network, seed).judged) for seed in seeds]))
            rows.append(
                Row(
                    f'{network.name}, object that covers {share:.0%} of the image passes: published pairs whose point '
                    'has moved by more than 3 px',
                    f'{found:.1%}',
                    '< 5.0%',
                    found < 0.05,
                )
            )
        rows.append(Row('KLT alone, the same', f'{tracking.moved(klt(scenario).judged):.1%}'))
    return Findings(rows)


def poses(settings: EvaluationSettings) -> Findings:
    """100 images past pillars: structure from motion on nothing but the published pixels."""
    errors: dict[Network | None, list[tuple[float, float]]] = {one: [] for one in (TINY, SIMULATED, None)}
    for seed in settings.runs(min(settings.seeds, 4)):
        for network, found in errors.items():
            found.append(_pose_error(_among_pillars(network, seed)))
    theirs = median([ate for ate, _ in errors[None]])
    rows = []
    for network in (TINY, SIMULATED):
        ours = median([ate for ate, _ in errors[network]])
        rows.append(
            Row(
                f'{network.name}, {STRETCH} images past pillars, poses from tracks alone: ATE, median [m] and images '
                'located; of KLT tracks',
                f'{_ate(errors[network])}; {_ate(errors[None])}',
                '< KLT',
                ours < theirs,
            )
        )
    return Findings(rows)


def _pose_error(tracked: Tracked) -> tuple[float, float]:
    """ATE in metres, inf unless half of the images could be located, and the share that could."""
    tracks = [one for one in tracked.tracks if one.frame.index < STRETCH]
    T = downstream.poses_from_tracks(tracks, tracked.scenario.truths[0].K)
    located = np.isfinite(T[:, 0, 0])
    share = located.sum() / STRETCH
    if share < 0.5:
        return np.inf, share
    true = tracked.scenario.T_world_camera[[one.frame.index for one in tracks]]
    return runs.ate(T[located], true[located])[0], share


def _ate(found: Sequence[tuple[float, float]]) -> str:
    ates, shares = zip(*found, strict=True)
    return f'{median(ates):.4f}, {median(shares):.0%}'


ROWS: dict[str, Callable[[EvaluationSettings], Findings]] = {
    'identity': identity,
    'life': life,
    'moving': moving,
    'poses': poses,
}
