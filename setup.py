"""Install the part that needs no ROS: network, inference, odometry, synthetic worlds, training, tools.

The ROS package (messages, node, launch files) is built by colcon from CMakeLists.txt.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

HERE = Path(__file__).parent

# On a ROS installation these come from the system, through package.xml.
FROM_THE_SYSTEM = [
    'matplotlib>=3.5',
    'numpy>=1.21',
    'opencv-python-headless>=4.5,<5',
    'Pillow>=9',
    'PyYAML>=5.4',
    'scipy>=1.8',
    'tqdm>=4.57',
]
FROM_PIP = [line for line in (HERE / 'requirements.txt').read_text().splitlines() if line and not line.startswith('#')]

setup(
    version=ElementTree.parse(HERE / 'package.xml').findtext('version'),
    install_requires=FROM_THE_SYSTEM + FROM_PIP,
)
