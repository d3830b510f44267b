"""Memory over many predictions: the verdict on made-up histories, and a short run of the real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from handmesh import BackendUnavailable, Bundle, InputError
from handmesh.bundle import read_manifest, write_manifest
from handmesh.verification import read_reference
from handmesh_benchmarks import memory
from handmesh_benchmarks.device import own_memory_mib
from handmesh_benchmarks.memory import ALLOWED_MIB, FEWEST, History, watch

linux = pytest.mark.skipif(own_memory_mib() < 0, reason="this system does not tell")
PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"


def _history(mib: np.ndarray) -> History:
    done = tuple(range(1000, 1000 * (len(mib) + 1), 1000))
    readings = tuple(mib.tolist())
    return History("predict", "made up", done, readings, readings, tuple(map(float, done)))


def test_a_straight_line_grows_by_its_slope() -> None:
    each = 200.0
    done = np.arange(1, 101) * 1000
    history = _history(150 + each * done / 2**20)
    assert not history.flat
    assert history.bytes_each == pytest.approx(each, rel=0.03)
    assert "GROWING" in memory.table([history])


def test_pools_that_fill_up_at_first_are_flat() -> None:
    done = np.arange(100)
    noise = np.random.default_rng(0).normal(0, 0.3, 100)
    history = _history(200 - 80 * np.exp(-done / 4) + noise)
    assert history.flat
    assert abs(history.growth_mib) < 1
    assert "flat" in memory.table([history])


def test_one_spike_is_no_growth_and_a_late_step_is() -> None:
    spiked = np.full(100, 200.0)
    spiked[97] = 900
    assert _history(spiked).flat
    stepped = np.full(100, 200.0)
    stepped[60:] += ALLOWED_MIB + 1
    assert not _history(stepped).flat


def test_too_few_readings_give_no_verdict() -> None:
    for count, readings in ((100, FEWEST - 1), (FEWEST - 1, FEWEST)):
        with pytest.raises(InputError, match="at least"):
            watch("predict", "none", lambda _: None, count, readings)


def _fresh(program: str) -> None:
    """Run a program in a process whose memory nothing else has filled and let go of."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@linux
def test_a_leak_is_seen_and_work_without_one_is_not() -> None:
    _fresh("""
import numpy as np
from handmesh_benchmarks.memory import watch

kept = []
leaking, steady = (
    watch("predict", "none", work, 200, 20)
    # A quarter of a MiB, touched.
    for work in (lambda _: kept.append(np.ones(2**18, np.uint8)), lambda _: np.ones(2**18))
)
assert leaking.done[-1] == steady.done[-1] == 200
assert not leaking.flat, leaking
assert abs(leaking.bytes_each / 2**18 - 1) < 0.2, leaking.bytes_each
assert steady.flat, steady
""")


@linux
def test_own_memory_is_what_arrays_take_and_no_file() -> None:
    _fresh("""
import numpy as np
from handmesh_benchmarks.device import own_memory_mib, resident_mib

before, resident = own_memory_mib(), resident_mib()
kept = np.ones(64 * 2**20, np.uint8)
assert abs(own_memory_mib() - before - 64) < 2, own_memory_mib() - before
assert own_memory_mib() < resident + 70
""")


def _seen_hand(folder: Path) -> Path:
    """The shipped bundle, whose network sees the same hand in whatever it is shown.

    ONNX Runtime runs it: crops go in, and fresh outputs of their sizes come out for each of them.
    """
    shipped = Bundle.load()
    _, known = read_reference(shipped)
    best = int(np.argmax(known.presence))
    nodes, constants = [], {}
    for name, values in known._asdict().items():
        constants[f"{name}_of_one"] = values[best : best + 1]
        shape = [1] * (values.ndim - 1)
        constants[f"{name}_shape"] = np.array([-1, *shape])
        # Zeros of the crops, one for each, which spread what is known over all of them.
        nodes.append(helper.make_node("Reshape", ["nothing", f"{name}_shape"], [f"{name}_zero"]))
        nodes.append(helper.make_node("Add", [f"{name}_zero", f"{name}_of_one"], [name]))
    constants |= {"axes": np.array([1, 2, 3]), "zero": np.array(0, np.float32)}
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *nodes,
    ]
    side = shipped.image_size
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *values.shape[1:]])
        for name, values in known._asdict().items()
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "seen", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    shutil.copytree(shipped.folder, folder)
    (folder / shipped.artifacts["onnx"]["path"]).write_bytes(model.SerializeToString())
    write_manifest(folder, read_manifest(folder))
    return folder


def _watched(out: Path, *given: str) -> dict[str, Any]:
    arguments = ["--backends", "onnx", *given, "--photos", str(PHOTOS), "--out", str(out)]
    assert memory.main(arguments) == 0
    (history,) = json.loads(out.read_text())["histories"]
    return dict(history)


@linux
@pytest.mark.slow
def test_predictions_keep_memory_flat(tmp_path: Path) -> None:
    """2,000 predictions: 100 bytes lost in each would not show, what is kept of a photo would.

    The network is none: it would take most of the time, and what it takes of memory it takes for
    tracking, too.
    """
    bundle = _seen_hand(tmp_path / "bundle")
    predict = _watched(tmp_path / "out.json", "--predictions", "2000", "--bundle", str(bundle))
    assert (predict["what"], predict["done"][-1]) == ("predict", 2000)
    assert predict["flat"]


@linux
@pytest.mark.slow
def test_tracking_keeps_memory_flat(tmp_path: Path) -> None:
    track = _watched(tmp_path / "out.json", "--predictions", "0", "--frames", "600")
    assert (track["what"], track["done"][-1]) == ("track", 600)
    assert track["flat"]


def test_backends_that_are_not_there_are_told() -> None:
    with pytest.raises(BackendUnavailable, match="coreml"):
        memory.main(["--backends", "coreml", "--photos", str(PHOTOS)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--photos", "nowhere"], "nowhere must hold photos"),
        (["--photos", str(PHOTOS), "--readings", "3"], "a verdict needs at least 12 readings"),
        (["--photos", str(PHOTOS), "--frames", "5"], "5 readings over 5"),
    ],
)
def test_what_cannot_be_watched_is_told_alone(
    capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        memory.main(["--backends", "onnx", *given])
    assert capsys.readouterr().out == ""


def test_nothing_to_watch_is_no_success() -> None:
    with pytest.raises(InputError, match="nothing to watch"):
        memory.main(["--predictions", "0", "--photos", str(PHOTOS)])


def test_photos_without_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boxes\.json"):
        list(memory._scenes(tmp_path))


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"a.jpg": 3}', '{"a.jpg": [1, 2]}'])
def test_boxes_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(InputError, match="give another folder with --photos"):
        list(memory._scenes(tmp_path))
