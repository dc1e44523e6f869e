"""All measurements by their names."""

from __future__ import annotations

from collections.abc import Callable

from vggt_ros.evaluation import rows_accuracy, rows_cost, rows_failures, rows_folders, rows_input, rows_real
from vggt_ros.evaluation.report import EvaluationSettings, Findings

ROWS: dict[str, Callable[[EvaluationSettings], Findings]] = {
    'loop': rows_accuracy.loop,
    'gauge': rows_accuracy.gauge,
    'seam': rows_accuracy.seam,
    'covariance': rows_accuracy.covariance,
    'turn': rows_accuracy.turn,
    'corridor': rows_accuracy.corridor,
    'standstill': rows_failures.standstill,
    'blank': rows_failures.blank,
    'passing': rows_failures.passing,
    'teleport': rows_failures.teleport,
    'noise': rows_failures.noise,
    'look_alike': rows_failures.look_alike,
    'wrong_focal': rows_input.wrong_focal,
    'off-centre': rows_input.off_centre,
    'misjudged': rows_input.misjudged,
    'uncalibrated': rows_input.uncalibrated,
    'missing': rows_input.missing,
    'alignment': rows_cost.alignment,
    'long_run': rows_cost.long_run,
    'recorded': rows_real.recorded,
    'tiny': rows_real.tiny,
    'folders': rows_folders.folders,
}
