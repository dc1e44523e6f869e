"""What a soak makes of ROS: a camera with habits, a crowd of other nodes, a node that fails on command, its watcher."""
