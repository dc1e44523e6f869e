"""VGGT as a robot's sense: camera motion, depth, 3-D map and keypoint tracks over ROS 2."""

from pkgutil import extend_path

# The built messages (vggt_ros.msg) and this source tree are one package, wherever Python finds each of them.
__path__ = extend_path(__path__, __name__)
