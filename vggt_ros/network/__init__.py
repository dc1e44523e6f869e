"""VGGT in plain PyTorch. Knows tensors, not ROS, not robots."""

from vggt_ros.network.config import HEADS, ConfigError, VGGTConfig
from vggt_ros.network.vggt import VGGT

__all__ = ['HEADS', 'VGGT', 'ConfigError', 'VGGTConfig']
