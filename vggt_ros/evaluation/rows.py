"""All measurements by their names."""

from __future__ import annotations

from collections.abc import Callable

from vggt_ros.evaluation import rows_accuracy
from vggt_ros.evaluation.report import Findings, Settings

ROWS: dict[str, Callable[[Settings], Findings]] = {
    'loop': rows_accuracy.loop,
    'gauge': rows_accuracy.gauge,
    'seam': rows_accuracy.seam,
    'covariance': rows_accuracy.covariance,
    'turn': rows_accuracy.turn,
    'corridor': rows_accuracy.corridor,
}
