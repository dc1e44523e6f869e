"""The node left running among faults, as processes: ``python -m vggt_ros.tools.soak``."""
