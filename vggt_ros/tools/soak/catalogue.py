"""All faults by name, in the order in which they happen: those that end the process come first, then
large images: what they needed stays with the process."""

from __future__ import annotations

from vggt_ros.tools.soak import faults_input, faults_inside, faults_process
from vggt_ros.tools.soak.faults import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*faults_process.FAULTS, *faults_input.FAULTS, *faults_inside.FAULTS)
}
