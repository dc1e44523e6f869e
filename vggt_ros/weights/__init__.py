"""What ships, and which name stands for which network: see :mod:`vggt_ros.weights.registry`."""
