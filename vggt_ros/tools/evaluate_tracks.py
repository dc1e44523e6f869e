"""The keypoint tracks against exact correspondences and against KLT alone: a table, its pictures and a clip.

python -m vggt_ros.tools.evaluate_tracks                     # every row, 4 seeds
python -m vggt_ros.tools.evaluate_tracks --rows life --seeds 1
python -m vggt_ros.tools.evaluate_tracks --output docs/reports    # the table into tracking.md there
"""

from __future__ import annotations

import sys

from vggt_ros.evaluation.report import EvaluationSettings
from vggt_ros.evaluation.rows_tracks import ROWS
from vggt_ros.tools.evaluate import command, measure

TABLE = 'tracking.md'


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write when asked to."""
    parser = command('evaluate_tracks', 'Keypoint tracks against exact correspondences, as a table.', ROWS, TABLE, 4)
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error('--seeds must be at least 1')
    return measure(ROWS, given.rows, EvaluationSettings(given.seeds), given.output, TABLE)


if __name__ == '__main__':
    sys.exit(main())
