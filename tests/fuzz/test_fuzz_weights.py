"""Damaged weights, and hyper-parameters that describe no network."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
from fuzzing import changes, damaged, fuzz, only_our_errors
from hypothesis import given
from hypothesis import strategies as st

from handmesh import Bundle, InputError, backends
from handmesh.bundle import io_specs, write_manifest
from handmesh.graph import Topology

torch = pytest.importorskip("torch", reason="torch is not installed")
from handmesh.nn import (  # noqa: E402  (needs torch)
    DecoderConfig,
    PaperConfig,
    build,
    from_dict,
    load_weights,
    read_config,
    save_weights,
    to_dict,
)

DECODER = DecoderConfig(
    coarse_features=4, middle_channels=(4, 4), fine_channels=4, pose_fine_channels=(2, 2),
    pose_middle_channels=(2, 2), pose_hidden=63,
)  # fmt: skip
CONFIG = PaperConfig(
    input_size=32, features=8, stacks=1, hourglass_depth=1, residuals_per_position=1,
    encoder_levels=2, latent=8, decoder=DECODER,
)  # fmt: skip
DESCRIBED = json.loads(json.dumps(to_dict(CONFIG)))


@pytest.fixture(scope="module")
def topology() -> Topology:
    return Topology.default()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, topology: Topology) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(build(CONFIG, topology), path, CONFIG, topology)
    return path.read_bytes()


def _with_header(data: bytes, header: dict[str, Any]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@fuzz(2)
@given(st.data())
def test_damaged_weights(
    tmp_path_factory: pytest.TempPathFactory,
    topology: Topology,
    weights: bytes,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    kind = data.draw(st.sampled_from(["bytes", "header", "config"]))
    if kind == "bytes":
        changed = data.draw(damaged([weights], header=length))
    elif kind == "header":
        changed = _with_header(weights, data.draw(changes(header)))
    else:
        # Whole numbers stay small: a network of the size that is asked for is built.
        config = data.draw(changes(DESCRIBED))
        text = json.dumps(config)
        header = {**header, "__metadata__": {**header["__metadata__"], "config": text}}
        changed = _with_header(weights, header)
    path.write_bytes(changed)
    with only_our_errors():
        config = read_config(path)
        if config == CONFIG:
            load_weights(build(config, topology), path, config, topology)


SMALL = st.one_of(
    st.integers(-3, 40), st.floats(-3, 40), st.booleans(), st.none(), st.text(max_size=3),
    st.lists(st.integers(-1, 9), max_size=3), st.just({}),
)  # fmt: skip


def _places(document: dict[str, Any]) -> list[tuple[str, ...]]:
    inner = [("decoder", name) for name in document["decoder"]]
    return [(name,) for name in document if name != "network"] + inner


@fuzz(0.2)
@given(st.sampled_from(_places(DESCRIBED)), SMALL)
def test_networks_that_cannot_be(
    tmp_path_factory: pytest.TempPathFactory,
    topology: Topology,
    weights: bytes,
    place: tuple[str, ...],
    value: Any,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "other"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    topology.save(folder / "topology.npz")
    config = json.loads(json.dumps(DESCRIBED))
    target = config if len(place) == 1 else config["decoder"]
    target[place[-1]] = value
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    header["__metadata__"]["config"] = json.dumps(config)
    (folder / "weights.safetensors").write_bytes(_with_header(weights, header))
    entries = {
        "name": "other", "network": "paper", "config": config,
        **io_specs(32, topology.vertex_count),
        "artifacts": {"torch": {"path": "weights.safetensors"}},
        "licences": {}, "provenance": {},
    }  # fmt: skip
    write_manifest(folder, entries)
    with only_our_errors():
        backend = backends.create("torch", Bundle.load(folder), threads=1)
        backend.run(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("name", ["hourglass_depth", "encoder_levels"])
@pytest.mark.parametrize("depth", [10**11, -1, 17, 2.5])
def test_depths_that_no_memory_holds(name: str, depth: Any) -> None:
    """Found by fuzzing: the side of the picture was shifted by as many bits."""
    with pytest.raises(InputError, match=f"{name} must be in"):
        from_dict({**DESCRIBED, name: depth})
