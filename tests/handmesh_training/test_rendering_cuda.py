"""The GPU's renderer: on a GPU where there is one; its kernels' bodies on the CPU everywhere."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handmesh.errors import BackendError, BackendUnavailable, InputError
from handmesh_training.rendered import HandRenderer, RenderSettings, Scene
from handmesh_training.rendering import Appearance, Renderer, devices, native, native_cuda
from handmesh_training.rendering.devices import CudaDevice, HostDevice, checked_tensor, open_device

SHIM = Path(__file__).parent / "shim" / "cuda_shim.h"
SOURCES = Path(native.__file__).parent
COUNT, SIZE = 6, 64
LABELS = ("mask", "depth", "parts", "normals")

# No fast arithmetic: two inlinings of one function then give the same bits.
PLAIN_FLAGS = ("-std=c++14", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread")


class ShimDevice(HostDevice):
    """device.cu on the CPU, with threads in some order and memory for some pictures at a time."""

    def __init__(self, library: ctypes.CDLL, order: int, capacity: int) -> None:
        self.threads = 1
        self._library = native_cuda.declared(library)
        self.order = order
        self.capacity = capacity

    def render(self, *structs: Any) -> None:
        mesh, _, _, batch, _ = structs
        stride = self._library.hm_device_stride(ctypes.byref(mesh), ctypes.byref(batch))
        # Filled with rubbish, as memory of a GPU is; a border behind shows writes outside.
        memory = np.full(stride * self.capacity + 64, 0xA5, dtype=np.uint8)
        self._library.hm_shim_order(self.order)
        status = self._library.hm_device_render(
            *(ctypes.byref(s) for s in structs),
            ctypes.c_void_p(memory.ctypes.data),
            ctypes.c_int64(stride * self.capacity),
            0,
            None,
        )
        if status != 0:
            raise BackendError(self._library.hm_device_error(status).decode())
        assert (memory[-64:] == 0xA5).all()


def compiled(folder: Path, source: str, *more: str) -> ctypes.CDLL:
    target = folder / f"{Path(source).stem}.so"
    command = [native.find_compiler(), *PLAIN_FLAGS, *more, str(SOURCES / source)]
    subprocess.run([*command, "-o", str(target)], check=True)
    return native.opened(target)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("shim")
    return compiled(folder, "device.cu", "-x", "c++", "-include", str(SHIM))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("plain"), "host.cpp")


@pytest.fixture(scope="module")
def hands() -> HandRenderer:
    return HandRenderer(RenderSettings(crop_px=SIZE, empty=0.2), seed=0)


def pictures_of(hands: HandRenderer, device: Any, inputs: Any) -> dict[str, Any]:
    """Every output of one device for the same scenes."""
    own = hands.renderer._device
    hands.renderer._device = device
    try:
        result = hands.renderer.render(*inputs, depth=True, parts=True, normals=True)
    finally:
        hands.renderer._device = own
    return {f.name: getattr(result, f.name) for f in fields(result)}


@pytest.mark.parametrize(("order", "capacity"), [(0, COUNT), (1, COUNT), (2, 4), (1, 1)])
def test_kernels_give_the_bytes_of_the_cpu_in_any_order_of_threads(
    hands: HandRenderer, shim: ctypes.CDLL, plain: ctypes.CDLL, order: int, capacity: int
) -> None:
    scene = hands.scene(3, COUNT)
    inputs = (scene.vertices_m, scene.views.intrinsics, scene.look)
    host = HostDevice(1)
    host._library = plain
    expected = pictures_of(hands, host, inputs)
    before = shim.hm_shim_launches()
    got = pictures_of(hands, ShimDevice(shim, order, capacity), inputs)
    assert shim.hm_shim_launches() - before == 7 * -(-COUNT // capacity)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)
    assert expected["mask"].max() == 255, "there are hands"


def test_no_memory_for_a_picture_is_an_error(hands: HandRenderer, shim: ctypes.CDLL) -> None:
    scene = hands.scene(3, 1)
    inputs = (scene.vertices_m, scene.views.intrinsics, scene.look)
    with pytest.raises(BackendError, match="invalid argument"):
        pictures_of(hands, ShimDevice(shim, 0, 0), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["90"])
def test_device_code_compiles(architecture: str, tmp_path: Path) -> None:
    try:
        native_cuda.find_compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    path = native_cuda.build(architecture, tmp_path)
    assert native_cuda.build(architecture, tmp_path) == path, "the second time it is there"
    assert list(tmp_path.iterdir()) == [path]
    # The launches can be looked up without a GPU, and the structs fit.
    library = native_cuda.declared(native.opened(path))
    assert library.hm_device_render is not None


def test_without_a_compiler_the_error_says_where_it_was_sought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BackendUnavailable, match=r"\$CUDA_HOME"):
        native_cuda.find_compiler()


def test_a_named_compiler_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setenv("NVCC", "/opt/mine/nvcc")
    assert native_cuda.find_compiler() == "/opt/mine/nvcc"
    monkeypatch.delenv("NVCC")
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    assert native_cuda.find_compiler() == "/opt/cuda/bin/nvcc"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", ""])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="'cuda:N'"):
        open_device(name, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_without_a_gpu_the_error_says_so() -> None:
    with pytest.raises(BackendUnavailable, match="sees no CUDA GPU"):
        open_device("cuda", 1)


def test_tensors_are_checked_in_kind_and_shape_and_clamped() -> None:
    numbers = checked_tensor("skin", torch.tensor([-3, 1, 9]), np.int32, (3,), 0, 5)
    assert numbers.dtype == torch.int32
    assert numbers.tolist() == [0, 1, 5]
    values = torch.tensor([[0.5, 7.0]], dtype=torch.float64)
    floats = checked_tensor("gloss", values, np.float32, (None, 2), 0.0, 1.0)
    assert floats.dtype == torch.float32
    assert floats.tolist() == [[0.5, 1.0]]
    for wrong in (torch.tensor([1.0]), torch.tensor([True]), torch.tensor([[1]])):
        with pytest.raises(InputError, match="skin"):
            checked_tensor("skin", wrong, np.int32, (1,), 0, 5)


def on_gpu(scene: Scene) -> tuple[torch.Tensor, torch.Tensor, Appearance]:
    look: dict[str, Any] = {
        f.name: torch.from_numpy(getattr(scene.look, f.name)).cuda() for f in fields(Appearance)
    }
    points, lens = torch.from_numpy(scene.vertices_m), torch.from_numpy(scene.views.intrinsics)
    return points.cuda(), lens.cuda(), Appearance(**look)


def gpu(hands: HandRenderer, size: int = SIZE) -> Renderer:
    own = hands.renderer
    return Renderer(
        own.mesh, hands.skins, hands.environments, hands.backgrounds, size=size, device="cuda"
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_pictures_of_a_gpu_are_those_of_the_cpu(hands: HandRenderer) -> None:
    """Both round differently: a sample in ten thousand may change sides, a level may jump by one.

    Tolerance: labels equal in 99.9 % of the pixels; colours within 2 levels in 99.5 %, and off by
    0.1 level on average.
    """
    scene = hands.scene(0, 32)
    inputs = (scene.vertices_m, scene.views.intrinsics, scene.look)
    expected = hands.renderer.render(*inputs, depth=True, parts=True, normals=True)
    draw = gpu(hands)
    seen = draw.render(*inputs, depth=True, parts=True, normals=True)
    assert all(getattr(seen, name).is_cuda for name in ("image", *LABELS))
    error = np.abs(seen.image.cpu().numpy().astype(int) - expected.image)
    assert error.mean() < 0.1
    assert (error <= 2).mean() > 0.995
    for name in LABELS:
        got, want = getattr(seen, name).cpu().numpy(), getattr(expected, name)
        assert (np.abs(got.astype(float) - want) < 2e-3).mean() > 0.999, name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_gives_the_same_bytes_twice_whatever_the_memory(
    hands: HandRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = hands.scene(1, 16)
    inputs = (scene.vertices_m, scene.views.intrinsics, scene.look)
    draw = gpu(hands)
    first = draw.render(*inputs, depth=True)
    there = on_gpu(scene)
    monkeypatch.setattr(devices, "WORKSPACE_BYTES", 1)  # one picture at a time
    with torch.cuda.stream(torch.cuda.Stream()):
        second = draw.render(*there, depth=True)
    torch.cuda.synchronize()
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.depth, second.depth)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_nothing_is_read_back_while_drawing(hands: HandRenderer) -> None:
    scene = hands.scene(1, 4)
    draw = gpu(hands)
    points, lens, look = on_gpu(scene)
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw.render(points, lens, look, depth=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(draw._device, CudaDevice)
