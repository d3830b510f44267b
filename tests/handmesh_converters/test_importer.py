"""Imported checkpoints against the authors' layout computed from its raw tensors in float64."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handmesh.bundle import Bundle
from handmesh.errors import CheckpointError
from handmesh.graph import Topology
from handmesh.nn import DecoderConfig, PaperConfig, build, load_weights, read_config
from handmesh_converters.cli import add_commands
from handmesh_converters.fold import fold
from handmesh_converters.importer import AUTHORS, import_network, read_graph, weights

from ..helpers import foreign_network
from ..helpers.foreign_network import Graph, Outputs, States, Widths, foreign_graph, random_states

WIDTHS = Widths(4, 16, 16, 16, coarse=8, graph=(8, 6), pose=(4, 5), hidden=64)
CONFIG = PaperConfig(
    input_size=64,
    features=16,
    latent=16,
    decoder=DecoderConfig(8, (8, 6), 6, 3, (4, 4), (5, 5), 64, pose_pooling="max"),
    uv_from_heatmaps=True,
)
Edit = Callable[[States], None]


@pytest.fixture(scope="module")
def graph(topology: Topology) -> Graph:
    return foreign_graph(topology)


@pytest.fixture(scope="module")
def graph_file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "graph.npz"
    np.savez_compressed(path, **graph)
    return path


@pytest.fixture(scope="module")
def imported(graph_file: Path) -> Topology:
    return read_graph(graph_file)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    return random_states(WIDTHS).save(tmp_path)


def _crops(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def _assert_same(network: weights.PaperNetwork, crops: torch.Tensor, expected: Outputs) -> None:
    with torch.no_grad():
        out = network(crops.permute(0, 3, 1, 2).float() / 255 - 0.5)
    for found, wanted in (
        (out.heatmaps[-1], expected.heatmaps),
        (out.vertices, expected.mesh),
        (out.joints[:, 1:, 2], expected.depths),
    ):
        assert wanted.std(dim=1).min() > 1e-3, "outputs that are all alike would prove nothing"
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert out.joints[:, 0, 2].abs().max() == 0
    size = crops.shape[1]
    enlarged = F.interpolate(expected.heatmaps, size=(size, size), mode="bilinear")
    column, row = (out.joints[..., :2] * size).round().long().unbind(-1)
    at = enlarged[torch.arange(len(crops))[:, None], torch.arange(21), row, column]
    torch.testing.assert_close(at, enlarged.amax(dim=(2, 3)), rtol=0, atol=1e-5)


def test_it_computes_what_theirs_computes(
    files: tuple[Path, Path, Path], graph: Graph, imported: Topology
) -> None:
    network = import_network(*files, imported, config=CONFIG)

    crops = _crops(64)
    expected = foreign_network.run(random_states(WIDTHS), graph, crops)
    _assert_same(network, crops, expected)
    with torch.no_grad():
        exported = fold(network)(crops)
    torch.testing.assert_close(exported[0].double(), expected.mesh, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_full_size(tmp_path: Path, graph: Graph, imported: Topology) -> None:
    """Names and shapes of the whole, with the default configuration."""
    states = random_states(Widths())
    learned = [
        tensor.numel()
        for state in states
        for name, tensor in state.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    assert sum(learned) / 1e6 == pytest.approx(21.7, abs=0.1)  # 12.6 + 1.75 + 4.7 + 2.65
    network = import_network(*states.save(tmp_path), imported)
    assert network.config == AUTHORS
    crops = _crops(256, count=1)
    _assert_same(network, crops, foreign_network.run(states, graph, crops))


def test_rgb_checkpoints_are_not_turned_round(
    files: tuple[Path, Path, Path], graph: Graph, imported: Topology
) -> None:
    network = import_network(*files, imported, channels="rgb", config=CONFIG)

    crops = _crops(64)
    as_shown = foreign_network.run(random_states(WIDTHS), graph, crops.flip(3))
    _assert_same(network, crops, as_shown)


def test_files_of_older_torch_and_of_data_parallel(
    tmp_path: Path, files: tuple[Path, Path, Path], imported: Topology
) -> None:
    expected = import_network(*files, imported, config=CONFIG).state_dict()
    older = States(
        *(
            {f"module.{n}": t for n, t in state.items() if not n.endswith("num_batches_tracked")}
            for state in random_states(WIDTHS)
        )
    )

    found = import_network(*older.save(tmp_path), imported, config=CONFIG).state_dict()

    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def _missing(states: States) -> None:
    del states.heatmaps["hourglass.1.low2.low2.low2.low2_.1.conv2.weight"]


def _surplus(states: States) -> None:
    states.mesh["mesh_net.bn.3.weight"] = torch.ones(3)


def _transposed(states: States) -> None:
    states.mesh["mesh_net.fc.fc_2.fc.weight"] = states.mesh["mesh_net.fc.fc_2.fc.weight"].T


def _other_outputs(states: States) -> None:
    states.pose["fc.fc_2.fc.weight"] = torch.zeros(63, 64)
    states.pose["fc.fc_2.fc.bias"] = torch.zeros(63)


def _nan(states: States) -> None:
    states.heatmaps["lin_.0.1.running_var"][2] = float("nan")


def _integers(states: States) -> None:
    states.pose["bn.0.weight"] = torch.ones(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (_missing, r"net_hm.pth .*missing: hourglass.1.low2.low2.low2.low2_.1.conv2.weight\."),
        (_surplus, r"net_feat_mesh.pth .*not known: mesh_net.bn.3.weight\. "),
        (_transposed, r"fc_2.fc.weight \(16, 640\), expected \(640, 16\)"),
        (
            _other_outputs,
            r"fc_2.fc.weight \(63, 64\), expected \(20, 64\), fc.fc_2.fc.bias \(63,\)",
        ),
        (_nan, r"not finite numbers: lin_.0.1.running_var"),
        (_integers, r"not finite numbers: bn.0.weight"),
    ],
)
def test_what_does_not_match_is_refused(
    edit: Edit, told: str, tmp_path: Path, imported: Topology
) -> None:
    states = random_states(WIDTHS)
    edit(states)

    with pytest.raises(CheckpointError, match=told):
        import_network(*states.save(tmp_path), imported, config=CONFIG)


def test_exchanged_files(files: tuple[Path, Path, Path], imported: Topology) -> None:
    heatmaps, mesh, pose = files
    told = "net_mesh_pose.pth is not the mesh network .*and 167 more.*It has no feat_net.heatmap_c"
    with pytest.raises(CheckpointError, match=told):
        import_network(heatmaps, pose, mesh, imported, config=CONFIG)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_files_with_code_are_not_opened(
    files: tuple[Path, Path, Path], imported: Topology, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"conv1_.weight": _Harmful()}, files[0])
    with pytest.raises(CheckpointError, match="not a file of tensors alone"):
        import_network(*files, imported, config=CONFIG)
    files[0].write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(CheckpointError, match="not a file of tensors alone"):
        import_network(*files, imported, config=CONFIG)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, torch.zeros(3)])
def test_no_state_dict(content: object, files: tuple[Path, Path, Path], imported: Topology) -> None:
    torch.save(content, files[1])
    with pytest.raises(CheckpointError, match="names with tensors"):
        import_network(*files, imported, config=CONFIG)


def test_no_file(files: tuple[Path, Path, Path], imported: Topology) -> None:
    files[2].unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"cannot read {files[2]}")):
        import_network(*files, imported, config=CONFIG)


def _run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["import", *map(str, arguments)])
    code: int = args.run(args)
    return code


def test_the_command_writes_a_bundle_on_its_own_graph(
    files: tuple[Path, Path, Path],
    graph_file: Path,
    imported: Topology,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(weights.import_network, "__defaults__", ("bgr", CONFIG))
    crops = _crops(64, count=3)
    np.savez(tmp_path / "crops.npz", images=crops.numpy())
    (tmp_path / "card.json").write_text(json.dumps({"licences": {"weights": "research only"}}))
    heatmaps, mesh, pose = files
    given = {
        "--heatmaps": heatmaps,
        "--mesh": mesh,
        "--pose": pose,
        "--graph": graph_file,
        "--reference": tmp_path / "crops.npz",
        "--card": tmp_path / "card.json",
        "--out": tmp_path / "bundle",
    }

    assert _run(*(part for pair in given.items() for part in pair)) == 0

    assert "handmesh export" in capsys.readouterr().out
    bundle = Bundle.load(tmp_path / "bundle")
    bundle.check()
    assert bundle.topology.sha256 == imported.sha256
    assert bundle.topology.sha256 != Topology.default().sha256
    assert bundle.manifest["licences"]["weights"] == "research only"
    origin = bundle.manifest["provenance"]["imported"]
    assert origin["heatmaps"]["file"] == "net_hm.pth"
    assert (origin["channels"], origin["laplacian"]) == ("bgr", "authors")
    path = bundle.artifact("torch")
    config = read_config(path)
    assert config == CONFIG
    network = build(config, bundle.topology).eval()
    load_weights(network, path, config, bundle.topology)
    expected = import_network(*files, imported, config=CONFIG).state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in network.state_dict().items())
