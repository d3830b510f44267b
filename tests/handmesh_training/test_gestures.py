"""The gesture library: many, named, distinct, within limits, and touching where they say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from penetration import surface_distance

from handmesh.errors import BundleError, InputError
from handmesh_training.gestures import build
from handmesh_training.gestures.authored import FINGERS, THUMBS, Spec, authored
from handmesh_training.gestures.combined import combined, coupled
from handmesh_training.gestures.contact import parse_place, part, solve, start_angles
from handmesh_training.gestures.library import GestureLibrary, default_library
from handmesh_training.hand import PIVOT_JOINTS, HandModel
from handmesh_training.limits import FLEXION, angle_limits
from handmesh_training.poses import KIND_SHARES

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def library() -> GestureLibrary:
    return default_library()


@pytest.fixture(scope="module")
def joints_mm(library: GestureLibrary, double_model: HandModel) -> Array:
    """(G, 21, 3) of all gestures on the template's shape."""
    angles = torch.from_numpy(library.angles).double()
    shape = torch.zeros(len(angles), double_model.shape_count, dtype=torch.float64)
    joints = double_model.pose_joints(shape, double_model.rotations(angles))
    result: Array = 1e3 * joints.numpy()
    return result


def test_there_are_five_hundred_named_ones(library: GestureLibrary) -> None:
    assert len(library) >= 500
    assert len(set(library.names)) == len(library.names) == len(library.kinds)
    assert set(library.kinds) == set(KIND_SHARES)
    kinds = dict(zip(library.names, library.kinds, strict=True))
    assert all(kinds[spec.name] == spec.kind for spec in authored())
    written = {spec.name for spec in authored()}
    assert written <= set(library.names), "every authored gesture is in"
    assert len(written) >= 250
    assert library.angles.shape == (len(library), 17, 3)
    assert library.angles.dtype == np.float32


def test_any_two_are_distinct(joints_mm: Array) -> None:
    """Brute force: some joint of the one lies 6 mm from the same joint of the other."""
    for g in range(1, len(joints_mm)):
        apart = np.linalg.norm(joints_mm[:g] - joints_mm[g], axis=-1).max(axis=1)
        assert apart.min() > build.DISTINCT_MM - 0.1


def test_joints_keep_their_limits(library: GestureLibrary) -> None:
    limits = angle_limits()

    assert (library.angles >= limits[..., 0] - 1e-3).all()
    assert (library.angles <= limits[..., 1] + 1e-3).all()
    assert not library.angles[:, [0, 16]].any(), "wrist and forearm are for the sampling"


def gap_mm(
    model: HandModel, library: GestureLibrary, name: str, bones: tuple[int, list[int]]
) -> float:
    """From the skin of one bone to the nearest of others, on the mesh."""
    angles = torch.from_numpy(library.angles[[library.names.index(name)]]).double()
    shape = torch.zeros(1, model.shape_count, dtype=torch.float64)
    vertices = model(shape, model.rotations(angles)).vertices[0].numpy()
    weights, faces = model.asset.weights, model.asset.faces
    points = vertices[weights[:, bones[0]] > 0.6]
    others = (weights[:, bones[1]].sum(axis=1) > 0.6)[faces].all(axis=1)
    return 1e3 * float(surface_distance(points, vertices[faces[others]]).min())


@pytest.mark.parametrize(("finger", "bone"), [("index", 6), ("middle", 9), ("ring", 12)])
@pytest.mark.parametrize("style", ["open", "easy", "relaxed", "soft"])
def test_pinches_bring_two_pads_together(
    library: GestureLibrary, double_model: HandModel, finger: str, bone: int, style: str
) -> None:
    name = "ok" if (finger, style) == ("index", "open") else f"pinch_{finger}_{style}"

    assert gap_mm(double_model, library, name, (3, [bone])) < 3.5
    for other in {6, 9, 12, 15} - {bone}:
        assert gap_mm(double_model, library, name, (3, [other])) > 1


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("fist", [5, 8]), ("fist_thumb_on_index", [5]), ("fist_thumb_low", [9]), ("point", [8]),
        ("hooked_index", [8]), ("two", [11]), ("three", [14]), ("horns", [8, 11]),
    ],
)  # fmt: skip
def test_the_thumb_closes_over_folded_fingers(
    library: GestureLibrary, joints_mm: Array, double_model: HandModel, name: str, held: list[int]
) -> None:
    """Its end touches their middle bones, on their far side from the palm."""
    assert gap_mm(double_model, library, name, (3, held)) < 3.5
    hand = joints_mm[library.names.index(name)]
    bones = [hand[[j, j + 1]].mean(axis=0) for j in (PIVOT_JOINTS[pivot] for pivot in held)]
    assert hand[[3, 4]].mean(axis=0)[2] < min(bone[2] for bone in bones), "the palm looks to -z"


def test_fists_are_closed_and_open_hands_open(library: GestureLibrary) -> None:
    bend = np.rad2deg(library.angles[:, 4:16, FLEXION]).reshape(-1, 4, 3).sum(axis=2)
    for name, kind, finger_bend in zip(library.names, library.kinds, bend, strict=True):
        if name in ("fist", "fist_thumb_beside", "thumbs_up", "fist_hitchhike"):
            assert finger_bend.min() > 210, name
        if name in ("five", "spread", "flat"):
            assert finger_bend.max() < 25, name
        if kind == "near_fist" and name.startswith("point_t"):
            assert (finger_bend[1:] > 200).all()


def between_deg(hand: Array, one: int, other: int) -> float:
    """Between two fingers, each from its knuckle to its tip."""
    a, b = (hand[finger + 3] - hand[finger] for finger in (one, other))
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.rad2deg(np.arccos(cosine)))


def test_scissors_are_as_wide_as_those_of_people(library: GestureLibrary, joints_mm: Array) -> None:
    """On photos of hands that count, a V has 34 degrees in the median and up to 49."""
    apart, lower = [], []
    bend = np.rad2deg(library.angles[:, 4:16, FLEXION]).reshape(-1, 4, 3)
    for hand, kind, name, fingers in zip(
        joints_mm, library.kinds, library.names, bend, strict=True
    ):
        if kind != "scissors":
            continue
        apart.append(between_deg(hand, 5, 9))
        assert fingers[:2, 1:].max() < 35, f"{name}: both fingers are straight beyond the knuckle"
        assert fingers[2:, 1].min() > 40, f"{name}: and the others are not"
        lower.append(fingers[1, 0] - fingers[0, 0])
    assert 10 <= len(apart) <= 20
    assert min(apart) > 29
    assert 55 < max(apart) < 70
    assert max(lower) > 25, "the middle finger may be the lower one"
    assert min(lower) < -15, "or the index"


def test_every_letter_of_the_tables_is_used() -> None:
    specs = authored()

    assert {letter for spec in specs for letter in spec.fingers} == set(FINGERS)
    assert {spec.thumb for spec in specs} == set(THUMBS)
    assert set("ohkc") <= {letter for spec in combined() for letter in spec.fingers}


@pytest.mark.parametrize(
    ("wanted", "possible"),
    [("ccoc", "ccrh"), ("oooo", "oooo"), ("cccc", "cccc"), ("ccco", "ccco"), ("ooco", "ooso")],
)
def test_tendons_couple_fingers(wanted: str, possible: str) -> None:
    assert coupled(wanted) == possible


def test_solving_closes_touches_and_parts_overlaps(double_model: HandModel) -> None:
    specs = [spec for spec in authored() if spec.name in ("fist", "ok", "five")]
    before, after = start_angles(specs), solve(double_model, specs, 120)

    assert build.overlaps_mm(double_model, before).max() > 4, "as written, fingers overlap"
    assert build.overlaps_mm(double_model, after).max() < build.OVERLAP_MM
    five = [spec.name for spec in specs].index("five")
    np.testing.assert_allclose(after[five], before[five], atol=0.03)
    np.testing.assert_array_equal(solve(double_model, specs, 3), solve(double_model, specs, 3))


def test_too_similar_or_impossible_rows_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = [Spec("one", "oooo", "out", kind="open"), Spec("other", "oooo", "out", kind="open")]
    monkeypatch.setattr(build, "authored", lambda: twins)
    monkeypatch.setattr(build, "combined", lambda: [Spec("c", "oooo", "out", kind="combined")])
    monkeypatch.setattr(build.contact, "solve", lambda _, specs: start_angles(specs))

    with pytest.raises(build.TrainingError, match=r"other \(overlap .* near: one\)"):
        build.build()
    del twins[1]
    assert build.build().names == ("one",), "a combination that is there already is dropped"


@pytest.mark.parametrize("place", ["", "T2", "X2p", "T3p", "T2x", "T2pp"])
def test_places_that_are_none_are_refused(place: str) -> None:
    with pytest.raises(InputError, match="expected a place"):
        parse_place(place)


def test_on_another_hand_fingers_are_parted(library: GestureLibrary, hand_model: HandModel) -> None:
    """A long palm, short and thick fingers, one beside the other: there fists run into the palm."""
    asset = hand_model.asset
    rest = hand_model.vertices.clone()
    for name, value in {"finger_distance": -1.4, "finger_diameter": 0.5, "hand_scale": 1.5}.items():
        rest += value * hand_model.directions[hand_model.shape_names.index(name)]
    other = HandModel(replace(asset, vertices_m=rest.numpy())).double()
    angles = library.angles[:200].astype(np.float64)
    before = build.overlaps_mm(other, angles)
    deep = before > 2.5
    assert 20 < deep.sum() < 180

    parted = part(other, angles, 2.5, steps=80)

    np.testing.assert_array_equal(parted[~deep], angles[~deep])
    assert build.overlaps_mm(other, parted)[deep].max() < 1.5
    assert np.rad2deg(np.abs(parted - angles)).max() < 25, "they are still what their names say"
    limits = angle_limits()
    rounded = 1e-3  # the library is kept with three digits
    assert (parted >= limits[..., 0] - rounded).all()
    assert (parted <= limits[..., 1] + rounded).all()


def test_saving_and_loading(library: GestureLibrary, tmp_path: Path) -> None:
    path = tmp_path / "gestures.npz"
    library.save(path)
    again = GestureLibrary.load(path)

    assert again.names == library.names
    assert again.kinds == library.kinds
    np.testing.assert_array_equal(again.angles, library.angles)
    assert path.read_bytes() == (build.LIBRARY_PATH).read_bytes()
    np.savez(path, hair=np.zeros(1))
    with pytest.raises(BundleError, match=r"gestures\.build"):
        GestureLibrary.load(path)
