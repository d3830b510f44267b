"""Core ML's own benchmark is for a Mac; elsewhere a stand-in shows what coremltools is asked."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest

from handmesh import Bundle
from handmesh.errors import BackendUnavailable
from handmesh_benchmarks import results
from handmesh_benchmarks.devices import coreml
from handmesh_benchmarks.protocol import Protocol
from handmesh_benchmarks.variants import Variant


def _measure(variants: Any, write: Any = lambda results: None, **options: Any) -> Any:
    protocol = Protocol(min_runs=8, min_seconds=0, warmup_runs=3, rounds=2)
    return coreml.measure(variants, protocol, write, lambda line: None, **options)


@pytest.mark.skipif(sys.platform == "darwin", reason="here Core ML runs")
def test_not_on_a_mac_says_what_to_do() -> None:
    with pytest.raises(BackendUnavailable, match="run the command on a Mac"):
        _measure([])


@pytest.mark.darwin
def test_on_a_mac_an_artifact_is_wanted() -> None:
    with pytest.raises(BackendUnavailable, match="handmesh export light --format coreml --out DIR"):
        _measure([])


class _Neural: ...


class _Cpu: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the stand-in is asked: units, and numbers of iterations; the GPU fails."""
    calls: list[Any] = []

    class Model:
        def __init__(self, path: str, compute_units: str) -> None:
            calls.append(compute_units)
            if compute_units == "the gpu":
                raise RuntimeError("no Metal here")
            self.compute_unit = compute_units

        def get_compiled_model_path(self) -> str:
            return "compiled"

    class Benchmarker:
        def __init__(self, model: Model) -> None: ...

        async def benchmark_load(self, iterations: int) -> Any:
            return SimpleNamespace(samples=[70.0] * iterations)

        async def benchmark_predict(self, iterations: int) -> Any:
            calls.append(iterations)
            return SimpleNamespace(samples=[float(i) for i in range(1, iterations + 1)])

    class Plan:
        model_structure = SimpleNamespace(
            program=SimpleNamespace(
                functions={"main": SimpleNamespace(block=SimpleNamespace(operations=[1, 2, 3, 0]))}
            )
        )

        @classmethod
        def load_from_path(cls, path: str, compute_units: str) -> Plan:
            return cls()

        def get_compute_device_usage_for_mlprogram_operation(self, operation: int) -> Any:
            device = _Neural() if operation > 1 else _Cpu()
            return SimpleNamespace(preferred_compute_device=device) if operation else None

    units = {"ALL": "all", "CPU_AND_NE": "ne", "CPU_AND_GPU": "the gpu", "CPU_ONLY": "cpu"}
    tools: Any = ModuleType("coremltools")
    tools.ComputeUnit = SimpleNamespace(**units)
    tools.models = SimpleNamespace(MLModel=Model)
    own = "coremltools.models.ml_program.experimental.perf_utils"
    modules: dict[str, Any] = {
        name: ModuleType(name) for name in (own, "coremltools.models.compute_plan")
    }
    modules[own].MLModelBenchmarker = Benchmarker
    modules["coremltools.models.compute_plan"].MLComputePlan = Plan
    for name, module in {"coremltools": tools, **modules}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(coreml.platform, "system", lambda: "Darwin")
    return calls


@pytest.fixture
def variant() -> Variant:
    """The shipped ONNX file in the place of an .mlpackage, which the stand-in does not open."""
    bundle = Bundle.load()
    artifacts = {"coreml": bundle.artifacts["onnx"], **bundle.artifacts}
    return Variant(
        Bundle(bundle.folder, {**bundle.manifest, "artifacts": artifacts}), "coreml", "fp16"
    )


def test_each_choice_of_units_is_a_row(asked: list[Any], variant: Variant) -> None:
    written: list[Any] = []

    found = _measure([variant], lambda r: written.append(len(r.measurements)), missing=["int8: no"])

    assert [row.name for row in found.measurements] == [
        "network light coreml fp16 ALL",
        "network light coreml fp16 CPU_AND_NE",
        "network light coreml fp16 CPU_ONLY",
    ]
    # The first run, a warm-up of three, and two turns of four, for each choice that runs.
    assert asked == ["all", 1, 3, 4, 4, "ne", 1, 3, 4, 4, "the gpu", "cpu", 1, 3, 4, 4]
    row = found.measurements[0]
    assert (row.load_ms, row.first_ms, row.runs) == (70.0, 1.0, 8)
    assert (row.total.p50, row.rounds["total"]) == (2.5, [2.5, 2.5])
    assert row.facts["provider"] == "Core ML, ALL, 2 on _Neural, 1 on _Cpu"
    assert row.kind == "smoke"
    assert found.missing == [
        "int8: no",
        "light coreml fp16, CPU_AND_GPU: Core ML failed on CPU_AND_GPU: no Metal here",
    ]
    assert written == [1, 2, 2, 3, 3]
    assert found.state == "complete"
    jsonschema.validate(found.to_dict(), results.schema())
