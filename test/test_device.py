"""The device: which one and why, and what its errors mean."""

import pytest
import torch

from vggt_ros import device
from vggt_ros.device import Choice, choose_device, choose_precision, failure_of, release
from vggt_ros.types import DeviceError, DeviceMemoryError

CPU = torch.device('cpu')

# As torch 2.8 and later, and the libraries below it, word them.
FULL = [
    torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB'),
    torch.AcceleratorError('CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported'),
    RuntimeError('CUDA driver error: out of memory'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
    RuntimeError('CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`'),
    RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'),
    RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
    RuntimeError(
        'cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.'
    ),
    RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR'),
    RuntimeError('GET was unable to find an engine to execute this computation'),
    RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1131'),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 12"),
    RuntimeError('unable to mmap 5028 bytes from file <a.pt>: Cannot allocate memory (12)'),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError('CUDA error: an illegal memory access was encountered'),
    torch.AcceleratorError('CUDA error: device-side assert triggered'),
    torch.AcceleratorError('words that nobody knows yet'),
    RuntimeError('CUDA driver error: unknown error'),
    RuntimeError('CUDA unknown error - this may be due to an incorrectly set up environment'),
    RuntimeError('CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`'),
    RuntimeError('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED'),
    RuntimeError('Triton Error [CUDA]: misaligned address'),
]
OTHERS = [
    RuntimeError('The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1'),
    RuntimeError('current error of this custom error handler'),
    NotImplementedError("Could not run 'aten::foo' with arguments from the 'CPU' backend."),
    ValueError('out of memory'),
    KeyError(3),
]


@pytest.mark.parametrize('error', FULL, ids=str)
def test_too_little_memory_has_many_words(error):
    failure = failure_of(error)
    assert failure.memory
    assert failure.reason
    assert '\n' not in failure.reason


@pytest.mark.parametrize('error', LOST, ids=str)
def test_a_lost_device_has_many_words(error):
    assert not failure_of(error).memory


@pytest.mark.parametrize('error', OTHERS, ids=str)
def test_other_errors_are_not_the_devices(error):
    assert failure_of(error) is None


def test_a_device_that_is_lost_gives_nothing_back_and_that_is_no_new_error(monkeypatch):
    def gone():
        raise torch.AcceleratorError('CUDA error: an illegal memory access was encountered')

    monkeypatch.setattr(torch.cuda, 'empty_cache', gone)
    release(torch.device('cuda', 0))


def test_what_is_kept_for_multiplying_is_given_back_before_the_rest(monkeypatch):
    done = []
    monkeypatch.setattr(torch._C, '_cuda_clearCublasWorkspaces', lambda: done.append('workspaces'), raising=False)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: done.append('cache'))
    release(torch.device('cuda', 0))
    assert done == ['workspaces', 'cache']


# Which one


@pytest.fixture
def machine(monkeypatch):
    """A machine to be furnished: a GPU or none, what torch was built for, what it says to the first work."""

    def furnish(gpu, built=True, driver=None, count=1, work=None, hidden=None):
        def raising(error):
            def call(*args, **kwargs):
                if error is not None:
                    raise error
                return torch.zeros(8, 8, device='cpu')

            return call

        ones = raising(work)
        monkeypatch.setattr(device, '_has_nvidia', lambda: gpu)
        monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: built)
        monkeypatch.setattr(torch.cuda, 'init', raising(driver))
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (5, 2))
        monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: ['sm_75', 'sm_90'])
        monkeypatch.setattr(torch, 'ones', lambda *args, **kwargs: ones())
        if hidden is None:
            monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        else:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)

    return furnish


OLD_DRIVER = RuntimeError('The NVIDIA driver on your system is too old (found version 11040). Please update')
NO_KERNEL = torch.AcceleratorError('CUDA error: no kernel image is available for execution on the device\nCompile')
FULL_GPU = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 MiB')
UNUSABLE = [
    ({'built': False}, 'was built without CUDA'),
    ({'hidden': ''}, 'CUDA_VISIBLE_DEVICES hides'),
    ({'driver': OLD_DRIVER}, 'driver on your system is too old'),
    ({'driver': torch.cuda.DeferredCudaCallError('CUDA call failed lazily')}, 'failed lazily'),
    ({'count': 0}, 'sees 0 CUDA devices'),
    ({'work': NO_KERNEL}, 'no kernels for its sm_52, but for sm_75, sm_90'),
    ({'work': LOST[0]}, 'illegal memory access'),
]


def test_auto_is_cuda_where_it_works(machine):
    machine(gpu=True)
    assert choose_device('auto') == Choice(torch.device('cuda', 0))
    assert choose_device('cuda').device == torch.device('cuda', 0)


@pytest.mark.parametrize(('faults', 'reason'), UNUSABLE)
def test_a_gpu_that_cannot_be_used_is_missed_aloud(machine, faults, reason):
    machine(gpu=True, **faults)
    choice = choose_device('auto')
    assert (choice.device, choice.warning) == (CPU, True)
    assert reason in choice.reason
    with pytest.raises(DeviceError, match=rf'cuda cannot be used: .*{reason}'):
        choose_device('cuda')


@pytest.mark.parametrize(('faults', 'reason'), UNUSABLE[:5])
def test_where_there_is_no_gpu_nothing_is_amiss(machine, faults, reason):
    machine(gpu=False, **faults)
    assert choose_device('auto') == Choice(CPU, 'no NVIDIA GPU in this machine', warning=False)


@pytest.mark.parametrize('name', ['auto', 'cuda'])
def test_a_gpu_that_is_full_is_not_exchanged_for_the_cpu(machine, name):
    machine(gpu=True, work=FULL_GPU)
    with pytest.raises(DeviceMemoryError, match='no memory left'):
        choose_device(name)


@pytest.mark.parametrize(
    ('name', 'words'), [('tpu9000', 'is not a device'), ('cuda:31', 'cannot be used'), ('meta', 'cannot be used')]
)
def test_a_device_that_is_not_there_is_refused(name, words):
    with pytest.raises(DeviceError, match=words):
        choose_device(name)


def test_the_cpu_needs_no_reason():
    assert choose_device('cpu') == Choice(CPU)


def test_precisions():
    assert choose_precision('auto', CPU) == 'float32'
    assert choose_precision('bfloat16', CPU) == 'bfloat16'


@pytest.mark.parametrize(('cores', 'own', 'left'), [(1, 1, 1), (2, 2, 1), (8, 4, 4), (8, 8, 7)])
def test_a_core_is_left_to_the_others(cores, own, left, monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(cores)))
    monkeypatch.setattr(device, '_OWN_THREADS', own)
    assert device.spare_core() == left


def test_beside_a_gpu_one_thread_is_enough(monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(16)))
    monkeypatch.setattr(device, '_OWN_THREADS', 16)
    assert device.own_threads(torch.device('cuda', 0)) == 1
    assert device.own_threads(CPU) == 15
