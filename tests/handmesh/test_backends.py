from __future__ import annotations

import builtins
import dataclasses
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from handmesh import backends, cli
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.errors import (
    BackendError,
    BackendUnavailable,
    BundleError,
    GraphMismatchError,
    InputError,
    IntegrityError,
)
from handmesh.graph import Topology
from handmesh.nn import LightConfig, build, save_weights
from handmesh.predictor import Predictor

SIZE = 128


def _onnx_model(vertex_count: int, points: int = 21, fail_above: int | None = None) -> bytes:
    """Each output is the mean of the crop's red channel, in 0..1, in the contract's shape."""
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "three"], ["red"]),
        helper.make_node("Cast", ["red"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "scale"], ["presence"]),
        helper.make_node("Identity", ["presence"], ["handedness"]),
    ]
    constants: dict[str, Any] = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "three": np.array([3]),
        "axes": np.array([1, 2, 3]),
        "scale": np.array(255, np.float32),
    }
    shapes = {"vertices": (vertex_count, 3), "joints": (points, 3), "confidence": (points,)}
    for name, shape in shapes.items():
        constants |= {f"{name}_column": np.array([-1, *[1] * len(shape)])}
        constants |= {f"{name}_shape": np.array([1, *shape])}
        nodes += [
            helper.make_node("Reshape", ["presence", f"{name}_column"], [f"{name}_flat"]),
            helper.make_node("Expand", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    shapes |= {"presence": (), "handedness": ()}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in shapes.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "means", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def add(bundle_folder: Path) -> Callable[[str, str, bytes], Bundle]:
    """Put an artifact into the bundle, as an exporter would."""

    def put(name: str, path: str, data: bytes) -> Bundle:
        (bundle_folder / path).write_bytes(data)
        manifest = read_manifest(bundle_folder)
        manifest["artifacts"][name] = {"path": path}
        write_manifest(bundle_folder, manifest)
        return Bundle.load(bundle_folder)

    return put


@pytest.fixture
def with_onnx(add: Callable[..., Bundle], topology: Topology) -> Bundle:
    return add("onnx", "model.onnx", _onnx_model(topology.vertex_count))


@pytest.fixture(scope="module")
def weights(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Random weights of the light network."""
    torch.manual_seed(0)
    config, path = LightConfig(), tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(build(config, topology), path, config, topology)
    return path.read_bytes()


@pytest.fixture
def with_torch(add: Callable[..., Bundle], weights: bytes) -> Bundle:
    return add("torch", "weights.safetensors", weights)


def _crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_onnx_outputs_arrive_under_their_names(with_onnx: Bundle, topology: Topology) -> None:
    backend = backends.create("onnx", with_onnx, threads=1)
    images = _crops(3)
    output = backend.run(images)
    means = images[..., 0].mean(axis=(1, 2)) / 255
    assert output.vertices.shape == (3, topology.vertex_count, 3)
    for array in output:
        assert array.dtype == np.float32
        flat = array.reshape(3, -1)
        np.testing.assert_allclose(flat, np.repeat(means[:, None], flat.shape[1], 1), rtol=1e-5)


def test_what_runs_is_said(with_onnx: Bundle) -> None:
    one, two = (backends.create("onnx", with_onnx, threads=n) for n in (1, 2))
    assert one.description == f"onnxruntime {onnxruntime.__version__}, CPU, 1 thread"
    assert two.description.endswith("2 threads")
    assert (one.name, one.threads, two.threads) == ("onnx", 1, 2)


def test_threads_default_to_a_few(with_onnx: Bundle) -> None:
    assert 1 <= backends.create("onnx", with_onnx).threads <= 4


def test_torch_is_the_network(with_torch: Bundle, topology: Topology) -> None:
    backend = backends.create("torch", with_torch, threads=1)
    before = torch.get_num_threads()
    images = _crops(2)
    output = backend.run(images)
    assert torch.get_num_threads() == before
    torch.manual_seed(0)
    network = build(LightConfig(), topology).eval()
    batch = torch.tensor(images.transpose(0, 3, 1, 2) / 255 - 0.5, dtype=torch.float32)
    with torch.no_grad():
        expected = network(batch)
    np.testing.assert_allclose(output.vertices, expected.vertices, atol=1e-5)
    np.testing.assert_allclose(output.joints, expected.joints, atol=1e-5)
    confidence = 1 / (1 + np.exp(-expected.confidence_logits.numpy()))
    np.testing.assert_allclose(output.confidence, confidence, atol=1e-5)
    presence = 1 / (1 + np.exp(-expected.presence_logit.numpy()))
    np.testing.assert_allclose(output.presence, presence, atol=1e-5)
    assert backend.description == f"torch {torch.__version__}, CPU, 1 thread"


def test_weights_of_another_graph_are_refused(
    add: Callable[..., Bundle], topology: Topology, tmp_path: Path
) -> None:
    other = dataclasses.replace(topology, uv=topology.uv[::-1].copy())
    config = LightConfig()
    save_weights(build(config, other), tmp_path / "w", config, other)
    bundle = add("torch", "weights.safetensors", (tmp_path / "w").read_bytes())
    with pytest.raises(GraphMismatchError):
        backends.create("torch", bundle)


def test_auto_is_the_first_that_can_run(with_onnx: Bundle, with_torch: Bundle) -> None:
    assert backends.names()[0] == "onnx"
    both = Bundle.load(with_torch.folder)
    assert set(both.artifacts) == {"onnx", "torch"}
    assert backends.create("auto", both).name == "onnx"


def test_auto_takes_what_the_bundle_has(with_torch: Bundle) -> None:
    assert backends.create("auto", with_torch).name == "torch"


def test_an_empty_bundle_says_what_is_missing(bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match="holds no artifacts"):
        backends.create("auto", bundle)


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnxruntime"), ("torch", "torch"), ("torch", "safetensors")]
)
def test_missing_package_says_what_to_install(
    with_onnx: Bundle, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what import sees when it is not installed
    with pytest.raises(BackendUnavailable, match=rf"'{package}'.*pip install '\.\[{name}\]'"):
        Predictor(with_onnx, name)
    with pytest.raises(ImportError):
        Predictor(with_onnx, name)


def test_auto_does_not_take_half_an_installation(
    with_torch: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch does not bring what reads the weights."""
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(BackendUnavailable, match=r"'safetensors'.*pip install '\.\[torch\]'"):
        Predictor(with_torch)


def test_explicit_choice_never_falls_back(with_onnx: Bundle) -> None:
    with pytest.raises(
        BackendUnavailable, match="nothing to run in bundle 'test', which holds onnx"
    ):
        backends.create("torch", with_onnx)


def test_auto_does_not_hide_a_broken_artifact(
    add: Callable[..., Bundle], with_torch: Bundle
) -> None:
    bundle = add("onnx", "model.onnx", b"this is no ONNX model")
    with pytest.raises(BackendError, match="cannot load"):
        backends.create("auto", bundle)


def test_a_flipped_byte_is_found_before_the_runtime_sees_it(with_onnx: Bundle) -> None:
    path = with_onnx.folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        Predictor(with_onnx.folder, "onnx")


def test_missing_artifact_is_found(with_onnx: Bundle) -> None:
    (with_onnx.folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="missing"):
        Predictor(with_onnx.folder, "onnx")


def test_outputs_of_another_shape_are_refused(
    add: Callable[..., Bundle], topology: Topology
) -> None:
    bundle = add("onnx", "model.onnx", _onnx_model(topology.vertex_count, points=20))
    backend = backends.create("onnx", bundle)
    with pytest.raises(
        BackendError, match=r"'joints' must have shape \(1, 21, 3\), not \(1, 20, 3\)"
    ):
        backend.run(_crops(1))


def test_failures_of_the_runtime_are_ours(
    with_onnx: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = backends.create("onnx", with_onnx)
    backend._outputs = ["no such output"]
    with pytest.raises(BackendError, match="failed on 1 crops") as caught:
        backend.run(_crops(1))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_other_crops_are_refused(with_onnx: Bundle, with_torch: Bundle, name: str) -> None:
    backend = backends.create(name, Bundle.load(with_torch.folder))
    for images in (
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
    ):
        with pytest.raises(InputError):
            backend.run(images)


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_numbers_of_threads_are_refused(with_onnx: Bundle, threads: int) -> None:
    with pytest.raises(InputError, match="threads"):
        backends.create("onnx", with_onnx, threads)


def test_unknown_backend_lists_the_known(with_onnx: Bundle) -> None:
    with pytest.raises(InputError, match="auto, onnx, tflite, torch"):
        backends.create("tensorflow", with_onnx)


def test_runtimes_are_imported_on_use_only(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def watched(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.split(".")[0] not in ("torch", "onnxruntime"), name
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert all(backends.unavailable(name, bundle) for name in backends.names())


def test_every_backend_module_states_what_it_needs() -> None:
    for name in backends.names():
        module: Any = backends._module(name)
        assert isinstance(module.REQUIRES, str | tuple)
        assert isinstance(module.EXTRA, str)
        assert isinstance(module.RANK, int)
        assert callable(module.create)


def test_runs_of_several_threads_leave_the_number_of_threads_alone(
    with_torch: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = [3]  # of a torch whose number is the whole process's
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    first, second = (backends.create("torch", with_torch, threads) for threads in (1, 2))
    inside, leave = threading.Event(), threading.Event()
    network = first._network  # type: ignore[attr-defined]

    def slowly(batch: torch.Tensor) -> Any:
        inside.set()
        leave.wait(10)
        return network(batch)

    first._network = slowly  # type: ignore[attr-defined]
    one = threading.Thread(target=first.run, args=(_crops(1),))
    other = threading.Thread(target=second.run, args=(_crops(1),))
    one.start()
    assert inside.wait(10)
    other.start()
    other.join(0.3)  # it waits, or else it is in the middle of its run
    assert counts == [3, 1]
    leave.set()
    one.join(30)
    other.join(30)
    assert counts == [3, 1, 3, 2, 3]


@pytest.mark.parametrize("name", RawOutput._fields)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    shapes = [(2, 5, 3), (2, 21, 3), (2, 21), (2,), (2,)]
    named = dict(zip(RawOutput._fields, map(np.zeros, shapes), strict=True))
    backends.raw_output(named, 2, 5, "this runtime")
    named[name].flat[-1] = value
    with pytest.raises(BackendError, match=f"this runtime: output '{name}' holds NaN or infinity"):
        backends.raw_output(named, 2, 5, "this runtime")


def test_raw_output_names_are_those_of_the_contract(bundle: Bundle) -> None:
    assert list(RawOutput._fields) == list(bundle.manifest["outputs"])


def test_what_all_backends_have_in_common(bundle: Bundle) -> None:
    class Broken(backends.BundleBackend):
        name, description = "broken", "a broken runtime"
        asked = 0

        def _infer(self, images: Any) -> Any:
            self.asked += 1
            raise MemoryError("no room")

    broken = Broken(bundle, threads=3)
    assert broken.threads == 3
    with pytest.raises(InputError, match="at least one crop"):
        broken.run(_crops(0))
    assert broken.asked == 0, "a runtime is not asked what cannot be"
    for call in (broken.run, broken.outputs):
        with pytest.raises(BackendError, match="a broken runtime failed on 2 crops: no room"):
            call(_crops(2))


def test_modules_that_backends_share_are_no_backends() -> None:
    assert set(backends.names()) == {"onnx", "tflite", "torch", "coreml", "cuda"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"device": "nnapi"}, "on device 'nnapi' here: onnx: device 'nnapi' is none of"),
        ({"device": "mps"}, "on device 'mps' here: torch: device 'mps' is not there"),
        ({"precision": "int8"}, "in int8 here: onnx: backend 'onnx' has no int8 artifact"),
    ],
)
def test_auto_tells_one_reason_and_where_the_others_are(
    capsys: pytest.CaptureFixture[str], asked: dict[str, str], told: str
) -> None:
    with pytest.raises(BackendUnavailable) as raised:
        Predictor("light", **asked)  # type: ignore[arg-type]
    message = str(raised.value)
    assert message.startswith(f"no backend can run 'light' {told}")
    assert len(message) < 400
    command = message.rpartition("for the others see ")[2].strip("`").split()
    assert command[:3] == ["handmesh", "info", "light"]
    assert cli.main(command[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in backends.names():
        (line,) = (s for s in lines if s.startswith((f"{name}: ", f"{name} (")))
        assert f"not here: {backends.unavailable(name, Bundle.load(), **asked)}" in line


def test_auto_tells_what_its_runtimes_said_when_they_were_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else would: without being started they seem to be able to."""

    def refuse(*_: Any) -> Any:
        raise BackendUnavailable("no driver fits")

    monkeypatch.setattr(backends, "names", lambda: ["coreml", "onnx", "torch"])
    for name in ("onnx", "torch"):
        monkeypatch.setattr(backends._module(name), "create", refuse)
    with pytest.raises(BackendUnavailable, match=r"here: onnx: no driver fits; torch: no driver f"):
        backends.choose("auto", Bundle.load(), device="cpu")
