"""The `cuda` backend without a GPU: ONNX Runtime on the CPU in place of its CUDA provider, and the
kernels compiled for the CPU in place of the device. Everything between them is the backend's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_shim import ShimBinding, compiled

import handmesh_kernels.bindings
import handmesh_kernels.launcher
from handmesh import backends
from handmesh.backends import Device, cuda
from handmesh.bundle import Bundle
from handmesh.errors import BackendError, BackendUnavailable, InputError
from handmesh.predictor import Predictor
from handmesh.verification import read_reference
from handmesh_converters.export import add_formats
from handmesh_converters.request import Request
from handmesh_kernels import cache
from handmesh_kernels.errors import CompileError, NoDevice

Session = onnxruntime.InferenceSession


@dataclass
class Runtime:
    """What the stand-in of ONNX Runtime was asked, and how it behaves."""

    providers: list[Any] = field(default_factory=list)
    bound: list[tuple[str, str, int]] = field(default_factory=list)
    shown: list[str] = field(
        default_factory=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    falls_back: bool = False
    fails: bool = False


class Binding:
    """Device memory is the host's: tells ONNX Runtime so."""

    def __init__(self, binding: Any, runtime: Runtime) -> None:
        self.binding, self.runtime = binding, runtime

    def bind_input(self, name: str, device: str, number: int, *rest: Any) -> None:
        self.runtime.bound.append((name, device, number))
        self.binding.bind_input(name, "cpu", 0, *rest)

    def bind_output(self, name: str, device: str, number: int, *rest: Any) -> None:
        self.runtime.bound.append((name, device, number))
        self.binding.bind_output(name, "cpu", 0, *rest)


class FakeSession:
    def __init__(self, runtime: Runtime, path: str, options: Any, providers: list[Any]) -> None:
        runtime.providers = providers
        self.runtime = runtime
        self.session = Session(path, options, ["CPUExecutionProvider"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        wanted = [p if isinstance(p, str) else p[0] for p in self.runtime.providers]
        return wanted[-1:] if self.runtime.falls_back else wanted

    def io_binding(self) -> Binding:
        return Binding(self.session.io_binding(), self.runtime)

    def run_with_iobinding(self, io: Binding, options: Any) -> None:
        entry = options.get_run_config_entry("disable_synchronize_execution_providers")
        assert entry == "1", "nobody waits between the trunk and the head"
        if self.runtime.fails:
            raise RuntimeError("CUDA failure 700")
        self.session.run_with_iobinding(io.binding, options)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped network with its artifact, exact."""
    out = tmp_path_factory.mktemp("cuda") / "bundle"
    return add_formats(Bundle.load("light"), ["cuda"], out, Request(precision="fp32")).bundle


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the CPU with")
    return compiled(tmp_path_factory.mktemp("shim"), "fp32")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, library: Path) -> Runtime:
    """As if there were a GPU, a driver, PyCUDA and a GPU's ONNX Runtime."""
    made = Runtime()
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **_: FakeSession(made, *a))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: made.shown)
    # It looks for CUDA's libraries, and says on standard output that there are none.
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(cuda, "_driver", lambda: True)
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        handmesh_kernels.launcher, "open_binding", lambda name, device: ShimBinding(library)
    )
    monkeypatch.setattr(cache, "kernel_code", lambda *_: b"")
    return made


def test_everything_runs_on_one_stream_and_gives_the_reference(
    bundle: Bundle, runtime: Runtime
) -> None:
    images, reference = read_reference(bundle)
    backend = backends.create("cuda", bundle, threads=1)
    output = backend.run(images[:5])

    for got, wanted in zip(output, reference, strict=True):
        np.testing.assert_allclose(got, wanted[:5], rtol=0, atol=2e-5)
    (name, options), rest = runtime.providers[0], runtime.providers[1:]
    assert (name, rest) == ("CUDAExecutionProvider", ["CPUExecutionProvider"])
    assert options["use_tf32"] == 0, "a bundle in float32 is not rounded to ten bits"
    shim: Any = backend._head.binding  # type: ignore[attr-defined]
    assert {str(stream) for _, stream in shim.launched} == {options["user_compute_stream"]}
    names = ["image", "latent", "joints_uv", "confidence", "presence", "handedness"]
    assert runtime.bound == [(each, "cuda", 0) for each in names]
    assert backend.description == (
        f"onnxruntime {onnxruntime.__version__}, CUDAExecutionProvider; graph head in kernels, "
        "fp32, the kernels on the CPU"
    )


def test_more_crops_than_memory_is_taken_for(
    bundle: Bundle, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "MAX_BATCH", 2)
    images, reference = read_reference(bundle)
    output = backends.create("cuda", bundle, threads=1).run(images[:3])
    np.testing.assert_allclose(output.joints, reference.joints[:3], rtol=0, atol=2e-5)


def test_a_photo_through_the_sdk(
    bundle: Bundle, runtime: Runtime, example_photos: dict[str, Path]
) -> None:
    photo = str(example_photos["open"])
    with Predictor(bundle, backend="onnx", threads=1) as plain:
        (wanted,) = plain.predict(photo)
    with Predictor(bundle, backend="cuda", threads=1) as predictor:
        (hand,) = predictor.predict(photo)
    # ONNX's artifact stores its large weights in half.
    assert np.abs(hand.vertices_px - wanted.vertices_px).max() < 0.5
    assert "CUDAExecutionProvider" in hand.backend


def test_tensorrt_keeps_its_engines_where_it_is_told(
    bundle: Bundle, runtime: Runtime, tmp_path: Path
) -> None:
    kept = tmp_path / "engines"
    runtime.shown.insert(0, "TensorrtExecutionProvider")
    with Predictor(bundle, "cuda", 1, "tensorrt", engine_cache=kept):
        pass
    (name, options), (fallback, its_options), last = runtime.providers
    assert name == "TensorrtExecutionProvider"
    assert options["trt_engine_cache_path"] == str(kept)
    assert kept.is_dir()
    assert options["trt_profile_max_shapes"].startswith("image:64x")
    assert (fallback, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert its_options["user_compute_stream"] == options["user_compute_stream"]
    with pytest.raises(InputError, match="device must be one of cuda, tensorrt"):
        cuda.CudaBackend(bundle, 1, Device("vulkan"))

    backends.create("cuda", bundle, 1, "tensorrt")
    assert not any("cache" in option for option in runtime.providers[0][1])
    backends.create("cuda", bundle, 1, "tensorrt", engine_cache=True)
    kept = bundle.folder / ".engines"
    assert runtime.providers[0][1]["trt_engine_cache_path"] == str(kept)
    assert kept.is_dir()
    Bundle.load(bundle.folder).check()
    with pytest.raises(InputError, match="for device 'tensorrt', not 'cuda'"):
        cuda.CudaBackend(bundle, 1, Device("cuda"), engine_cache=kept)


def test_a_provider_that_did_not_load_is_an_error(bundle: Bundle, runtime: Runtime) -> None:
    runtime.falls_back = True
    with pytest.raises(BackendError, match="did not take CUDAExecutionProvider but CPUExecution"):
        backends.create("cuda", bundle)


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [(NoDevice("no GPU 0"), BackendUnavailable), (CompileError("no NVRTC"), BackendError)],
)
def test_errors_of_the_kernels_are_mapped(
    bundle: Bundle,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    becomes: type[Exception],
) -> None:
    def refuse(*_: object) -> None:
        raise raised

    monkeypatch.setattr(handmesh_kernels.launcher, "open_binding", refuse)
    with pytest.raises(becomes, match=str(raised)):
        backends.create("cuda", bundle)


def test_a_device_that_fails_while_running(bundle: Bundle, runtime: Runtime) -> None:
    images, _ = read_reference(bundle)
    backend = backends.create("cuda", bundle)
    runtime.fails = True
    with pytest.raises(BackendError, match="failed on 2 crops: CUDA failure 700"):
        backend.run(images[:2])
    with pytest.raises(InputError, match="the network takes"):
        backend.run(images[:2, :64])


def _missing(what: str) -> Callable[[pytest.MonkeyPatch], None]:
    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        if what == "driver":
            monkeypatch.setattr(cuda, "_driver", lambda: False)
        elif what == "binding":
            monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
        else:
            monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPU"])

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_missing("driver"), "no NVIDIA driver"),
        (_missing("binding"), r"neither is installed: pip install '\.\[cuda\]'"),
        (_missing("provider"), "install onnxruntime-gpu"),
    ],
)
def test_what_is_missing_is_said(
    bundle: Bundle,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    said: str,
) -> None:
    change(monkeypatch)
    with pytest.raises(BackendUnavailable, match=said):
        backends.create("cuda", bundle)


def test_never_taken_where_another_is(bundle: Bundle, runtime: Runtime) -> None:
    assert backends.names()[-1] == "cuda"
    assert backends.create("auto", bundle, threads=1).name != "cuda"
