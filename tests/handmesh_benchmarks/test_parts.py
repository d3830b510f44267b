"""A network in its parts computes what it computes whole, and their times add up to its own."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shallow import shallow_light
from torch import nn

from handmesh import Bundle, backends
from handmesh.errors import BackendError, ParityError
from handmesh.graph import Topology
from handmesh.nn import build
from handmesh.nn.config import PaperConfig
from handmesh.verification import read_reference
from handmesh_benchmarks import decoders, parts
from handmesh_benchmarks.protocol import Protocol, measure
from handmesh_benchmarks.report import PARTS
from handmesh_benchmarks.runtimes import onnx_file
from handmesh_converters.export import write_bundle
from handmesh_converters.fold import fold

LIGHT = shallow_light()
PAPER = PaperConfig(
    input_size=32,
    features=32,
    stacks=1,
    hourglass_depth=1,
    residuals_per_position=1,
    encoder_levels=2,
)


def _bundle(folder: Path, config: Any) -> Bundle:
    torch.manual_seed(0)
    network = build(config, Topology.default()).eval()
    size = config.input_size
    crops = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    provenance = {"weights": "random, seed 0"}
    return write_bundle(
        network, Topology.default(), folder, crops, provenance=provenance, export=()
    ).bundle


@pytest.fixture(scope="module", params=[LIGHT, PAPER], ids=["light", "paper"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _bundle(tmp_path_factory.mktemp("parts") / request.param.name, request.param)


def test_parts_in_torch_last_as_long_as_the_whole(bundle: Bundle) -> None:
    (row,) = measure(
        [parts.torch_candidate(bundle, 1, {"task": "parts"})],
        Protocol(min_runs=1, min_seconds=0, warmup_runs=1, rounds=1, pause_s=0),
    )

    assert set(row.stages) == set(PARTS)
    inside = sum(row.stages[part].p50 for part in PARTS)
    assert all(row.stages[part].p50 > 0 for part in PARTS)
    assert inside <= row.total.p50
    assert "torch" in row.facts["provider"]


def test_a_delay_is_counted_for_the_part_that_it_is_in(bundle: Bundle) -> None:
    network = parts.load_bundle(bundle)
    size = bundle.image_size

    def slow(*_: Any) -> None:
        time.sleep(0.3)

    for part, module in {
        "mesh": network.head.decoder,
        "pose": network.head.pose_regressor.fc1,
    }.items():
        hook = module.register_forward_hook(slow)
        with torch.inference_mode(), parts.clocked(network) as times:
            network(torch.zeros(1, 3, size, size))
        hook.remove()
        assert max(times(), key=lambda name: times()[name]) == part
        assert times()[part] >= 300


def test_hooks_are_gone_afterwards(bundle: Bundle) -> None:
    network = parts.load_bundle(bundle)
    with parts.clocked(network):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.slow
def test_three_files_compute_what_the_network_computes(bundle: Bundle, tmp_path: Path) -> None:
    files = parts.write_parts(bundle, tmp_path)
    images = np.random.default_rng(1).integers(
        0, 256, (1, bundle.image_size, bundle.image_size, 3), dtype=np.uint8
    )

    known: dict[str, Any] = {"image": images}
    for path in files.values():
        step, _, inputs = onnx_file(path, 1)
        known.update(step({name: known[name] for name in inputs}))

    whole = backends.create("torch", bundle, 1).run(images)
    np.testing.assert_allclose(known["vertices"], whole.vertices, atol=1e-4)
    np.testing.assert_allclose(known["joints"], whole.joints, atol=1e-4)
    run, words, placed = parts.onnx_parts(files, 1)
    assert placed == {}
    assert set(run() or {}) == set(PARTS)
    assert words.startswith("onnxruntime")


def test_surface_and_pose_are_the_head(bundle: Bundle) -> None:
    head = fold(parts.load_bundle(bundle)).head
    latent = torch.randn(1, head.expand.in_features)
    anchors = torch.rand(1, 21, 2) if bundle.name == "light" else None

    with torch.inference_mode():
        whole = head(latent, anchors)
        apart = head.pose(head.surface(latent, anchors))

    for one, other in zip(whole, apart, strict=True):
        torch.testing.assert_close(one, other)


class _Event:
    """As torch.cuda.Event: the time at which the work before it was done, in milliseconds."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        assert stream == "stream of cuda:1"
        self.at = _Event.now

    def elapsed_time(self, other: _Event) -> float:
        return other.at - self.at


def test_on_a_gpu_its_own_events_are_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    clock = parts._Events(torch.device("cuda:1"))

    for _ in range(2):  # the second run's alone
        clock.begin()
        for step in (0.0, 2.5, 1.0, 0.25):
            _Event.now += step
            clock.mark()

    assert waited == []  # the borders themselves do not wait
    assert clock.between() == [2.5, 1.0, 0.25]
    assert waited == ["cuda:1"]


def test_torch_is_asked_to_run_on_that_device(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Network:
        def to(self, device: str) -> Network:
            asked.append(device)
            return self

    def zeros(*shape: int, device: str) -> Any:
        asked.append(device)
        return torch.ones(shape)

    monkeypatch.setattr(parts, "load_bundle", lambda bundle: Network())
    monkeypatch.setattr(parts.torch, "zeros", zeros)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")

    candidate = parts.torch_candidate(bundle, 2, {"task": "parts"}, "cuda:1")
    candidate.load()

    assert asked == ["cuda:1", "cuda:1"]
    assert candidate.name == f"parts {bundle.name} torch cuda:1 2"
    assert candidate.facts["provider"].endswith("GPU of cuda:1, 2 threads")


def test_torch_s_own_errors_are_ours(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(bundle: Bundle) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(parts, "load_bundle", full)
    with pytest.raises(BackendError, match="torch on cpu failed: CUDA out of memory"):
        parts.torch_candidate(bundle, 1, {}).load()


@pytest.mark.parametrize(
    ("device", "provider", "details"),
    [
        ("cuda:1", "CUDAExecutionProvider", {"device_id": 1}),
        ("tensorrt", "TensorrtExecutionProvider", {"device_id": 0}),
    ],
)
def test_files_are_asked_to_run_on_that_device(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    provider: str,
    details: dict[str, int],
) -> None:
    asked: list[Any] = []

    def onnx_file(path: Path, *arguments: Any) -> Any:
        asked.append(arguments)
        return (lambda known: {}), "onnxruntime on it", {}

    def operators(paths: Any, *arguments: Any) -> Any:
        assert len(list(paths)) == 3
        asked.append(arguments)
        return {"it": 5}, "5 of 5 operators"

    monkeypatch.setattr(parts, "onnx_file", onnx_file)
    monkeypatch.setattr(parts, "operators", operators)
    files = {part: tmp_path / part for part in PARTS}

    candidate = parts.parts_candidate(bundle, files, 2, {"task": "parts"}, device)
    candidate.load()

    assert asked == [(provider, details), *[(2, provider, details)] * 3]
    assert candidate.facts["provider"] == "onnxruntime on it, 5 of 5 operators"
    assert candidate.facts["nodes_by_provider"] == {"it": 5}


def test_parts_that_compute_something_else_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = read_reference(bundle)
    whole = backends.create("torch", bundle, 1).run(images[:1])
    off = 0.0

    def onnx_file(path: Path, threads: int) -> Any:
        def step(known: dict[str, Any]) -> dict[str, Any]:
            return {"vertices": whole.vertices * (1 + off), "joints": whole.joints}

        return step, "", {"image": None}

    monkeypatch.setattr(parts, "onnx_file", onnx_file)
    monkeypatch.setattr(parts, "PROVEN_ON", 1)
    parts._prove(bundle, {"trunk": tmp_path})
    off = 0.01
    with pytest.raises(ParityError, match=r"compute other vertices .* off by 1\.0e-02"):
        parts._prove(bundle, {"trunk": tmp_path})


def test_exports_do_not_repeat_that_packages_of_others_are_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exporter warns of torchvision once for each of its operators."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    said: list[str] = []
    monkeypatch.setattr(logger, "handle", lambda record: said.append(record.getMessage()))
    head = fold(parts.load_bundle(bundle)).head

    decoders.exported(head, bundle.name == "light")
    parts._export(nn.ReLU(), (torch.zeros(1, 2),), ["x"], ["y"], tmp_path / "relu.onnx")

    assert said == []
