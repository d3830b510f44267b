"""Which backend, device and precision run: what was asked for, or an error that says why not."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import handmesh
from handmesh import backends, cli
from handmesh.backends import Device, coreml, tflite
from handmesh.backends import onnx as onnx_backend
from handmesh.backends.onnx import OnnxBackend
from handmesh.bundle import Bundle
from handmesh.detector import Detector
from handmesh.errors import BackendUnavailable, InputError
from handmesh.predictor import Predictor

CROPS = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def light() -> Bundle:
    return Bundle.load("light")


def _pretend_available(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"]
    )


class Session:
    """A session as some onnxruntime with accelerators would give: its model runs on the CPU."""

    got: Sequence[str] | None = None  # as asked, unless said
    taken: int | None = None  # operators of the accelerator, of 5; None where nothing tells
    asked: list[Any] = []  # noqa: RUF012
    batches: list[int] = []  # noqa: RUF012

    def __init__(self, path: str, options: Any, providers: list[Any], **others: Any) -> None:
        assert others == {"enable_fallback": 0}, "ONNX Runtime must not choose by itself"
        Session.asked.append((options, providers))
        self._names = [p if isinstance(p, str) else p[0] for p in providers]
        self._real = REAL(path, options, ["CPUExecutionProvider"])
        if self.taken is not None:
            self.get_provider_graph_assignment_info = self._assigned

    def get_providers(self) -> list[str]:
        return self._names if self.got is None else list(self.got)

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
        Session.batches.append(len(inputs["image"]))
        return self._real.run(names, inputs)

    def _assigned(self) -> list[Any]:
        parts = {self._names[0]: self.taken or 0, "CPUExecutionProvider": 5 - (self.taken or 0)}
        return [
            types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in parts.items()
        ]


REAL = onnxruntime.InferenceSession


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    """As if this onnxruntime had every provider."""
    _pretend_available(
        monkeypatch, *(provider.name for provider in onnx_backend._PROVIDERS.values())
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    for name, value in {"asked": [], "batches": [], "got": None, "taken": None}.items():
        monkeypatch.setattr(Session, name, value)
    return Session


def test_a_provider_that_is_not_in_the_package_is_refused(light: Bundle) -> None:
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    with pytest.raises(BackendUnavailable, match=r"has cpu.*comes with onnxruntime-gpu"):
        Predictor(light, "onnx", device="cuda")
    assert backends.unavailable("onnx", light, "cpu") is None


def test_what_onnxruntime_runs_instead_is_refused(
    light: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real onnxruntime, made to believe that it was built with CUDA: it warns, and takes the
    CPU."""
    _pretend_available(monkeypatch, "CUDAExecutionProvider")
    instead = "the session got CPUExecutionProvider instead"
    with (
        pytest.raises(BackendUnavailable, match=instead),
        pytest.warns(UserWarning, match="not in available provider names"),
    ):
        Predictor(light, "onnx", device="cuda")


@pytest.mark.parametrize("device", [d for d in onnx_backend.DEVICES if d != "cpu"])
def test_what_the_session_got_decides(
    light: Bundle, accelerated: type[Session], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    backend = backends.create("onnx", light, 1, device)
    says = onnx_backend._PROVIDERS[device].says
    assert f", {says}" in backend.description
    ((_, providers),) = accelerated.asked
    assert providers[0][0] == onnx_backend._PROVIDERS[device].name
    monkeypatch.setattr(Session, "got", ["CPUExecutionProvider"])
    with pytest.raises(BackendUnavailable, match=f"did not start {says}"):
        backends.create("onnx", light, 1, device)


def test_a_provider_that_takes_nothing_is_refused(
    light: Bundle, accelerated: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    for taken, says in ((5, "XNNPACK, 1"), (3, "XNNPACK for 3 of 5 operators, 1")):
        monkeypatch.setattr(Session, "taken", taken)
        assert says in backends.create("onnx", light, 1, "xnnpack").description
    monkeypatch.setattr(Session, "taken", 0)
    with pytest.raises(BackendUnavailable, match="takes none of the network's 5 operators"):
        backends.create("onnx", light, 1, "xnnpack")


@pytest.mark.parametrize(("device", "batches"), [("cuda", [3]), ("nnapi", [1, 1, 1])])
def test_providers_that_want_fixed_shapes_get_crops_one_by_one(
    light: Bundle, accelerated: type[Session], device: str, batches: list[int]
) -> None:
    expected = backends.create("onnx", light, 1, "cpu").run(CROPS)
    accelerated.batches.clear()
    output = backends.create("onnx", light, 1, device).run(CROPS)
    assert accelerated.batches == batches
    for got, wanted in zip(output, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_number_of_a_gpu_arrives(light: Bundle, accelerated: type[Session]) -> None:
    backend = backends.create("onnx", light, 1, "cuda:2")
    assert "CUDA 2" in backend.description
    assert accelerated.asked[-1][1][0][1]["device_id"] == 2
    for device in ("cuda:first", "xnnpack:1"):
        with pytest.raises(InputError):
            backends.create("onnx", light, 1, device)


def test_cuda_computes_in_float32_unless_told_otherwise(
    light: Bundle, accelerated: type[Session]
) -> None:
    backends.create("onnx", light, 1, "cuda")
    assert accelerated.asked[-1][1][0][1]["use_tf32"] == 0
    OnnxBackend(light, 1, Device("cuda"), {"use_tf32": 1})
    assert accelerated.asked[-1][1][0][1]["use_tf32"] == 1
    # It has no such option, and unknown ones are errors.
    OnnxBackend(light, 1, Device("tensorrt"))
    assert "use_tf32" not in accelerated.asked[-1][1][0][1]


def test_engines_are_kept_where_that_is_asked_for_only(
    light: Bundle, accelerated: type[Session], tmp_path: Path
) -> None:
    OnnxBackend(light, 1, Device("tensorrt"))
    assert not any("cache" in option for option in accelerated.asked[-1][1][0][1])
    folder = shutil.copytree(light.folder, tmp_path / "copy")
    copy, chosen = Bundle.load(folder), {"trt_fp16_enable": True}
    OnnxBackend(copy, 1, Device("tensorrt"), chosen, engine_cache=True)
    options = accelerated.asked[-1][1][0][1]
    assert options["trt_engine_cache_path"] == str(folder / ".engines")
    assert options["trt_fp16_enable"] is True
    Bundle.load(folder).check()
    with pytest.raises(InputError, match="for device 'tensorrt'"):
        OnnxBackend(copy, 1, Device("cuda"), engine_cache=True)


def test_engines_are_kept_from_the_front_door(
    light: Bundle, accelerated: type[Session], tmp_path: Path
) -> None:
    def asked() -> dict[str, Any]:
        options: dict[str, Any] = accelerated.asked[-1][1][0][1]
        return options

    for name in ("auto", "onnx"):
        kept = tmp_path / name / "engines"
        with handmesh.load(light, name, device="tensorrt:1", engine_cache=kept) as predictor:
            assert "TensorRT 1" in predictor.chosen[0]
        assert asked()["trt_engine_cache_enable"] is True
        assert asked()["trt_engine_cache_path"] == str(kept)
        assert kept.is_dir()
    with Detector(backend="onnx", device="tensorrt", engine_cache=str(tmp_path / "own")):
        assert asked()["trt_engine_cache_path"] == str(tmp_path / "own")
    Predictor(light, device="tensorrt").close()
    assert not any("cache" in option for option in asked())


@pytest.mark.parametrize(
    ("backend", "device", "engine_cache", "said"),
    [
        ("auto", None, True, "goes with device 'tensorrt', not the default one"),
        ("auto", "cuda", "engines", "goes with device 'tensorrt', not 'cuda'"),
        ("torch", "cpu", True, "tensorrt, of another backend, not 'cpu'"),
        ("onnx", "tensorrt", 3, "True, False or a folder, not int"),
        ("onnx", "tensorrt", "a file/engines", "cannot be made .* name another one"),
        ("onnx", "tensorrt", "\0", "cannot be made"),
    ],
)
def test_an_engine_cache_that_cannot_be_is_refused(
    light: Bundle,
    accelerated: type[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    device: str | None,
    engine_cache: Any,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("")
    with pytest.raises(InputError, match=said):
        Predictor(light, backend, device=device, engine_cache=engine_cache)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_backend_that_is_handed_over_keeps_its_own_engines(light: Bundle) -> None:
    backend = backends.create("onnx", light, 1)
    with pytest.raises(InputError, match="when it is made"):
        Predictor(light, backend, engine_cache=True)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_gpu_that_is_not_there_is_refused(light: Bundle, name: str) -> None:
    import torch

    if name == "torch" and torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(BackendUnavailable, match="cuda"):
        backends.create(name, light, device="cuda")


def test_torch_on_another_device_gives_its_results_back(
    light: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU under the name of a GPU: tensors have to go there and come back."""
    import torch

    moved: list[str] = []
    real = torch.Tensor.to

    def to(self: torch.Tensor, *places: Any, **others: Any) -> torch.Tensor:
        moved.extend(str(place) for place in places if isinstance(place, torch.device))
        return real(self, *["cpu" if isinstance(p, torch.device) else p for p in places], **others)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(torch.Tensor, "to", to)
    backend = backends.create("torch", light, 1, "cuda:1")
    output = backend.run(CROPS)
    monkeypatch.undo()
    assert moved == ["cuda:1"]
    assert "CUDA 1" in backend.description
    expected = backends.create("torch", light, 1).run(CROPS)
    np.testing.assert_allclose(output.joints, expected.joints, atol=1e-5)


@pytest.mark.parametrize("name", ["auto", "onnx", "torch"])
def test_unknown_devices_are_bad_input(light: Bundle, name: str) -> None:
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        backends.create(name, light, device="cudaa")


@pytest.mark.parametrize("name", ["auto", "onnx", "torch", "tflite", "coreml"])
@pytest.mark.parametrize("device", ["cpu:3", "mps:1", "all:x"])
def test_arguments_that_would_go_unheard_are_refused(light: Bundle, name: str, device: str) -> None:
    with pytest.raises(InputError, match=r"takes no argument|device must be one of"):
        backends.create(name, light, device=device)


def test_auto_passes_over_backends_that_take_no_argument(
    light: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that know a device, the argument is for one."""
    from handmesh.backends import onnx

    monkeypatch.setattr(onnx, "ARGUMENTS", ())
    assert "without an argument" in str(backends.unavailable("onnx", light, "cuda:1"))


@pytest.mark.parametrize("asked", [{"device": 0}, {"device": None, "precision": 16}])
def test_devices_and_precisions_that_are_no_text_are_bad_input(
    light: Bundle, asked: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"not 0|not 16"):
        backends.create("auto", light, **asked)
    with pytest.raises(InputError, match=r"not 0|not 16"):
        backends.unavailable("torch", light, **asked)


def test_the_page_and_the_help_name_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| [`")]
    assert [row.split("`")[1] for row in rows] == backends.names(), "in the order of auto"
    with pytest.raises(SystemExit):
        cli.main(["predict", "--help"])
    assert ", ".join(["auto", *backends.names()]) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("threads", [0, -1, 513, 10**9, 1.5, "2", float("nan")])
@pytest.mark.parametrize("name", ["auto", "onnx"])
def test_impossible_numbers_of_threads_are_bad_input(
    light: Bundle, name: str, threads: Any
) -> None:
    with pytest.raises(InputError, match="threads must be"):
        backends.create(name, light, threads)


def test_names_that_are_nearly_right_are_suggested(light: Bundle) -> None:
    with pytest.raises(InputError, match="did you mean 'tflite'"):
        backends.create("tflight", light)
    with pytest.raises(InputError, match=r"one of fp32, fp16, int8; not 'fp8'"):
        backends.create("onnx", light, precision="fp8")


@pytest.mark.parametrize("name", ["onnx", "torch", "auto"])
def test_precision_is_that_of_the_artifact_or_refused(light: Bundle, name: str) -> None:
    assert light.precision_of("onnx") == "fp16"
    assert backends.create(name, light, precision="fp16").name in ("onnx", "torch")
    with pytest.raises(BackendUnavailable, match=r"no int8 artifact in bundle 'light', but fp16"):
        backends.create(name, light, precision="int8")


def test_auto_says_what_it_chose_and_why(light: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with Predictor(light, threads=1) as predictor:
        first, *others = predictor.chosen
        assert first == f"onnx: chosen, the first that can run: {predictor.backend.description}"
        assert others == [f"{n}: not tried, as it comes later" for n in backends.names()[1:]]
    monkeypatch.setattr(backends, "names", lambda: ["coreml", "onnx", "torch"])
    monkeypatch.setattr(coreml, "unavailable", lambda bundle: "this is no Mac")
    passed, chosen, later = backends.choose("auto", light).reasons
    assert passed == "coreml: passed over: this is no Mac"
    assert chosen.startswith("onnx: chosen")
    assert later == "torch: not tried, as it comes later"


def test_auto_passes_over_what_its_runtime_cannot_start(
    light: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise BackendUnavailable("no GPU is there")

    monkeypatch.setattr(onnx_backend, "create", refuse)
    choice = backends.choose("auto", light, device="cpu")
    assert choice.backend.name == "torch"
    assert choice.reasons[0] == "onnx: passed over: no GPU is there"
    with pytest.raises(BackendUnavailable, match="no GPU is there"):
        backends.choose("onnx", light, device="cpu")


def test_an_asked_for_backend_is_one_line(light: Bundle) -> None:
    with Predictor(light, "onnx", 1) as predictor:
        assert predictor.chosen == (f"onnx: asked for: {predictor.backend.description}",)
        own = Predictor(light, predictor.backend)
    assert own.chosen == ("onnx: handed over",)
    with pytest.raises(InputError, match="handed over"):
        Predictor(light, own.backend, device="cpu")


DELEGATE = r"""
#include <stdlib.h>
#include <stdint.h>
/* tensorflow/lite/core/c/common.h, TfLiteDelegate: one that takes no operator. */
struct Delegate { void *data; int (*prepare)(void *, struct Delegate *);
                  void *from, *to, *release; int64_t flags; void *builder; };
static int prepare(void *context, struct Delegate *self) { return 0; }
struct Delegate *tflite_plugin_create_delegate(char **names, char **values, size_t count,
                                               void (*report)(const char *))
{ struct Delegate *d = calloc(1, sizeof *d); d->prepare = prepare; return d; }
void tflite_plugin_destroy_delegate(struct Delegate *d) { free(d); }
"""


@pytest.fixture
def with_tflite(bundle_folder: Path, topology: Any) -> Bundle:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    from tflite_means import tflite_means

    from handmesh.bundle import read_manifest, write_manifest

    (bundle_folder / "model.tflite").write_bytes(tflite_means(128, topology.vertex_count))
    manifest = read_manifest(bundle_folder)
    manifest["artifacts"]["tflite"] = {"path": "model.tflite", "precision": "fp32"}
    write_manifest(bundle_folder, manifest)
    return Bundle.load(bundle_folder)


def test_a_delegate_that_takes_nothing_is_refused(with_tflite: Bundle, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "delegate.c").write_text(DELEGATE)
    library = tmp_path / "libidle_delegate.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "delegate.c"], check=True
    )
    with pytest.raises(BackendUnavailable, match="takes none of the network's operators"):
        backends.create("tflite", with_tflite, 1, f"delegate:{library}")


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("delegate:/no/such/lib.so", BackendUnavailable),
        (f"delegate:{__file__}", BackendUnavailable),  # no library
        (f"delegate:{np._core._multiarray_umath.__file__}", BackendUnavailable),  # no delegate
        ("delegate:\0", BackendUnavailable),
        ("delegate", InputError),
    ],
)
def test_delegates_that_cannot_be_loaded_are_refused(
    with_tflite: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, error: type[Exception]
) -> None:
    """In one line: nothing half made is left that would fail when it is deleted."""
    later: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda failed: later.append(str(failed.exc_value)))
    with pytest.raises(error, match="delegate") as raised:
        backends.create("tflite", with_tflite, 1, device)
    del raised
    gc.collect()
    assert later == []


def test_a_delegate_is_said(
    with_tflite: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LiteRT's own XNNPACK in the place of a maker's delegate."""
    from ai_edge_litert import interpreter

    seen: list[Any] = []
    make: Callable[..., Any] = interpreter.Interpreter

    def without(**options: Any) -> Any:
        seen.append(options.pop("experimental_delegates"))
        seen.append(options.pop("experimental_op_resolver_type"))
        return make(**options)

    plugin = types.SimpleNamespace(**dict.fromkeys(tflite._PLUGIN))
    monkeypatch.setattr(tflite, "ctypes", types.SimpleNamespace(CDLL=lambda path: plugin))
    monkeypatch.setattr(interpreter, "load_delegate", lambda path, options: path)
    monkeypatch.setattr(interpreter, "Interpreter", without)
    backend = backends.create("tflite", with_tflite, 2, "delegate:/usr/lib/libvx_delegate.so")
    assert backend.description.endswith(", delegate libvx_delegate.so, 2 threads")
    assert seen[0] == ["/usr/lib/libvx_delegate.so"]
    assert seen[1].name == "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
