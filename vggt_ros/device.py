"""The device that computes: which one, why not a better one, what its errors mean, and giving its memory back."""

from __future__ import annotations

import gc
import os
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch

from vggt_ros.types import DeviceError, DeviceMemoryError

_OWN_THREADS = torch.get_num_threads()  # torch's own choice, before anybody makes another

# What torch and the libraries below it say when there is too little memory, on the device or on the host. cuBLAS and
# cuDNN report a failed allocation as "not initialised", "not supported", "internal error" or find no algorithm; the
# assertion about NVML fails while torch words its own message about memory.
_MEMORY = re.compile(
    r'out of memory|(can.t|cannot) allocate memory|DefaultCPUAllocator|_ALLOC_FAILED|ALLOCATION_FAILED'
    r'|_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_SUPPORTED|CUDNN_STATUS_INTERNAL_ERROR|unable to find an engine'
    r'|NVML_SUCCESS',
    re.IGNORECASE,
)
_LOST = re.compile(
    r'\b(CUDA|HIP) (driver |unknown )?error|\bcu(DNN|BLAS|SOLVER|SPARSE|FFT|RAND)\w* error|\bCU[A-Z]+_STATUS_'
    r'|Triton Error',
    re.IGNORECASE,
)

_NVIDIA_NODES = ('nvidia[0-9]*', 'nvhost-gpu', 'nvmap')  # below /dev, the latter two on Jetson
_NVIDIA_VENDOR, _DISPLAY = '0x10de', '0x03'  # of PCI


@dataclass(frozen=True)
class Failure:
    """What became of work on a device.

    memory: there was too little, less work may fit; else the device is lost: only a new process can use it again.
    reason: the first line of the error.
    """

    memory: bool
    reason: str


def failure_of(error: BaseException) -> Failure | None:
    """What an error says of the device, or of the host's memory; None when it is about something else.

    Besides torch's own classes there are plain RuntimeErrors of the libraries below it, known by their words only.
    """
    reason = _first_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failure(True, reason)
    if isinstance(error, RuntimeError):
        if _MEMORY.search(str(error)):
            return Failure(True, reason)
        if isinstance(error, torch.AcceleratorError) or _LOST.search(str(error)):
            return Failure(False, reason)
    return None


def _first_line(error: BaseException) -> str:
    return shorten((str(error) or type(error).__name__).splitlines()[0], 160)


def release(device: torch.device) -> None:
    """Give back what nobody uses any more: cycles to Python, torch's cached blocks to the device."""
    gc.collect()
    if device.type == 'cuda':
        try:
            # Some MiB for each thread that has multiplied matrices, which empty_cache alone leaves.
            if clear := getattr(torch._C, '_cuda_clearCublasWorkspaces', None):
                clear()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            if failure_of(error) is None:
                raise
            # A lost device keeps its memory until the process ends.


@dataclass(frozen=True)
class Choice:
    """The device to compute on.

    reason: why it is not a GPU, where nobody asked for the CPU. warning: whether that deserves one: a GPU is here.
    """

    device: torch.device
    reason: str = ''
    warning: bool = False


def choose_device(name: str) -> Choice:
    """'auto' is CUDA where it works, else the CPU.

    Raises DeviceError for a device that is not there or cannot compute, and DeviceMemoryError for one that is full,
    by 'auto' as well: that passes.
    """
    if name == 'auto':
        device = torch.device('cuda', 0)
        obstacle = _obstacle(device)
        if obstacle is None:
            return Choice(device)
        if _has_nvidia():
            reason = f'the CPU computes, although an NVIDIA GPU is in this machine: {obstacle}'
            return Choice(torch.device('cpu'), reason, warning=True)
        return Choice(torch.device('cpu'), 'no NVIDIA GPU in this machine')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f'{name!r} is not a device: use auto, cpu, cuda or cuda:N') from error
    if device.type == 'cuda':
        # With its number: to ask for that later would be a question to a device that may be lost.
        device = torch.device('cuda', device.index or 0)
    if obstacle := _obstacle(device):
        raise DeviceError(f'{name} cannot be used: {obstacle}')
    return Choice(device)


def _obstacle(device: torch.device) -> str | None:
    """Why nothing can be computed there, None where it can. Raises DeviceMemoryError."""
    try:
        if device.type == 'cuda':
            if not torch.backends.cuda.is_built():
                return f'torch {torch.__version__} was built without CUDA'
            if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
                return 'CUDA_VISIBLE_DEVICES hides all GPUs'
            torch.cuda.init()  # says what is wrong with the driver
            if device.index >= torch.cuda.device_count():
                return f'torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices'
        ones = torch.ones(8, 8, device=device)
        (ones @ ones).sum().item()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        failure, reason = failure_of(error), _first_line(error)
    else:
        return None
    if failure is not None and failure.memory:
        raise DeviceMemoryError(f'{device} has no memory left ({reason}): free some, or choose another device')
    if 'no kernel image' in reason:
        major, minor = torch.cuda.get_device_capability(device)
        kernels = ', '.join(torch.cuda.get_arch_list())
        return f'torch {torch.__version__} has no kernels for its sm_{major}{minor}, but for {kernels}'
    return reason


def _has_nvidia() -> bool:
    """Whether an NVIDIA GPU is in this machine, whatever the driver or a container makes of it."""
    if any(next(Path('/dev').glob(pattern), None) for pattern in _NVIDIA_NODES):
        return True
    for card in Path('/sys/bus/pci/devices').glob('*'):
        try:
            if (card / 'vendor').read_text().strip() == _NVIDIA_VENDOR and (
                (card / 'class').read_text().startswith(_DISPLAY)
            ):
                return True
        except OSError:
            continue
    return False


def choose_precision(name: str, device: torch.device) -> str:
    """'auto' is bfloat16 on GPUs that compute in it (compute capability 8 and later), else float32."""
    if name != 'auto':
        return name
    fast = device.type == 'cuda' and torch.cuda.get_device_capability(device) >= (8, 0)
    return 'bfloat16' if fast else 'float32'


def set_threads(threads: int) -> None:
    """CPU threads of torch, 0 = leave its own choice."""
    if threads:
        torch.set_num_threads(threads)


def spare_core() -> int:
    """As many threads as leave a core to whatever else the process does, and no more than torch would take.

    torch's threads wait for each other at work: with one on every core they all wait for the one that has to share.
    """
    return max(1, min(_OWN_THREADS, len(os.sched_getaffinity(0)) - 1))


def own_threads(device: torch.device) -> int:
    """CPU threads of torch where nobody asks for a number: one beside a GPU, where there is no work to share."""
    return spare_core() if device.type == 'cpu' else 1
