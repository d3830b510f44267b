"""Topology files: the hash, saving and loading, and everything that must be refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.errors import BundleError, GraphMismatchError
from handmesh.graph import DEFAULT_PATH, LEVEL_NODE_COUNTS, GraphLevel, Topology


def altered(topology: Topology, name: str) -> Topology:
    """The same graph with the first entry of one array changed."""
    if not name.startswith("level"):
        array = getattr(topology, name).copy()
        array.flat[0] += 1
        return dataclasses.replace(topology, **{name: array})
    number, field = int(name[5]), name[7:]
    level = topology.levels[number]
    value: Any = getattr(level, field)
    if field == "lambda_max":
        value = value + 1e-6
    elif field == "mask":
        value = np.concatenate([~value[:1], value[1:]])
    else:
        value = value.copy()
        value.flat[0] += 1
    levels = list(topology.levels)
    levels[number] = dataclasses.replace(level, **{field: value})
    return dataclasses.replace(topology, levels=tuple(levels))


PLAIN_ARRAYS = [f.name for f in dataclasses.fields(Topology) if f.name != "levels"]
LEVEL_ARRAYS = [f"level{n}_{f.name}" for n in range(5) for f in dataclasses.fields(GraphLevel)]


@pytest.mark.parametrize("name", PLAIN_ARRAYS + LEVEL_ARRAYS)
def test_the_hash_notices_a_change_in_any_array(topology: Topology, name: str) -> None:
    assert altered(topology, name).sha256 != topology.sha256


def test_a_mismatch_is_told(topology: Topology) -> None:
    topology.check_sha256(topology.sha256, "weights.safetensors")
    with pytest.raises(GraphMismatchError, match=r"weights\.safetensors was made for graph 1234"):
        topology.check_sha256("1234", "weights.safetensors")


def test_saving_and_loading_keeps_everything(topology: Topology, tmp_path: Path) -> None:
    topology.save(tmp_path / "a.npz")
    Topology.load(tmp_path / "a.npz").save(tmp_path / "b.npz")

    loaded = Topology.load(tmp_path / "b.npz")

    assert loaded.sha256 == topology.sha256
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert loaded.levels[0].mask.dtype == bool
    for name in PLAIN_ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(topology, name))


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[Any]]:
    with np.load(DEFAULT_PATH) as archive:
        return {name: archive[name] for name in archive.files}


def test_the_hash_does_not_depend_on_the_container(
    topology: Topology, arrays: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    np.savez(tmp_path / "plain.npz", **arrays)

    assert Topology.load(tmp_path / "plain.npz").sha256 == topology.sha256


def changed_array(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Ways to spoil an array, by what is wrong with it."""
    spoilt = {"dimensions": array[None]}
    spoilt["type"] = array.astype(np.int64 if array.dtype.kind in "iu" else np.float16)
    if name != "faces":  # fewer faces are a mesh, too: the hash is what notices
        spoilt["length"] = array[:-1]
    if array.dtype.kind == "f":
        spoilt["NaN"] = np.full_like(array, np.nan)
    if name in ("faces", "node_of_vertex") or name.endswith("neighbours"):
        spoilt["negative"], spoilt["beyond"] = array.copy(), array.copy()
        spoilt["negative"].flat[3], spoilt["beyond"].flat[3] = -1, 1280
    if name == "node_of_vertex":
        spoilt["twice"] = array.copy()
        spoilt["twice"][0] = array[1]
    return spoilt


@pytest.mark.parametrize(
    "name", ["faces", "node_of_vertex", "joint_blend", "parts", "level320_neighbours"]
)
def test_arrays_that_do_not_fit_together_are_refused(
    arrays: dict[str, NDArray[Any]], tmp_path: Path, name: str
) -> None:
    for array in changed_array(name, arrays[name]).values():
        np.savez(tmp_path / "bad.npz", **(arrays | {name: array}))
        with pytest.raises(BundleError, match=r"bad\.npz"):
            Topology.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if k != name})
    with pytest.raises(BundleError, match=name):
        Topology.load(tmp_path / "bad.npz")


def test_vertices_and_padding_must_agree(arrays: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    nodes, mask = arrays["node_of_vertex"], arrays["level1280_mask"]
    moved, shared, smaller = nodes.copy(), nodes.copy(), mask.copy()
    moved[0] = np.flatnonzero(mask == 0)[0]
    shared[0] = nodes[1]
    smaller[nodes[0]] = 0
    for changed in (
        {"node_of_vertex": moved},
        {"level1280_mask": smaller},
        {"node_of_vertex": shared, "level1280_mask": smaller},
    ):
        np.savez(tmp_path / "bad.npz", **(arrays | changed))
        with pytest.raises(BundleError, match="does not match the padding mask"):
            Topology.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("count", LEVEL_NODE_COUNTS)
def test_levels_that_are_none_are_refused(
    arrays: dict[str, NDArray[Any]], tmp_path: Path, count: int
) -> None:
    bad_mask = 1 - arrays[f"level{count}_mask"][:-1]
    for name, value in (
        ("mask", bad_mask),
        ("lambda_max", np.array(0.0)),
        ("lambda_max", np.array([1.0, 2.0])),
        ("lambda_max", np.array("large")),
        ("weights", arrays[f"level{count}_weights"][:, :-1]),
        ("weights", np.full_like(arrays[f"level{count}_weights"], np.inf)),
    ):
        np.savez(tmp_path / "bad.npz", **(arrays | {f"level{count}_{name}": value}))
        with pytest.raises(BundleError, match=r"bad\.npz"):
            Topology.load(tmp_path / "bad.npz")


def test_missing_and_foreign_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no file"):
        Topology.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "pickle.npz", faces=np.array([{}], dtype=object))
    for name in ("text.npz", "array.npy", "pickle.npz", "."):
        with pytest.raises(BundleError, match="restore"):
            Topology.load(tmp_path / name)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = DEFAULT_PATH.read_bytes()
    for share in (0, 0.001, 0.3, 0.9, 0.9999):
        (tmp_path / "cut.npz").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BundleError):
            Topology.load(tmp_path / "cut.npz")


def test_a_flipped_byte_is_an_error_or_harmless(topology: Topology, tmp_path: Path) -> None:
    """Some bytes of a .zip say nothing; whatever loads must be the same graph."""
    whole = DEFAULT_PATH.read_bytes()
    rng = np.random.default_rng(0)
    headers = len(whole) - rng.integers(0, 2500, 60)  # the directory, where odd errors come from
    refused = 0
    for position in [*rng.integers(0, len(whole), 40), *headers]:
        damaged = bytearray(whole)
        damaged[position - 1] ^= 0xFF
        (tmp_path / "flip.npz").write_bytes(damaged)
        try:
            loaded = Topology.load(tmp_path / "flip.npz")
        except BundleError:
            refused += 1
        else:
            assert loaded.sha256 == topology.sha256
    assert refused > 60
