"""PyCUDA and CuPy as the bindings use them, with stand-ins that record what they are asked.

The stand-ins keep to the packages' documented interfaces; only a GPU shows whether they do.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from handmesh_kernels import bindings
from handmesh_kernels.errors import KernelError, NoDevice
from handmesh_kernels.params import HEAD_PARAMS
from handmesh_kernels.plan import Launch

LAUNCH = Launch("hm_expand_1", (80, 3), 256)


class Recorder:
    """Remembers calls by name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.depth = 0

    def __call__(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, arguments))


@pytest.fixture
def params() -> np.ndarray:
    one = np.zeros(1, HEAD_PARAMS)
    one["batch"] = 3
    return one


class Stream:
    """Of either package: `ptr` is CuPy's, `handle` PyCUDA's name."""

    def __init__(self, flags: int = 0, ptr: int = 4242, non_blocking: bool = False) -> None:
        self.flags, self.ptr, self.handle, self.non_blocking = flags, ptr, ptr, non_blocking
        self.waited = 0

    def synchronize(self) -> None:
        self.waited += 1


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    record = Recorder()

    class Context:
        def push(self) -> None:
            record.depth += 1

        def pop(self) -> None:
            record.depth -= 1

        def detach(self) -> None:
            pass

        def synchronize(self) -> None:
            record("all", record.depth)

    class Device:
        def __init__(self, number: int) -> None:
            if number > 0:
                raise driver.Error("invalid device ordinal")

        def retain_primary_context(self) -> Context:
            return Context()

        def compute_capability(self) -> tuple[int, int]:
            return 8, 7

        def name(self) -> str:
            return "Orin"

    class Function:
        def prepare(self, types_: list[str]) -> Function:
            record("prepare", types_)
            return self

        def prepared_async_call(self, grid: Any, block: Any, stream: Any, *args: Any) -> None:
            assert record.depth == 1, "in the device's context"
            record("call", grid, block, stream, *args)

    driver: Any = types.ModuleType("pycuda.driver")
    driver.Error = type("Error", (Exception,), {})
    driver.Device, driver.Stream = Device, Stream
    driver.init = lambda: None
    driver.mem_alloc = lambda size: 1 << 20
    driver.module_from_buffer = lambda code: types.SimpleNamespace(
        get_function=lambda name: Function()
    )
    driver.memcpy_htod_async = lambda *a: record("in", *a)
    driver.memcpy_dtoh_async = lambda *a: record("out", *a)
    package: Any = types.ModuleType("pycuda")
    package.driver, package.VERSION_TEXT = driver, "2026.1"
    package.__spec__ = driver.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr("handmesh_kernels.bindings.pycuda._contexts", {})
    return record


def test_pycuda(pycuda: Recorder, params: np.ndarray) -> None:
    binding = bindings.open_binding("pycuda")
    assert (binding.architecture, binding.description) == (87, "Orin, sm_87, PyCUDA 2026.1")
    stream = binding.new_stream()
    assert stream.thing.flags == 1, "it does not wait for the default stream"
    assert binding.handle(stream) == 4242
    assert binding.allocate(8).pointer == 1 << 20
    function = binding.function(binding.load(b"code"), "hm_expand_1")
    binding.launch(function, LAUNCH, params, stream)
    binding.copy_in(7, params, stream)
    out = np.zeros((2, 3), np.float32)
    binding.copy_out(7, out, stream)
    binding.synchronize(stream)
    assert stream.thing.waited == 2
    prepare, call, copied_in, copied_out = pycuda.calls
    assert prepare == ("prepare", ([f"{HEAD_PARAMS.itemsize}s"],))
    assert call == ("call", ((80, 3), (256, 1, 1), stream.thing, params.tobytes()))
    assert copied_in[1][0] == 7
    assert copied_in[1][1].tobytes() == params.tobytes()
    copied_out[1][0][:] = 0xFF
    assert np.isnan(out).all(), "copies go into the array itself"
    assert pycuda.depth == 0


def test_pycuda_says_what_it_cannot(pycuda: Recorder, params: np.ndarray) -> None:
    binding = bindings.open_binding("pycuda")
    function = binding.function(binding.load(b""), "hm_expand_1")
    with pytest.raises(KernelError, match="streams of its own only"):
        binding.launch(function, LAUNCH, params, 4242)
    with pytest.raises(KernelError, match="cannot record CUDA graphs"):
        binding.capture(binding.new_stream(), lambda: None)
    assert pycuda.depth == 0
    with pytest.raises(NoDevice, match="no GPU 1: invalid device ordinal"):
        bindings.open_binding("pycuda", device=1)


def test_pycuda_waits_for_foreign_streams_with_all_others(pycuda: Recorder) -> None:
    bindings.open_binding("pycuda").wait(4242)
    assert pycuda.calls == [("all", (1,))], "in the device's context"
    assert pycuda.depth == 0


def test_pycuda_without_a_driver(monkeypatch: pytest.MonkeyPatch, pycuda: Recorder) -> None:
    package: Any = types.ModuleType("pycuda")  # its driver module does not import
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(NoDevice, match="no NVIDIA driver here"):
        bindings.open_binding("pycuda")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    record = Recorder()

    class Device:
        compute_capability = "90"

        def __init__(self, number: int) -> None:
            pass

        def __enter__(self) -> None:
            record.depth += 1

        def __exit__(self, *_: object) -> None:
            record.depth -= 1

    class CupyStream(Stream):
        def __enter__(self) -> None:
            record("current", self.ptr)

        def __exit__(self, *_: object) -> None:
            pass

        def begin_capture(self) -> None:
            record("begin", self.ptr)

        def end_capture(self) -> Any:
            record("end", self.ptr)
            return types.SimpleNamespace(launch=lambda stream: record("replay", stream.ptr))

    class Module:
        def load(self, code: bytes) -> None:
            record("load", code)

        def get_function(self, name: str) -> Any:
            return lambda *a: record("call", *a)

    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda number: {"name": b"H100"},
        memcpyAsync=lambda *a: record("copy", *a),
        streamSynchronize=lambda handle: record("wait", handle, record.depth),
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
    )
    package: Any = types.ModuleType("cupy")
    package.__version__, package.__spec__ = "14.2.0", types.SimpleNamespace()
    package.cuda = types.SimpleNamespace(
        Device=Device,
        Stream=CupyStream,
        ExternalStream=lambda ptr: CupyStream(ptr=ptr),
        Memory=lambda size: types.SimpleNamespace(ptr=512),
        function=types.SimpleNamespace(Module=Module),
        runtime=runtime,
    )
    monkeypatch.setitem(sys.modules, "cupy", package)
    return record


def test_cupy(cupy: Recorder, params: np.ndarray) -> None:
    binding = bindings.open_binding("cupy")
    assert (binding.architecture, binding.description) == (90, "H100, sm_90, CuPy 14.2.0")
    stream = binding.new_stream()
    assert stream.non_blocking
    assert binding.handle(77) == 77
    function = binding.function(binding.load(b"code"), "hm_expand_1")
    binding.launch(function, LAUNCH, params, stream)
    binding.launch(function, LAUNCH, params, 77)
    binding.copy_in(7, params, stream)
    binding.copy_out(7, params, stream)
    names = [name for name, _ in cupy.calls]
    assert names == ["load", "call", "call", "copy", "copy"]
    grid, block, (given,), shared, on = cupy.calls[1][1]
    assert (grid, block, shared, on) == ((80, 3), (256,), 0, stream)
    assert given is params
    assert cupy.calls[2][1][4].ptr == 77, "a foreign stream"
    address = params.ctypes.data
    assert cupy.calls[3][1] == (7, address, params.nbytes, 1, 4242)
    assert cupy.calls[4][1] == (address, 7, params.nbytes, 2, 4242)
    assert stream.waited == 1
    assert cupy.depth == 0
    with pytest.raises(KernelError, match="not str"):
        binding.launch(function, LAUNCH, params, "a stream")


@pytest.mark.parametrize("handle", [1, 2, 4242])
def test_cupy_waits_for_foreign_streams(cupy: Recorder, handle: int) -> None:
    bindings.open_binding("cupy").wait(handle)
    assert cupy.calls == [("wait", (handle, 1))]


def test_cupy_records_graphs(cupy: Recorder) -> None:
    binding = bindings.open_binding("cupy")
    replay = binding.capture(binding.new_stream(), lambda: cupy("work"))
    replay(77)
    assert [name for name, _ in cupy.calls] == ["current", "begin", "work", "end", "replay"]
    assert cupy.calls[-1] == ("replay", (77,))


def test_cupy_without_a_gpu(cupy: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoDevice, match="finds 1 GPUs, and no number 1"):
        bindings.open_binding("cupy", device=1)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(NoDevice, match=r"not installed|finds no GPU"):
        bindings.open_binding("cupy")


def test_pycuda_comes_first(pycuda: Recorder, cupy: Recorder) -> None:
    assert bindings.open_binding().name == "pycuda"
