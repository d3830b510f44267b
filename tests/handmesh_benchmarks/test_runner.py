"""The runner that other devices run: which provider ran is proven, with a stand-in runtime."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from handmesh.errors import BackendError, BackendUnavailable
from handmesh_benchmarks import runner, runtimes
from handmesh_benchmarks.runtimes import CPU, chain, onnx_file, operators, tflite_file

CUDA = "CUDAExecutionProvider"


class Runtime:
    """As onnxruntime, of which a GPU's provider takes some operators, or does not start.

    Args:
        ran: operators by provider, as the profile has them. starts: whether CUDA does.
        kind: of the input.
    """

    __version__ = "9.9"

    def __init__(
        self, ran: Mapping[str, int], starts: bool = True, kind: str = "tensor(uint8)"
    ) -> None:
        self.ran, self.starts, self.kind = ran, starts, kind
        self.sessions: list[tuple[int, Any]] = []

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def SessionOptions(self) -> Any:  # noqa: N802
        return SimpleNamespace(add_session_config_entry=lambda *_: None, intra_op_num_threads=0)

    def InferenceSession(  # noqa: N802
        self, path: str, options: Any, providers: Any, enable_fallback: int
    ) -> Any:
        assert enable_fallback == 0, "ONNX Runtime must not choose by itself"
        self.sessions.append((options.intra_op_num_threads, providers))
        got = [providers[0][0], CPU] if self.starts else [CPU]

        def end_profiling() -> str:
            events = [
                {"name": f"{i}_kernel_time", "args": {"provider": provider}}
                for provider, count in self.ran.items()
                for i in range(count)
            ]
            events += [{"name": "model_run"}, {"name": "x_fence", "args": {"provider": CPU}}]
            file = Path(f"{options.profile_file_prefix}.json")
            file.write_text(json.dumps(events))
            return str(file)

        return SimpleNamespace(
            get_providers=lambda: got,
            get_outputs=lambda: [SimpleNamespace(name="vertices")],
            get_inputs=lambda: [
                SimpleNamespace(name="image", shape=["N", 4, 4, 3], type=self.kind)
            ],
            run=lambda outputs, inputs: [np.zeros(3)],
            end_profiling=end_profiling,
        )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Runtime], Runtime]:
    def installed(runtime: Runtime) -> Runtime:
        for module in (runner, runtimes):
            monkeypatch.setattr(module, "imported", lambda packages: runtime)
        return runtime

    return installed


def _job(folder: Path, provider: str, **row: Any) -> Path:
    (folder / "m.onnx").write_bytes(b"model")
    facts = {
        "task": "network", "network": "light", "backend": "onnx", "threads": 4, "batch": 1,
        "precision": "fp16", "provider": "",
    }  # fmt: skip
    file = {"path": "m.onnx", "stage": "network", "sha256": runner.sha256([folder / "m.onnx"])}
    asked = {
        "name": "network light onnx 4", "facts": facts, "runtime": "onnx", "provider": provider,
        "threads": 4, "files": [file],
    }  # fmt: skip
    protocol = {"min_runs": 1, "min_seconds": 0, "warmup_runs": 0, "rounds": 1, "pause_s": 0}
    (folder / "job.json").write_text(json.dumps({"protocol": protocol, "rows": [asked | row]}))
    return folder / "job.json"


def _run(folder: Path, job: Path) -> tuple[int, dict[str, Any]]:
    code = runner.main([str(job), str(folder / "out.json")])
    return code, json.loads((folder / "out.json").read_text())


def _footprints(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    """A stand-in for the process that measures memory."""
    names = ("PIPE", "DEVNULL", "SubprocessError")
    known = {name: getattr(subprocess, name) for name in names}
    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=run, **known))


def test_how_many_operators_the_gpu_ran_stands_in_the_row(
    use: Callable[[Runtime], Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = use(Runtime({CUDA: 30, CPU: 4}))
    # Of a GPU's row the process's memory says nothing: it is not even tried.
    _footprints(monkeypatch, lambda *a, **k: pytest.fail("a footprint"))

    code, written = _run(tmp_path, _job(tmp_path, CUDA))

    assert code == 0
    (row,) = [m for m in written["measurements"] if m["name"] != "yardstick"]
    assert row["facts"]["provider"] == "onnxruntime 9.9, CUDA, 4 threads, 30 of 34 operators"
    assert row["facts"]["nodes_by_provider"] == {"CUDA": 30, "CPU": 4}
    assert "memory" not in row["facts"]
    assert row["name"] == "network light onnx 4 CUDA"  # no run on the CPU has that name
    threads, ((provider, _),) = runtime.sessions[-1]
    assert (threads, provider) == (4, CUDA)


def test_a_gpu_that_runs_nothing_is_no_row(
    use: Callable[[Runtime], Runtime], tmp_path: Path
) -> None:
    use(Runtime({CPU: 34}))

    code, written = _run(tmp_path, _job(tmp_path, CUDA))

    assert code == runner.NOTHING_RAN
    assert [m["name"] for m in written["measurements"]] == ["yardstick"]
    assert "CUDA ran none of 34 operators" in written["missing"][0]


def test_a_provider_that_did_not_start_is_refused(
    use: Callable[[Runtime], Runtime], tmp_path: Path
) -> None:
    use(Runtime({CUDA: 34}, starts=False))

    with pytest.raises(BackendUnavailable, match="could not start"):
        onnx_file(tmp_path / "m.onnx", 1, CUDA)
    _, written = _run(tmp_path, _job(tmp_path, CUDA))
    assert "could not start" in written["missing"][0]


def test_all_providers_are_rows_and_the_cpu_has_memory(
    use: Callable[[Runtime], Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Runtime({CUDA: 34}))
    memory = SimpleNamespace(stdout='{"before_mib": 1, "peak_mib": 2}')
    _footprints(monkeypatch, lambda *a, **k: memory)

    _, written = _run(tmp_path, _job(tmp_path, "auto"))

    found = {m["name"]: m["facts"] for m in written["measurements"]}
    assert list(found) == ["yardstick", "network light onnx 4 CUDA", "network light onnx 4"]
    assert [name for name, facts in found.items() if "memory" in facts] == ["network light onnx 4"]
    assert found["network light onnx 4"]["provider"] == "onnxruntime 9.9, CPU, 4 threads"


def test_a_profile_that_cannot_be_read_is_no_proof(
    use: Callable[[Runtime], Runtime], tmp_path: Path
) -> None:
    class Broken(Runtime):
        def InferenceSession(self, *arguments: Any, **named: Any) -> Any:  # noqa: N802
            session = super().InferenceSession(*arguments, **named)
            session.end_profiling = lambda: str(tmp_path / "nowhere")
            return session

    use(Broken({CUDA: 34}))
    with pytest.raises(BackendError, match=r"which operators of m\.onnx CUDA ran cannot be told"):
        operators([tmp_path / "m.onnx"], CUDA)


@pytest.mark.parametrize(
    ("version", "tf32"),
    [("1.18.0", {"use_tf32": 0}), ("1.17.3", {}), ("2.0.1+cu12", {"use_tf32": 0})],
)
def test_a_gpu_computes_as_in_the_sdk(
    use: Callable[[Runtime], Runtime], tmp_path: Path, version: str, tf32: dict[str, int]
) -> None:
    runtime = use(Runtime({CUDA: 3}))
    runtime.__version__ = version
    onnx_file(tmp_path / "m.onnx", 2, CUDA, {"device_id": 1})
    common = {"cudnn_conv_algo_search": "HEURISTIC", "device_id": 1}
    assert runtime.sessions == [(2, [(CUDA, common | tf32)])]
    onnx_file(tmp_path / "m.onnx", 2, CUDA, {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    assert runtime.sessions[1][1][0][1] == {"cudnn_conv_algo_search": "EXHAUSTIVE"} | tf32
    onnx_file(tmp_path / "m.onnx", 2, CPU)
    assert runtime.sessions[2][1] == [(CPU, {})]


def test_one_row_s_failure_leaves_the_others(
    use: Callable[[Runtime], Runtime], tmp_path: Path
) -> None:
    use(Runtime({CPU: 3}, kind="tensor(int64)"))

    code, written = _run(tmp_path, _job(tmp_path, CPU))

    assert (code, written["state"]) == (runner.NOTHING_RAN, "complete")
    assert "input 'image' of m.onnx is tensor(int64)" in written["missing"][0]


def test_progress_is_told_once(
    made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rounds(*_: Any, after_round: Any, **__: Any) -> Any:
        row = made.row()
        for more in ([row], [row], [row, row]):
            after_round(more)
        return [row]

    monkeypatch.setattr(runner, "measure", rounds)
    _footprints(monkeypatch, lambda *_, **__: SimpleNamespace(stdout="{}"))

    _run(tmp_path, _job(tmp_path, CPU))

    told = ["measured 2000 runs of 1 rows", "measured 2000 runs of 2 rows"]
    assert capsys.readouterr().err.splitlines() == told


def test_litert_s_own_errors_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(**inputs: Any) -> Any:
        raise RuntimeError("a delegate failed")

    fails.get_input_details = lambda: {"image": None}  # type: ignore[attr-defined]

    class Interpreter:
        def __init__(self, **_: Any) -> None: ...

        def allocate_tensors(self) -> None: ...

        def get_signature_runner(self) -> Any:
            return fails

        def get_input_details(self) -> Any:
            return [{"shape": [1, 4, 4, 3], "dtype": np.uint8}]

    litert = SimpleNamespace(__name__="litert", __version__="9")
    monkeypatch.setattr(runtimes, "imported", lambda packages: litert)
    module = SimpleNamespace(Interpreter=Interpreter)
    monkeypatch.setattr(runtimes.importlib, "import_module", lambda name: module)

    run, words, inputs = tflite_file(tmp_path / "m.tflite", 2)

    assert words == "litert 9, CPU, 2 threads"
    with pytest.raises(BackendError, match=r"litert failed on m\.tflite: a delegate failed"):
        run(inputs)


def test_stages_are_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 1.5, 2.0, 2.25])
    monkeypatch.setattr(runtimes.time, "perf_counter", lambda: next(now))
    steps = [
        ("trunk", lambda known: {"features": known["image"] + 1}, ("image",)),
        ("mesh", lambda known: {"surface": known["features"] + 1}, ("features",)),
    ]
    assert chain(steps, {"image": 1})() == {"trunk": 500.0, "mesh": 250.0}
