# Source this file in bash: it makes the virtual environment, ROS 2 from its wheels and the built workspace current.
# Only for the environment that scripts/setup.sh makes. On a ROS installation source its own setup.bash.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$_root/.venv/bin/activate"
_install=$_root/.workspace/install

# The wheels' libraries do not find each other: their RPATHs are wrong. Their own remedy, re-executing every Python once,
# also reaches Pythons of other environments; this variable switches it off.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
_libraries=$_install/lib:$VIRTUAL_ENV/lib
for _folder in "$VIRTUAL_ENV"/lib/python3.*/site-packages/ros_*.libs; do
  _libraries=$_libraries:$_folder
done
case ${LD_LIBRARY_PATH:-} in
  "$_libraries"*) ;;
  *) export LD_LIBRARY_PATH=$_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ;;
esac

# Set, not extended: a ROS installation that was sourced before must not mix with the wheels. And not through colcon's
# setup scripts, which fail in a folder with a space in its name.
export AMENT_PREFIX_PATH=$_install:$VIRTUAL_ENV CMAKE_PREFIX_PATH=$_install:$VIRTUAL_ENV
_folder=("$VIRTUAL_ENV"/lib/python3.*)
export PYTHONPATH=$_install/lib/${_folder##*/}/site-packages
export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=jazzy RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
# Shared memory that holds whole images, see the file.
export FASTRTPS_DEFAULT_PROFILES_FILE=${FASTRTPS_DEFAULT_PROFILES_FILE:-$_root/config/fastdds.xml}
# rclpy wants to write its log below HOME, which a service or a container may not have.
export ROS_LOG_DIR=${ROS_LOG_DIR:-$_root/.workspace/log/ros}

unset _root _install _libraries _folder
