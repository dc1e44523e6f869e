"""COLMAP on a folder of pictures whose camera is known, in a process of its own: what leisure and corners can do.

python -m vggt_ros.evaluation.colmap PICTURES FX FY CX CY      # (pixels, integer = centre) prints a line of JSON

The line: {"models": how many, "pictures": {name: [x, y, z]}}, positions of the largest model in its own unit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np


def positions(pictures: Path, K: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
    """(models that it breaks into, position (3,) by the name of each picture in the largest). K: (3, 3).

    Raises RuntimeError with what it said last where it fails.
    """
    numbers = [repr(float(x)) for x in K[[0, 1, 0, 1], [0, 1, 2, 2]]]
    command = [sys.executable, '-m', 'vggt_ros.evaluation.colmap', str(pictures), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'COLMAP failed: {(done.stderr.strip().splitlines() or ["no word"])[-1]}')
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found['models'], {name: np.array(place) for name, place in found['pictures'].items()}


def main(arguments: list[str]) -> int:
    """Reconstruct, and print the line."""
    import pycolmap

    pictures, focal_x, focal_y, centre_x, centre_y = Path(arguments[0]), *map(float, arguments[1:])
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = 'PINHOLE'
    # COLMAP's pixel centres lie at 0.5.
    reader.camera_params = f'{focal_x},{focal_y},{centre_x + 0.5},{centre_y + 0.5}'
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    with TemporaryDirectory(prefix='colmap_') as work:
        database = Path(work) / 'database.db'
        pycolmap.extract_features(
            database,
            pictures,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            device=pycolmap.Device.cpu,
        )
        pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
        models = pycolmap.incremental_mapping(database, pictures, Path(work), options)
        largest = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
        found = {} if largest is None else {x.name: x.projection_center().tolist() for x in largest.images.values()}
    print(json.dumps({'models': len(models), 'pictures': found}))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
