"""`handmesh bench` from its arguments to its report, on a network with random weights."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handmesh import Bundle
from handmesh.cli import main
from handmesh.errors import DeviceError, InputError
from handmesh.graph import Topology
from handmesh_benchmarks import cli, cli_options, exports, scaling
from handmesh_benchmarks.devices import adb, ssh
from handmesh_benchmarks.random_weights import random_bundle
from handmesh_benchmarks.results import Results
from handmesh_benchmarks.variants import Variant

BOX = "140,80,410,560"
QUICK = ["--no-parts", "--no-memory", "--precisions", "none"]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "light"
    return random_bundle(folder, Topology.default(), "light", export=()).folder


def test_measures_what_can_run_and_says_what_cannot(
    light: Path,
    tmp_path: Path,
    example_photos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bench.json"
    options = ["--no-paper", "--no-memory", "--precisions", "none", "--threads", "1"]
    options += ["--runs", "2", "--seconds", "0", "--backends", "onnx,torch"]

    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--out", str(out), *options]
    )

    shown, written = capsys.readouterr().out, json.loads(out.read_text())
    assert code == 0
    assert "SMOKE RUN" in shown
    assert "not measured: light by onnx: backend 'onnx' has nothing to run" in shown
    assert [m["name"] for m in written["measurements"]] == [
        "yardstick",
        "predict light torch fp16 1",
        "network light torch fp16 1",
        "parts light torch 1",
    ]
    _, predict, network, parts = written["measurements"]
    assert set(parts["stages"]) == {"trunk", "mesh", "pose"}
    assert written["state"] == "complete"
    stages = predict["stages"]
    inside = sum(stages[name]["p50"] for name in ("crop", "network", "geometry"))
    assert 0 < inside <= predict["total"]["p99"]
    assert set(stages) == {"decode", "crop", "network", "geometry"}
    assert predict["facts"]["crops_seen"] in (3, 4)  # of an untrained network all are doubtful
    assert network["stages"] == {}
    assert network["facts"]["image_size"] == 128


def test_without_a_photo_a_crop_of_the_bundle_is_measured(
    light: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where no examples lie
    options = ["bench", "--bundle", str(light), "--no-paper", "--backends", "torch"]
    options += ["--threads", "1", "--runs", "1", "--seconds", "0", *QUICK]

    assert main(options) == 0
    assert "reference crop of light, 128 x 128 pixels" in capsys.readouterr().out
    assert main([*options, "--box", BOX]) == 2
    assert "--photo" in capsys.readouterr().err


def test_nothing_to_run_is_an_error(
    light: Path, example_photos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--no-paper", "--backends", "onnx", *QUICK]
    )

    assert code == 3
    assert "nothing to run" in capsys.readouterr().err


def test_the_paper_s_network_is_made_on_the_same_graph(tmp_path: Path) -> None:
    topology = Topology.default()

    paper = random_bundle(tmp_path / "paper", topology, "paper", export=())

    assert paper.topology.sha256 == topology.sha256
    assert paper.image_size == 256
    assert paper.name == "paper"
    assert set(paper.artifacts) == {"torch"}
    assert "random" in paper.manifest["provenance"]["weights"]


def _written(made: Any, folder: Path, name: str, **options: Any) -> str:
    return str(made.results(made.row(**options)).write(folder / name))


def test_report_and_comparison_of_files(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = _written(made, tmp_path, "old.json", p50=4.0)
    same = _written(made, tmp_path, "same.json", p50=4.05)
    slow = _written(made, tmp_path, "slow.json", p50=8.0)
    page = tmp_path / "report.html"

    assert main(["bench", "--report", old, slow, "--out", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert main(["bench", "--compare", old, same]) == 0
    assert main(["bench", "--compare", old, slow]) == 1
    assert "slower" in capsys.readouterr().out


def test_bad_files_are_told_with_what_to_do(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = _written(made, tmp_path, "good.json"), tmp_path / "bad.json"
    bad.write_text('{"schema": 2')
    page = tmp_path / "report.html"

    assert main(["bench", "--report", good, str(bad), "--out", str(page)]) == 2
    assert "bad.json is no JSON" in capsys.readouterr().err
    assert not page.exists()
    scaling = made.row("scaling batch")
    scaling.facts["x"] = 4
    made.results(scaling).write(bad)
    assert main(["bench", "--report", good, str(bad), "--out", str(page)]) == 2
    assert "bad.json holds rows of --scaling" in capsys.readouterr().err
    assert not page.exists()
    assert main(["bench", "--report", good]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["bench", "--device", "toaster"]) == 2
    assert "local, ssh:HOST, adb" in capsys.readouterr().err


def test_an_artifact_that_is_not_the_manifest_s_is_refused(
    light: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = _damaged(light, tmp_path)
    options = ["bench", "--bundle", str(copy), "--no-paper", "--backends", "torch", *QUICK]

    assert main([*options, "--threads", "1", "--runs", "1", "--seconds", "0"]) == 2
    assert "sha256 differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["bench"],
        ["bench", "--backends", "onnx"],  # which does not read that file
        ["bench", "--scaling"],
        ["bench", "--device", "ssh:pi"],
        ["compare-exports"],
    ],
)
def test_a_damaged_bundle_is_an_error_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:  # fmt: skip
    for module, name in ((cli.local, "artifacts"), (scaling, "run"), (exports, "compare")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it began"))
    copy = str(_damaged(Bundle.load().folder, tmp_path))
    given = [copy] if command == ["compare-exports"] else ["--bundle", copy]

    assert main([*command, *given]) == 2
    said = capsys.readouterr().err
    assert "weights.safetensors is not the file that the manifest describes" in said
    assert said.count("\n") == 1


def _damaged(bundle: Path, folder: Path) -> Path:
    """A copy with another last byte of its weights."""
    copy = folder / "copy"
    shutil.copytree(bundle, copy)
    with (copy / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    return copy


# Whatever is refused is refused before anything is loaded.
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scaling", "--device", "ssh:pi"], "--device has no effect with --scaling"),
        (["--scaling", "--threads", "3"], "--threads has no effect with --scaling"),
        (["--scaling", "--backends", "onnx"], "--backends has no effect with --scaling"),
        (["--scaling", "--on", "cuda"], "--on has no effect with --scaling"),
        (["--floors", "--device", "adb"], "--device has no effect with --floors"),
        (["--floors", "--out", "f.json"], "--out has no effect with --floors"),
        (["--device", "ssh:pi", "--on", "cuda"], "--on has no effect with --device ssh"),
        (["--device", "ssh:pi", "--photo", "x"], "--photo has no effect with --device ssh"),
        (["--device", "adb", "--backends", "onnx"], "--backends has no effect with --device adb"),
        (["--device", "coreml", "--threads", "2"], "--threads has no effect with --device coreml"),
        (["--provider", "CUDA"], "--provider has no effect with --device local"),
        (["--delegates", "gpu"], "--delegates has no effect with --device local"),
        (["--device", "local:1"], "--device must be local, ssh:HOST"),
        (["--threads", "0"], "--threads must be 1 to 512, not 0"),
        (["--threads", "1,-1"], "--threads must be 1 to 512, not -1"),
        (["--seconds", "nan"], "--seconds must be a number of seconds"),
        (["--seconds", "inf"], "--seconds must be a number of seconds"),
        (["--seconds", "-1"], "--seconds must be a number of seconds, 0 or more, not -1.0"),
        (["--runs", "0"], "--runs must be at least 1, not 0"),
        (["--scaling", "--runs", "-2"], "--runs must be at least 1, not -2"),
        (["--headline", "--runs", "5"], "--runs 5 is less than --headline measures of each row"),
        (["--headline", "--seconds", "2.5"], "--seconds 2.5 is less than --headline measures"),
        (["--out", "/nowhere/at/all.json"], "--out /nowhere/at/all.json cannot be written"),
        (["--on", "cudda"], "--on takes cpu, cuda"),
        (["--on", "cpu,cuda:x"], "a device 'cuda' has a number, as cuda:0, not 'x'"),
        (["--backends", "onnx,torhc"], "not 'torhc'; did you mean 'torch'?"),
        (["--device", "ssh:"], "expected ssh:HOST or ssh:USER@HOST"),
        (["--device", "ssh:pi", "--ssh-options", "-i 'a b"], "cannot be split into words"),
        (["--device", "ssh:pi", "--backends", "torch"], "runs onnx, tflite; not what --backends"),
    ],
)
def test_options_without_effect_and_impossible_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(cli.local, "artifacts", lambda *_: pytest.fail("it began"))

    assert main(["bench", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--threads", "2", "--scaling"],
            "--threads has no effect with --scaling: leave one of the two out. It is for --device "
            "(local, the default; ssh; adb)",
        ),
        (
            ["--floors", "--runs", "3"],
            "--runs has no effect with --floors: leave one of the two out. It is for --scaling and "
            "--device (local, the default; ssh; adb; coreml)",
        ),
        (
            ["--floors", "--device", "adb"],
            "--device has no effect with --floors: leave one of the two out",
        ),
    ],
)
def test_what_has_no_effect_is_told_with_what_it_is_for(
    capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["bench", *options]) == 2
    assert capsys.readouterr().err == f"handmesh: {said}\n"


@pytest.mark.parametrize("out", [True, False])
def test_a_run_that_nothing_keeps_is_told_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: bool
) -> None:
    told = "without --out FILE, what is measured is lost if this is stopped\n"
    options = ["--out", str(tmp_path / "r.json")] if out else []

    def begins(*_: Any) -> Any:
        raise InputError(f"by then: {capsys.readouterr().err}")

    monkeypatch.setattr(cli.local, "prepare", begins)
    monkeypatch.setattr(scaling, "run", begins)
    for mode in ([], ["--scaling"]):
        assert main(["bench", *mode, *options]) == 2
        assert ("by then: " + told.strip() in capsys.readouterr().err) != out


def test_help_and_pages_agree_on_how_long_a_headline_takes() -> None:
    parser = argparse.ArgumentParser()
    cli_options.add(parser)
    shown = " ".join(parser.format_help().split())
    root = Path(__file__).parents[2]
    assert "each long enough to quote (some 19 minutes)" in shown
    assert "19 minutes on two quiet cores" in (root / "README.md").read_text("utf-8")
    page = (root / "docs" / "benchmarking.md").read_text("utf-8")
    assert "a headline nineteen minutes" in page


def test_every_option_is_known_to_the_check() -> None:
    parser = argparse.ArgumentParser()
    cli_options.add(parser)
    known = {*cli_options.EFFECTIVE, *cli_options.MODES}
    assert set(vars(parser.parse_args([]))) == known


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (32, 1.0, 8.0)),
        (["--seconds", "30"], (32, 30.0, None)),
        (["--runs", "2000"], (2000, 1.0, None)),
        (["--headline"], (1024, 60.0, None)),
        (["--headline", "--runs", "5000"], (5000, 60.0, None)),
    ],
)
def test_who_says_how_long_gets_that(options: list[str], expected: Any) -> None:
    parser = argparse.ArgumentParser()
    cli_options.add(parser)

    protocol = cli._protocol(parser.parse_args(options))

    assert (protocol.min_runs, protocol.min_seconds, protocol.max_seconds) == expected


def _found(monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> list[Variant]:
    found = [Variant(Bundle.load(), "onnx", "fp16")]
    monkeypatch.setattr(cli.local, "artifacts", lambda wanted, say: (found, {}, missing))
    return found


def test_what_is_named_twice_is_measured_once() -> None:
    parser = argparse.ArgumentParser()
    cli_options.add(parser)
    twice = ["--threads", "2,1,2", "--backends", "onnx,ONNX", "--on", "cpu, cpu"]
    args = parser.parse_args([*twice, "--precisions", "fp32,fp16,fp32", "--delegates", "gpu,gpu"])
    assert (args.threads, args.backends, args.on) == ([2, 1], ["onnx"], ["cpu"])
    assert (args.precisions, args.delegates) == (["fp32", "fp16"], ["gpu"])


def test_a_phone_gets_its_threads_and_what_is_missing(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, program = _found(monkeypatch, ["int8: refused"]), tmp_path / "benchmark_model"
    program.write_bytes(b"")
    asked: list[Any] = []

    def measure(*arguments: Any) -> Results:
        asked.extend(arguments)
        result: Results = made.results(made.row())
        return result

    monkeypatch.setattr(adb, "measure", measure)
    monkeypatch.setattr(adb.Phone, "describe", lambda phone: {})
    options = ["--benchmark-model", str(program), "--delegates", "gpu", "--threads", "3,7"]

    assert main(["bench", "--device", "adb:PHONE7", *options]) == 0
    phone, sent, variants, threads, *_, delegates, missing = asked
    assert (phone.serial, sent, variants, threads) == ("PHONE7", program, found, [3, 7])
    assert (delegates, missing) == (["gpu"], ["int8: refused"])


def test_a_board_gets_its_threads_and_what_is_missing(
    made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _found(monkeypatch, ["int8: refused"])
    asked: list[Any] = []
    result = made.results(made.row())

    def measure(*arguments: Any, **named: Any) -> Results:
        asked.append((arguments, named))
        return result  # type: ignore[no-any-return]

    monkeypatch.setattr(ssh, "measure", measure)
    monkeypatch.setattr(ssh.Host, "run", lambda *_: b"")
    command = ["bench", "--device", "ssh:pi", "--threads", "4", "--provider", "P"]

    assert main(command) == 0
    ((host, variants, _, threads, *_), named) = asked[0]
    assert (host.name, variants, threads) == ("pi", found, [4])
    assert named == {"python": "python3", "provider": "P", "missing": ["int8: refused"]}

    # A run that ended early is shown, and is no success.
    result.state, result.stopped_by = "partial", "exit code 139 there"
    assert main(command) == 1
    assert "not complete: exit code 139 there" in capsys.readouterr().err


def test_a_disk_that_fills_up_does_not_take_the_table(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _found(monkeypatch, [])
    result = made.results(made.row())

    def measure(*arguments: Any, **_: Any) -> Results:
        arguments[5](result)  # write
        return result  # type: ignore[no-any-return]

    def full(results: Results, path: Path) -> Path:
        raise InputError(f"cannot write {path}: no space left")

    monkeypatch.setattr(ssh, "measure", measure)
    monkeypatch.setattr(ssh.Host, "run", lambda *_: b"")
    monkeypatch.setattr(Results, "write", full)

    assert main(["bench", "--device", "ssh:pi", "--out", str(tmp_path / "r.json")]) == 2
    printed = capsys.readouterr()
    assert "network alone" in printed.out
    assert printed.err.count("no space left") == 2


def test_an_interrupted_run_names_the_file_of_what_it_had(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _found(monkeypatch, [])

    def measure(*arguments: Any, **_: Any) -> Results:
        arguments[5](made.results(made.row(), state="partial"))  # write
        raise KeyboardInterrupt

    monkeypatch.setattr(ssh, "measure", measure)
    monkeypatch.setattr(ssh.Host, "run", lambda *_: b"")
    out = tmp_path / "r.json"

    assert main(["bench", "--device", "ssh:pi", "--out", str(out)]) == 130
    told = f"stopped: {out} holds what was measured until then, 1 row, as partial"
    assert capsys.readouterr().err.splitlines() == [told, "handmesh: interrupted"]
    assert json.loads(out.read_text())["state"] == "partial"


def test_nothing_to_run_elsewhere_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "light by tflite: the package 'x' is missing"
    monkeypatch.setattr(cli.local, "artifacts", lambda wanted, say: ([], {}, [reason]))
    monkeypatch.setattr(ssh.Host, "run", lambda *_: b"")

    assert main(["bench", "--device", "ssh:pi", "--backends", "tflite"]) == 3
    assert reason in capsys.readouterr().err


def test_what_a_device_needs_is_asked_for_before_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.local, "artifacts", lambda *_: pytest.fail("it began"))
    assert main(["bench", "--device", "adb"]) == 2
    assert "--benchmark-model" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))  # neither ssh nor adb
    assert main(["bench", "--device", "ssh:pi"]) == 2
    assert "cannot start ssh" in capsys.readouterr().err
    program = tmp_path / "benchmark_model"
    program.touch()
    assert main(["bench", "--device", "adb", "--benchmark-model", str(program)]) == 2
    assert "cannot start adb" in capsys.readouterr().err


def test_another_host_s_python_is_looked_at_before_exports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(host: ssh.Host, command: str, data: bytes = b"") -> bytes:
        if command.startswith("python2 "):
            raise DeviceError("no such program")
        return b""

    monkeypatch.setattr(cli.local, "artifacts", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(ssh.Host, "run", run)
    assert main(["bench", "--device", "ssh:pi", "--python", "python2"]) == 2
    assert "pi needs Python 3.8 or newer" in capsys.readouterr().err


def test_devices_that_nothing_here_runs_on_are_told_before_exports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.local, "artifacts", lambda *_: pytest.fail("it began"))
    assert main(["bench", "--on", "mps", "--backends", "onnx,tflite"]) == 3
    said = capsys.readouterr().err
    assert "light by onnx on mps: backend 'onnx' knows no device 'mps'" in said
    assert "light by tflite on mps: backend 'tflite' knows no device 'mps'" in said
