"""The ROS edge: the only folder that imports rclpy."""

import os

# Before NumPy and SciPy are imported, each with an OpenBLAS of its own, which keeps a thread for every core that spins
# while it waits. Our matrices are small: the threads gain nothing, and take the cores from the rest of the robot.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
