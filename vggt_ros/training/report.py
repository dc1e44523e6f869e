"""An evaluation in words: what was measured of whom, and the tables that say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vggt_ros.training import metrics

NAME, FIGURES_NAME, DEPTH_NAME = 'evaluation.md', 'evaluation.png', 'evaluation_depth.jpg'

# figure: title, goal, format
GOALS = {
    'auc30': ('relative pose AUC@30', '>= 0.70', '{:.3f}'),
    'rotation': ('median rotation error [deg]', '<= 2', '{:.2f}'),
    'direction': ('median translation-direction error [deg]', '<= 7', '{:.2f}'),
    'absrel': ('depth AbsRel after one scale a window', '<= 0.10', '{:.3f}'),
    'inliers': ('depth within a factor of 1.25', '>= 0.90', '{:.3f}'),
    'focal': ('median focal error', '<= 4 %', '{:.1%}'),
    'tracked': ('visible points within 3 px (224 wide)', '>= 0.75', '{:.3f}'),
    'visibility': ('visibility accuracy', '>= 0.85', '{:.3f}'),
    'seconds_depth': ('8 frames: camera and depth [s]', '<= 0.5', '{:.2f}'),
    'seconds_tracks': ('8 frames: with 64 tracks [s]', '<= 0.8', '{:.2f}'),
}
_NOTES = f"""\
Poses are judged over all pairs of frames whose baseline is more than {metrics.SMALLEST_BASELINE:.0%} of the window's \
median depth, a pair without an answer as 180 deg; AUC@30 is of the larger of the rotation and the direction error. \
Depth has one scale a window, the median of true over predicted. Tracks start at random pixels of the first frame, not \
at corners. SIFT, ORB and the essential matrix are given the true K."""


@dataclass
class Result:
    """All figures of one contender. seconds: of each timed window, without and with tracks."""

    name: str
    scores: metrics.Scores = field(default_factory=metrics.Scores)
    seconds_depth: list[float] = field(default_factory=list)
    seconds_tracks: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """metrics.FIGURES and the median seconds a window."""
        times = {'seconds_depth': self.seconds_depth, 'seconds_tracks': self.seconds_tracks}
        medians = {name: float(np.median(values)) if values else float('nan') for name, values in times.items()}
        return self.scores.figures() | medians


@dataclass
class Evaluation:
    """results: the network first, then the baselines. kinds: of the world of each window."""

    results: list[Result]
    kinds: list[str]

    def by_kind(self, result: Result) -> dict[str, metrics.Scores]:
        """Kind of world -> the scores of its windows."""
        return {
            kind: result.scores.of([i for i, one in enumerate(self.kinds) if one == kind])
            for kind in sorted(set(self.kinds))
        }


def table(results: Iterable[Result]) -> str:
    """The figures as a Markdown table, a column for each result."""
    results = list(results)
    figures = [result.figures() for result in results]
    lines = [_row(['figure', 'goal', *(result.name for result in results)]), '|---' * (2 + len(results)) + '|']
    lines += [
        _row([title, goal, *(_cell(key, one[key]) for one in figures)]) for key, (title, goal, _) in GOALS.items()
    ]
    return '\n'.join(lines)


def table_by_kind(evaluation: Evaluation) -> str:
    """The figures of the first result by kind of world, as a Markdown table."""
    titles = ('AUC@30', 'rotation [deg]', 'direction [deg]', 'AbsRel', '< 1.25', 'focal', '< 3 px', 'visibility')
    lines = [_row(['world', 'windows', *titles]), '|---' * (2 + len(titles)) + '|']
    for kind, scores in evaluation.by_kind(evaluation.results[0]).items():
        figures = scores.figures()
        cells = [_cell(key, figures[key]) for key in metrics.FIGURES]
        lines.append(_row([kind, str(evaluation.kinds.count(kind)), *cells]))
    return '\n'.join(lines)


def document(evaluation: Evaluation, how: str) -> str:
    """All of it as a Markdown page that shows the plots beside it. how: it was measured, a paragraph."""
    return '\n'.join(
        [
            f'# Evaluation of {evaluation.results[0].name}',
            '',
            f'{how} Written by `python -m vggt_ros.training evaluate`.',
            '',
            table(evaluation.results),
            '',
            _NOTES,
            '',
            f'![Error curves of poses, depth and tracks]({FIGURES_NAME})',
            '',
            '## By kind of world',
            '',
            table_by_kind(evaluation),
            '',
            '## Depth',
            '',
            "The first window of each kind of world, its middle frame. Predicted depth has the window's one scale.",
            '',
            f'![Images with true and predicted depth and their difference]({DEPTH_NAME})',
            '',
        ]
    )


def _row(cells: Iterable[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _cell(figure: str, value: float) -> str:
    return GOALS[figure][2].format(value) if np.isfinite(value) else '-'
