"""``~/save_map``: from the map's thread into files."""

from __future__ import annotations

from concurrent import futures
from datetime import datetime
from pathlib import Path

from vggt_ros.map_export import MapExportError, save_map
from vggt_ros.ros.map_keeper import MapContents, MapKeeper

PATIENCE = 60.0  # seconds until the map's thread must have answered


def save(keeper: MapKeeper, folder: str) -> tuple[bool, str]:
    """Save the map as it is now. Whether that was done, and what was written or what stood in the way.

    folder: see srv/SaveMap.srv. Takes seconds for a map of a million points: call it where nobody waits.
    """
    try:
        cloud, trajectory, keyframes, scale, epoch = keeper.ask(_gather).result(PATIENCE)
        return True, save_map(folder or _fresh_folder(), cloud, trajectory, keyframes, scale, epoch)
    except futures.CancelledError:
        return False, 'the node is shutting down or cleaning up, the map is gone'
    except futures.TimeoutError:
        return False, f'the map was busy for {PATIENCE:.0f} s: try again'
    except (MapExportError, ValueError) as error:
        return False, str(error)


def _gather(contents: MapContents) -> tuple:
    history, epoch = contents.history, contents.map.epoch
    return contents.map.cloud(), history.trajectory(), history.pinholes(), contents.scale, epoch or 0


def _fresh_folder() -> Path:
    """A folder in the current one that does not exist yet, named by date and time."""
    name = f'vggt_map_{datetime.now():%Y-%m-%d_%H-%M-%S}'
    folder, number = Path(name), 1
    while folder.exists():
        number += 1
        folder = Path(f'{name}_{number}')
    return folder
