"""A moving hand, frame by frame: what is kept of it, and what the mesh at rest is made of."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
from gltf_player import Player

from handmesh import animation as module
from handmesh.animation import Animation, encode_animation
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import Box, Camera, Hand


def _hand(topology: Topology, scale: float = 1.0, left: bool = False, **changes: Any) -> Hand:
    """The template, so many times as large, half a metre away."""
    place, flip = np.array([0, 0.05, 0.5]), np.array([-1.0 if left else 1.0, 1, 1])
    vertices = topology.template_vertices_m.astype(np.float64) * scale
    fields: dict[str, Any] = {
        "vertices_m": vertices * flip + place,
        "faces": topology.mirrored_faces if left else topology.faces,
        "joints_m": topology.joint_regressor @ vertices * flip + place,
        "joints_px": np.zeros((21, 2)),
        "vertices_px": np.zeros((len(vertices), 2)),
        "confidence": np.ones(21),
        "presence": 1.0,
        "handedness": "left" if left else "right",
        "depth": "metric",
        "box": Box(0, 0, 1),
        "camera": Camera.default(640, 480),
    }
    return Hand(**fields | changes)


def _extent(data: bytes) -> float:
    """Length of the mesh at rest, metres."""
    return float(np.ptp(Player(data).attribute("POSITION"), axis=0).max())


def test_of_a_long_video_little_is_kept(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_SHAPES", 16)
    animation = Animation()
    seen: list[weakref.ref[Hand]] = []

    def add(count: int) -> int:
        for _ in range(count):
            hand = _hand(topology)
            animation.add(hand, len(seen) / 30)
            seen.append(weakref.ref(hand))
            del hand
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # After 20 and after 40 frames the meshes of 10 are kept: of every second, and every fourth.
        before, after = add(20), add(20)
    finally:
        tracemalloc.stop()
    assert [reference() is not None for reference in seen] == [True] + [False] * 39
    assert after - before < 20 * 2048, "a hand has 20 KB beside its faces"
    player = Player(animation.encode())
    assert player.duration() == pytest.approx(39 / 30)


def test_the_mesh_at_rest_is_the_median_over_all_of_the_time(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = [_hand(topology, scale) for scale in np.linspace(1.0, 1.2, 41)]
    times = [n / 30 for n in range(41)]
    every = _extent(encode_animation(growing, times))
    assert every == pytest.approx(_extent(encode_animation(growing[20:21], [0.0])), rel=1e-3)
    monkeypatch.setattr(module, "_MOST_SHAPES", 16)
    assert _extent(encode_animation(growing, times)) == pytest.approx(every, rel=1e-3)


def test_influences_of_no_weight_name_joint_0_as_the_format_asks(topology: Topology) -> None:
    player = Player(encode_animation([_hand(topology)], [0.0]))
    joints, weights = player.attribute("JOINTS_0"), player.attribute("WEIGHTS_0")
    assert joints.shape == weights.shape == (topology.vertex_count, 4)
    assert (joints[weights == 0] == 0).all()
    assert (weights == 0).any()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_what_does_not_go_on_is_refused(topology: Topology) -> None:
    with pytest.raises(InputError, match="at least one hand"):
        Animation().encode()
    animation = Animation()
    with pytest.raises(InputError, match="of hands, not of str"):
        animation.add("hand", 0.0)  # type: ignore[arg-type]
    animation.add(_hand(topology), 1.0)
    for hand, time_s, message in (
        (_hand(topology), 1.0, "each above the last"),
        (_hand(topology), float("nan"), "finite"),
        (_hand(topology, left=True), 2.0, "left and right"),
        (_hand(topology, left=True, handedness="right"), 2.0, "mirrored and other"),
        (_hand(topology, faces=[[0, 1, 2]]), 2.0, "this hand's mesh"),
    ):
        with pytest.raises(InputError, match=message):
            animation.add(hand, time_s)
    animation.add(_hand(topology), 2.0)
    assert Player(animation.encode()).duration() == pytest.approx(1.0)


@pytest.mark.parametrize("seconds", [[0, 100, 100 + 1e-6], [0, 1e39], [0, None], [0, 10**400]])
def test_times_that_no_file_holds_are_refused(topology: Topology, seconds: list[Any]) -> None:
    """The file has float32, which must ascend."""
    with pytest.raises(InputError, match=r"float32|seconds|finite"):
        encode_animation([_hand(topology)] * len(seconds), seconds)


def test_times_count_from_the_first(topology: Topology) -> None:
    """Float32 seconds since 1970 are minutes apart; a file's are not."""
    data = encode_animation([_hand(topology)] * 3, [1.7e9, 1.7e9 + 1 / 64, 1.7e9 + 1 / 32])
    assert Player(data).duration() == pytest.approx(1 / 32)


def test_an_animation_is_of_a_list_of_hands(topology: Topology) -> None:
    for wrong in (_hand(topology), None, 5):
        with pytest.raises(InputError, match="a list of hands, one for each frame, not"):
            encode_animation(wrong, [0.0])  # type: ignore[arg-type]


def test_signs_of_rotations_do_not_jump() -> None:
    """Players interpolate numbers: from q to -q, the same turn, they would go the long way."""
    rng = np.random.default_rng(0)
    steady = np.tile(rng.normal(0, 1, (1, 21, 4)), (9, 1, 1)) + rng.normal(0, 0.01, (9, 21, 4))
    jumping = steady * np.where(rng.random((9, 21, 1)) < 0.5, -1, 1)
    continuous = module._continuous(jumping)
    np.testing.assert_allclose(
        continuous, steady * np.sign((jumping * steady)[:1].sum(-1))[..., None]
    )
