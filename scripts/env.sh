# Source this file in bash: it makes the virtual environment, ROS 2 from its wheels and the built workspace current.
# Only for the environment that scripts/setup.sh makes. On a ROS installation source its own setup.bash.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_nounset=$(shopt -po nounset)
set +u # the setup scripts of venv and colcon read unset variables

# A ROS installation that was sourced before must not mix with the wheels.
unset PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH COLCON_CURRENT_PREFIX
. "$_root/.venv/bin/activate"

# The wheels' libraries do not find each other: their RPATHs are wrong. Their own remedy, re-executing every Python once,
# also reaches Pythons of other environments; this variable switches it off.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
_libraries=$VIRTUAL_ENV/lib
for _folder in "$VIRTUAL_ENV"/lib/python3.*/site-packages/ros_*.libs; do
  _libraries=$_libraries:$_folder
done
case ":${LD_LIBRARY_PATH:-}:" in
  *":$_libraries:"*) ;;
  *) export LD_LIBRARY_PATH=$_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ;;
esac

export AMENT_PREFIX_PATH=$VIRTUAL_ENV CMAKE_PREFIX_PATH=$VIRTUAL_ENV
export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=jazzy RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
# rclpy wants to write its log below HOME, which a service or a container may not have.
export ROS_LOG_DIR=${ROS_LOG_DIR:-$_root/.workspace/log/ros}

if [ -f "$_root/.workspace/install/local_setup.bash" ]; then
  . "$_root/.workspace/install/local_setup.bash"
fi
eval "$_nounset"
unset _root _nounset _libraries _folder
