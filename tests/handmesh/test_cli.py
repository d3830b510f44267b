from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import handmesh.cli as cli
import handmesh.predictor
from handmesh import backends
from handmesh.bundle import Bundle, write_manifest
from handmesh.errors import BackendUnavailable
from handmesh.predictor import Predictor
from handmesh.types import Camera

pytestmark = pytest.mark.usefixtures("found_by_windows")

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path, make_hand: Make, paint: Make) -> dict[str, Path]:
    pixels = {
        "right": paint(CAMERA, make_hand()),
        "left": paint(CAMERA, make_hand(left=True)),
        "empty": np.full((480, 640, 3), 90, np.uint8),
    }
    paths = {name: tmp_path / f"{name}.png" for name in pixels}
    for name, path in paths.items():
        cv2.imwrite(str(path), pixels[name][..., ::-1])
    return paths


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Bundle,
    make_hand: Make,
    reading_backend: Make,
) -> Callable[..., tuple[int, str, str]]:
    """The command with a network that reads painted joints; (exit code, stdout, stderr)."""

    def make(*arguments: Any, **options: Any) -> Predictor:
        return Predictor(bundle, reading_backend(make_hand()))

    monkeypatch.setattr(handmesh.predictor, "Predictor", make)

    def command(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_predict_writes_pictures_mesh_and_joints(
    run: Make, photos: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    code, text, _ = run("predict", photos["right"], "--out", out)
    assert code == 0
    assert "right hand, presence 0.99" in text
    assert "(assumed)" in text
    names = {path.name for path in out.iterdir()}
    assert names == {"right_hand.png", "right_side.png", "right_hand.glb", "right_hand.json"}
    assert all(str(out / name) in text for name in names)
    overlay = cv2.imread(str(out / "right_hand.png"))
    assert overlay.shape == (480, 640, 3)
    assert json.loads((out / "right_hand.json").read_text())["handedness"] == "right"
    assert (out / "right_hand.glb").read_bytes()[:4] == b"glTF"


def test_the_picture_of_a_large_photo_is_reduced_and_its_numbers_are_not(
    run: Make, tmp_path: Path, make_hand: Make, paint: Make
) -> None:
    camera = Camera.default(2400, 1800)
    hand = make_hand()
    cv2.imwrite(str(tmp_path / "big.png"), paint(camera, hand)[..., ::-1])
    assert run("predict", tmp_path / "big.png", "--out", tmp_path / "out")[0] == 0
    assert cv2.imread(str(tmp_path / "out" / "big_hand.png")).shape == (1536, 2048, 3)
    told = json.loads((tmp_path / "out" / "big_hand.json").read_text())
    assert (told["camera"]["width"], told["camera"]["height"]) == (2400, 1800)
    np.testing.assert_allclose(told["joints_px"], camera.project(hand.joints_m), atol=20)
    told_by_help = " ".join(run("predict", "--help")[1].split())
    assert "more than 2048 pixels NAME_hand.png is reduced to that" in told_by_help


def test_json_goes_to_standard_output_alone(
    run: Make, photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    code, text, _ = run("predict", photos["left"], photos["empty"], "--json")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [len(line["hands"]) for line in lines] == [1, 0]
    assert lines[0]["hands"][0]["handedness"] == "left"
    assert lines[0]["photo"] == str(photos["left"])
    assert code == 1
    assert list(work.iterdir()) == []


def test_options_reach_the_prediction(run: Make, photos: dict[str, Path]) -> None:
    arguments = ("--json", "--fov", "50", "--bone-length", "0.05", "--mirrored")
    _, text, _ = run("predict", photos["right"], *arguments)
    (hand,) = json.loads(text)["hands"]
    assert hand["depth"] == "metric"
    assert hand["camera"]["fx"] == pytest.approx(Camera.from_fov(640, 480, 50).fx)
    assert hand["handedness"] == "left"  # that is what a mirrored photo of a "right" hand shows


def test_the_camera_can_be_that_of_the_exif(run: Make, photos: dict[str, Path]) -> None:
    code, _, errors = run("predict", photos["right"], "--json", "--exif")
    assert code == 2
    assert "carries no EXIF" in errors
    # One entry, FocalLengthIn35mmFilm = 26, in an EXIF directory of its own.
    block = b"MM\0*" + struct.pack(
        ">IHHHIIIHHHIHHI", 8, 1, 0x8769, 4, 1, 26, 0, 1, 0xA405, 3, 1, 26, 0, 0
    )
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = photos["right"].read_bytes()
    photos["right"].write_bytes(data[:33] + chunk + data[33:])
    _, text, _ = run("predict", photos["right"], "--json", "--exif")
    camera = json.loads(text)["hands"][0]["camera"]
    assert camera["fx"] == pytest.approx(26 / 43.2666 * 800, rel=1e-4)
    assert run("predict", photos["right"], "--exif", "--fov", "60")[0] == 2


def test_box_option_replaces_the_search(run: Make, photos: dict[str, Path]) -> None:
    _, text, _ = run("predict", photos["empty"], "--json", "--box", "100,50.5,300,250")
    assert json.loads(text)["hands"][0]["presence"] < 0.1


def test_no_hand_is_exit_code_one(run: Make, photos: dict[str, Path], tmp_path: Path) -> None:
    code, text, _ = run("predict", photos["empty"], "--out", tmp_path / "out")
    assert code == 1
    assert "no hand found" in text
    assert list((tmp_path / "out").iterdir()) == []


def test_one_bad_photo_does_not_stop_the_others(
    run: Make, photos: dict[str, Path], tmp_path: Path
) -> None:
    (text_file := tmp_path / "notes.jpg").write_text("not a photo")
    code, text, errors = run(
        "predict", text_file, tmp_path / "missing.jpg", photos["right"], "--out", tmp_path / "out"
    )
    assert code == 2
    assert "right hand" in text
    lines = errors.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("handmesh: ") for line in lines)
    assert "notes.jpg" in lines[0]
    assert "missing.jpg" in lines[1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-command",),
        ("predict", "photo.jpg", "--box", "1,2,3"),
        ("predict", "photo.jpg", "--box", "a,b,c,d"),
        ("predict", "photo.jpg", "--handedness", "both"),
    ],
)
def test_wrong_usage_is_exit_code_two(run: Make, arguments: tuple[str, ...]) -> None:
    code, text, errors = run(*arguments)
    assert (code, text) == (2, "")
    assert "usage: handmesh" in errors


@pytest.mark.parametrize(
    ("arguments", "command", "said"),
    [
        (("predict", "a.jpg", "--box", "1,2,3"), "predict", "argument --box: expected X0,Y0,X1,Y1"),
        (("predict", "a.jpg", "--bix", "a\nb"), "predict", "unrecognized arguments: --bix a b"),
        (("track",), "track", "the following arguments are required: VIDEO"),
        (("bench", "--nope"), "bench", "unrecognized arguments: --nope"),
        (("train", "twig"), "train", "argument STAGE: invalid choice: 'twig'"),
        (("predikt",), None, "no command 'predikt'; there are predict, track"),
        (("--verbos",), None, "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line(
    run: Make, arguments: tuple[str, ...], command: str | None, said: str
) -> None:
    code, text, errors = run(*arguments)
    assert (code, text) == (2, "")
    name = "handmesh" if command is None else f"handmesh {command}"
    assert errors.startswith(f"{name}: {said}")
    assert errors.endswith(f"; usage: {name} --help\n")
    assert errors.count("\n") == 1


def test_without_a_command_there_is_the_list_of_them(run: Make) -> None:
    _, _, errors = run()
    for command in ("predict", "track", "info", "verify", "completion"):
        assert f"\n    {command} " in errors


@pytest.mark.parametrize(
    "options", [("--box", "900,900,990,990"), ("--fov", "400"), ("--bone-length", "-1")]
)
def test_impossible_values_are_exit_code_two(
    run: Make, photos: dict[str, Path], options: tuple[str, ...]
) -> None:
    code, _, errors = run("predict", photos["right"], "--json", *options)
    assert code == 2
    assert errors.count("\n") == 1


def test_photos_of_one_name_do_not_overwrite_each_other(
    run: Make, photos: dict[str, Path], tmp_path: Path
) -> None:
    code, _, errors = run("predict", photos["right"], "elsewhere/right.jpg", "--out", tmp_path)
    assert code == 2
    assert "two photos are named 'right'" in errors


def test_missing_backend_is_exit_code_three(
    run: Make, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise BackendUnavailable("backend 'onnx' needs the package 'onnxruntime'")

    monkeypatch.setattr(handmesh.predictor, "Predictor", refuse)
    code, _, errors = run("predict", photos["right"])
    assert code == 3
    assert errors == "handmesh: backend 'onnx' needs the package 'onnxruntime'\n"


def test_missing_bundle_is_exit_code_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "no bundle at" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["light", "paper"])
def test_info_states_layers_parameters_and_operations(
    capsys: pytest.CaptureFixture[str], network: str
) -> None:
    assert cli.main(["info", "--network", network, "--depth", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{network}, input ")
    assert lines[2].split() == ["layer", "type", "output", "parameters", "MACs"]
    assert lines[-1].startswith("total")
    rows = [line.split() for line in lines[4:-2]]
    total = [int(number.replace(",", "")) for number in lines[-1].split()[-2:]]
    for column in (-2, -1):
        assert sum(int(row[column].replace(",", "")) for row in rows) == total[column]
    assert total[0] > 1_000_000


def test_info_without_torch_is_exit_code_three(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.startswith("handmesh.nn")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["info", "--network", "light"]) == 3
    assert "pip install '.[torch]'" in capsys.readouterr().err
    assert cli.main(["info"]) == 0  # what a base install can tell, it tells
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith("onnx (") for line in told)
    assert told[-1].startswith("layers: not told: the package 'torch'")


@pytest.mark.parametrize("name", ["light", "detector"])
def test_info_says_what_a_bundle_holds_and_what_runs_it(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    bundle = Bundle.load(name)
    assert cli.main(["info", name]) == 0
    text, _, layers = capsys.readouterr().out.partition("\n\n")
    lines = text.splitlines()
    assert lines[0] == f"{name}: {bundle.folder}"
    assert "licence of weights: Apache-2.0" in text
    figures = bundle.manifest["provenance"].get("figures", {})
    assert (name == "light") == bool(figures)
    for which, found in figures.items():
        if isinstance(found, dict):
            assert f"figures of {which}: hands {found['hands']}, " in text
        else:
            assert f"figures, {which}: {found}\n" in text
    if name == "detector":
        assert lines.pop() == "layers: not told of detectors"
    told = {line.split(" ")[0].rstrip(":"): line for line in lines[-len(backends.names()) :]}
    assert list(told) == backends.names()
    size = (bundle.folder / "model.onnx").stat().st_size / 2**20
    assert told["onnx"] == f"onnx (fp16, {size:.1f} MiB): can run here"
    assert told["tflite"].startswith("tflite: not here: backend 'tflite'")
    assert layers.startswith("light, input 128 x 128 x 3" if name == "light" else "")
    assert bool(layers) == (name == "light")


def test_info_of_no_bundle_names_the_other_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--depth", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "of light; `handmesh info detector` for detector, which ships too"
    for name in ("light", "detector"):
        cli.main(["info", name])
        assert "ships too" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damaged", "hit"),
    [
        ("model.onnx", {"onnx"}),
        ("weights.safetensors", {"torch"}),
        ("topology.npz", {"onnx", "torch"}),
    ],
)
@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_info_does_not_say_that_damaged_artifacts_can_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, damaged: str, hit: set[str], how: str
) -> None:
    copy = shutil.copytree(Bundle.load().folder, tmp_path / "copy")
    path = copy / damaged
    size = path.stat().st_size
    path.unlink() if how == "missing" else path.write_bytes(b"short")
    said = "is missing" if how == "missing" else f"has 5 bytes, not the {size}"
    assert cli.main(["info", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("onnx", "torch"):
        (line,) = (line for line in lines if line.startswith(f"{name} ("))
        told = line.partition("): ")[2]
        if name in hit:
            assert told.startswith(f"damaged: {path} {said}")
        else:
            assert told == "can run here"


def test_info_looks_at_every_file_of_a_folder(
    capsys: pytest.CaptureFixture[str], bundle_folder: Path, manifest: dict[str, Any]
) -> None:
    """On any machine: the bundle may be for another one."""
    (bundle_folder / "cuda").mkdir()
    for name in ("head.npz", "trunk.onnx"):
        (bundle_folder / "cuda" / name).write_bytes(b"constants")
    write_manifest(bundle_folder, manifest | {"artifacts": {"cuda": {"path": "cuda"}}})
    (bundle_folder / "cuda" / "trunk.onnx").unlink()
    cli.main(["info", str(bundle_folder)])
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("cuda ("))
    assert f"damaged: {bundle_folder / 'cuda' / 'trunk.onnx'} is missing" in line


@pytest.mark.parametrize("depth", ["0", "-1", "1.5", "all"])
def test_info_of_no_depth_is_wrong_usage(capsys: pytest.CaptureFixture[str], depth: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["info", "--depth", depth])
    assert stop.value.code == 2
    assert f"--depth: expected a whole number from 1, not '{depth}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder": {"foo": 1}}, r"light.decoder has no hyper-parameter ['foo']"),
        ({"input_size": "128"}, "light.input_size must be int, got '128'"),
        ({"latent": -5}, "describes no network that can be built"),
    ],
)
def test_info_of_a_network_that_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str],
    bundle_folder: Path,
    manifest: dict[str, Any],
    change: dict[str, Any],
    said: str,
) -> None:
    write_manifest(bundle_folder, {**manifest, "config": {"network": "light", **change}})
    assert cli.main(["info", str(bundle_folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("test: ")
    assert captured.err.startswith("handmesh: the `config` of the bundle's manifest")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def _entry_points(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [EntryPoint(name, value, "handmesh.commands") for name, value in values.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: points)


def add_extra(commands: Any) -> None:
    """What another package's entry point does."""
    parser = commands.add_parser("extra", help="from elsewhere")
    parser.add_argument("number", type=int)
    parser.set_defaults(run=lambda args: args.number)


def test_commands_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _entry_points(monkeypatch, other="handmesh_other:add")
    monkeypatch.setattr(EntryPoint, "load", lambda self: add_extra)
    assert cli.main(["extra", "7"]) == 7


def test_commands_that_cannot_be_loaded_do_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _entry_points(monkeypatch, broken="handmesh_missing_package.cli:add")
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert "predict" in captured.out
    assert "no commands of 'broken'" in captured.err
    # Our own commands do not even ask.
    cli.main(["verify", "no-such-bundle"])
    assert "broken" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == "handmesh 0.1.0\n"


def test_commands_that_raise_whatever_they_like_do_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(commands: Any) -> None:
        raise RuntimeError("two\nlines")

    _entry_points(monkeypatch, broken="handmesh_other:add")
    monkeypatch.setattr(EntryPoint, "load", lambda self: broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert "predict" in captured.out
    assert captured.err == "handmesh: no commands of 'broken': two lines\n"
