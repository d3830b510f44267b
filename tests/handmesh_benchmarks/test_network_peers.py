"""Our network in other hands: stand-ins for the peers' processes, and the ways that run here."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from handmesh import Bundle
from handmesh.errors import BackendUnavailable, InputError
from handmesh_benchmarks import local, network_child, network_peers, results
from handmesh_benchmarks.environments import INSIDE, Environment
from handmesh_benchmarks.network_peers import NETWORK_WAYS, TORCH, WAYS, Given, candidate, table
from handmesh_benchmarks.page import to_html, to_markdown
from handmesh_benchmarks.protocol import Measurement, Percentiles, Protocol
from handmesh_benchmarks.results import Results
from handmesh_benchmarks.variants import artifact_facts

SHORT = Protocol(min_runs=6, min_seconds=0, warmup_runs=0, rounds=3, pause_s=0)
# Answers with what its file says: how long, how far off, or what is missing.
STAND_IN = """
import json, sys
import numpy as np
said = json.loads(open(sys.argv[1]).read())
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "run":
        answer = {"ms": said["ms"]}
    elif "missing" in said:
        answer = {"missing": said["missing"]}
    else:
        found = np.full((2, 3, 3), 1 + said.get("off", 0.0))
        np.savez(request["outputs"], vertices=found, joints=found)
        answer = {"provider": "%s of %s" % (request["way"], request["model"]), "load_s": 1.5}
    print(json.dumps(answer), flush=True)
"""


class Peers:
    """Makes candidates whose processes are stand-ins."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.stack = folder, stack
        (folder / "stand_in.py").write_text(STAND_IN)

    def make(self, way: str, **said: Any) -> Any:
        answers = self.folder / f"{way}.json"
        answers.write_text(json.dumps(said))
        task, runtime = way.split()
        facts = {
            "task": f"peer {task}",
            "network": "light",
            "backend": runtime,
            "threads": 1,
            "batch": 1,
            "precision": "fp32",
            "provider": "",
            "artifact": artifact_facts(Bundle.load(), "torch"),
        }
        wanted = {name: np.ones((2, 3, 3)) for name in ("vertices", "joints")}
        command = [sys.executable, str(self.folder / "stand_in.py"), str(answers)]
        given = Given({"model": "m.onnx"}, wanted)
        return candidate(way, command, self.folder, given, facts, self.folder, self.stack)


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    with contextlib.ExitStack() as stack:
        yield Peers(tmp_path, stack)


def _run(*candidates: Any) -> Results:
    found = Results({"processor": "Abacus 3"})
    return local.run(candidates, SHORT, found, lambda r: None, lambda line: None)


def test_what_the_process_measured_stands_beside_ours(peers: Peers) -> None:
    found = _run(
        peers.make("network onnxruntime", ms=2.0), peers.make("network openvino", ms=3.0, off=0.001)
    )

    ours, theirs = found.measurements
    assert (ours.stages[INSIDE].p50, theirs.stages[INSIDE].p99) == (2.0, 3.0)
    assert theirs.facts["provider"] == "network openvino of m.onnx"
    assert theirs.facts["off_by"] == pytest.approx(0.001)
    _, cells = table([found])
    assert cells[0][6:9] == ["2.00", "2.00", "-"][:3] or cells[0][8] == "-"
    assert cells[1][1:] == [
        "light", "network", "network openvino of m.onnx", "1", "3.00", "3.00", "3.00",
        "1.50 (1.50 to 1.50)", "1.5", "1e-03", "-",
    ]  # fmt: skip
    jsonschema.validate(found.to_dict(), results.schema())
    for text in (to_html([found]), to_markdown([found])):
        assert "In other hands" in text
        assert "1.50 (1.50 to 1.50)" in text


def test_tasks_are_compared_apart(peers: Peers) -> None:
    found = _run(
        peers.make("network onnxruntime", ms=9.0),
        peers.make("decoder onnxruntime", ms=2.0),
        peers.make("decoder chebconv", ms=8.0),
    )
    assert [row[8] for row in table([found])[1]] == ["-", "-", "4.00 (4.00 to 4.00)"]


def test_ratios_are_quartiles_of_the_rounds() -> None:
    """Of five rounds as 1, 2, 4, 8, 16: the middle one, and those a quarter from the ends."""

    def row(*rounds: float) -> Measurement:
        total = Percentiles.of(rounds)
        return Measurement(
            "x", {}, 0.0, 0.0, total, {}, len(rounds), 1.0, "smoke", {INSIDE: rounds}
        )

    ours, theirs = row(2.0, 2.0, 2.0, 2.0, 2.0), row(32.0, 2.0, 8.0, 4.0, 16.0)
    assert network_peers._ratio(theirs, ours) == "4.00 (2.00 to 8.00)"
    assert network_peers._ratio(theirs, theirs) == "-"
    assert network_peers._ratio(theirs, None) == "-"


def test_a_missing_package_and_another_result_are_told(peers: Peers) -> None:
    found = _run(
        peers.make("network onnxruntime", ms=2.0),
        peers.make("network openvino", missing="ModuleNotFoundError: No module named 'openvino'"),
        peers.make("network torch", ms=0.1, off=0.5),
        peers.make("decoder chebconv", ms=0.1, off=0.002),
    )

    assert [m.facts["backend"] for m in found.measurements] == ["onnxruntime"]
    assert "No module named 'openvino'" in found.missing[0]
    assert "computes something else: off by 5.0e-01" in found.missing[1]
    assert "off by 2.0e-03" in found.missing[2]  # the decoder is held to less


def test_environments_that_cannot_be_made_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: Environment, folder: Path | None, python: str) -> Path:
        if self is TORCH:
            raise BackendUnavailable("no network")
        assert folder == tmp_path / self.name
        return folder / python

    monkeypatch.setattr(Environment, "prepare", prepare)
    missing: list[str] = []

    found = network_peers.interpreters(list(WAYS), tmp_path, "py", missing, lambda line: None)

    assert missing == ["no network"]
    assert set(found) == {
        "network onnxruntime", "network openvino", "decoder onnxruntime", "decoder openvino",
        "photos handmesh", "photos mediapipe",
    }  # fmt: skip
    assert found["network onnxruntime"] == Path(sys.executable)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Given]:
    """Of the shipped bundle, two crops of noise."""
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("given")
    return network_peers.given_of(Bundle.load(), images, folder)


@pytest.mark.parametrize("way", list(NETWORK_WAYS))
def test_every_way_computes_the_network(given: dict[str, Given], tmp_path: Path, way: str) -> None:
    runtime = {"chebconv": "torch_geometric", "openvino": "openvino"}.get(way.split()[1])
    if runtime is not None:
        pytest.importorskip(runtime)
    if way == "network torch.compile":
        pytest.skip("compiling takes a minute")
    task, out = way.split()[0], tmp_path / "out.npz"
    request = {"way": way, "threads": 1, "outputs": str(out)} | dict(given[task].request)

    served = network_child._Served(request)

    assert served.one() > 0
    assert network_peers._off(out, given[task].wanted) < network_peers.ALLOWED[task]
    assert served.words


def test_every_way_has_somebody_who_runs_it() -> None:
    assert list(network_child.WAYS) == list(NETWORK_WAYS)


def test_compiling_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        network_child.torch_compiled({"threads": 1})


def test_copies_hold_our_packages_and_no_others(tmp_path: Path) -> None:
    place = network_peers.packages_in(tmp_path)
    assert sorted(path.name for path in place.iterdir()) == [
        "handmesh", "handmesh_benchmarks", "handmesh_kernels",
    ]  # fmt: skip
    assert not (place / "handmesh" / "bundles").exists()


def test_where_no_way_can_be_installed_the_reasons_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_peers, "measure", lambda *_: pytest.fail("it began"))
    (tmp_path / "photo.jpg").touch()
    given = ["--photos", str(tmp_path), "--environments", str(tmp_path / "made")]
    with pytest.raises(BackendUnavailable, match=r"torch 2\.13\.0 .* cannot be installed into"):
        network_peers.main(
            [*given, "--ways", "network torch,decoder torch", "--python", str(tmp_path / "none")]
        )


def test_bad_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not 'network magic'"):
        network_peers.main(["--ways", "network magic"])
    with pytest.raises(InputError, match="no picture"):
        network_peers.main(["--photos", str(tmp_path)])
