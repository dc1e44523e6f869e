"""From windows to one world: window selection, alignment, keyframes. numpy and scipy only: no torch, no ROS."""
