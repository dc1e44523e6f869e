"""Trajectories, errors and baselines against which the odometry is measured."""
