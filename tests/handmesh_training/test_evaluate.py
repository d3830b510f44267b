"""Evaluation of estimators whose errors are known in advance."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planted import Planted, hand
from scipy.spatial import cKDTree

import handmesh
from handmesh import Box
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import FINGERS
from handmesh_training.estimators import BATCH
from handmesh_training.evaluate import evaluate
from handmesh_training.evaluation_report import SCHEMA, Report, to_dict, to_table
from handmesh_training.protocols import FREIHAND, IN_THE_WILD, PAPER, UNAIDED, Protocol

Array = NDArray[np.float64]
TURN = np.asarray(cv2.Rodrigues(np.array([0.3, -1.0, 0.4]))[0])
ALL = np.ones(21, dtype=bool)


def away(x: Array) -> Array:
    return x + [0.003, 0, 0.004]


def similar(x: Array) -> Array:
    return np.asarray(1.7 * x @ TURN.T + 0.3)


def names(report: Report) -> set[str]:
    return {figure.name for figure in report.figures}


def test_the_paper_s_protocol_gives_everything() -> None:
    samples = [hand(i) for i in range(4)]
    planted = Planted(samples, away, offset_share=0.1)

    report = evaluate(planted, samples, PAPER, "made")

    for sample, query in zip(samples, planted.asked, strict=True):
        assert sample.joints_m is not None
        assert query.box == Box.from_points(sample.joints_px, margin=1.5)
        assert query.handedness == ("right" if sample.is_right else "left")
        assert query.camera is not None
        assert (query.camera.fx, query.camera.width) == (300.0 + int(sample.key), 160)
        bone = np.sqrt(((sample.joints_m[10] - sample.joints_m[9]) ** 2).sum())
        assert query.bone_length_m == pytest.approx(bone)
        assert query.root_depth_m == pytest.approx(sample.joints_m[0, 2])
    assert report.hands == 4
    assert report.left_out == {}
    assert report["joints_mm"].value == pytest.approx(5.0)
    assert report["joints_mm"].alignment == "none"
    assert report["mesh_mm"].value == pytest.approx(5.0, abs=1e-4)
    assert report["joints_root_mm"].value == pytest.approx(0.0, abs=1e-9)
    assert report["joints_pa_mm"].value == pytest.approx(0.0, abs=1e-9)
    assert report["mesh_pa_mm"].value == pytest.approx(0.0, abs=1e-4)
    # All joints are 5 mm off: of the thresholds from 0 to 50 mm nine in ten lie above.
    assert report["auc_0_50"].value == pytest.approx(0.9, abs=0.01)
    assert report["auc_20_50"].value == 1
    assert report["auc_root_0_50"].value == pytest.approx(1.0, abs=0.01)
    assert report["image_share"].value == pytest.approx(0.1)
    assert report["image_share_median"].value == pytest.approx(0.1)
    assert report["presence"].value == pytest.approx(3 / 4)
    # What is given is not measured.
    assert names(report).isdisjoint({"handedness", "root_mm", "root_depth_share", "found"})


def test_in_the_wild_the_box_is_given_and_nothing_else() -> None:
    samples = [hand(i) for i in range(4)]
    planted = Planted(samples, away)

    report = evaluate(planted, samples, IN_THE_WILD, "made")

    for sample, query in zip(samples, planted.asked, strict=True):
        assert query.box == Box.from_points(sample.joints_px)
        assert query.handedness is query.camera is None
        assert query.bone_length_m is query.root_depth_m is None
    assert report["handedness"].value == 0.5
    assert report["root_mm"].value == pytest.approx(5.0)
    depths = [sample.joints_m[0, 2] for sample in samples if sample.joints_m is not None]
    assert report["root_depth_share"].value == pytest.approx(np.mean(0.004 / np.array(depths)))
    # In the frame of a camera that was guessed there is nothing to compare.
    assert names(report).isdisjoint({"joints_mm", "mesh_mm", "auc_0_50", "f5"})
    assert {"joints_root_mm", "joints_pa_mm", "mesh_pa_mm", "f5_pa"} <= names(report)


def test_freihand_s_protocol_gives_all_but_the_root() -> None:
    samples = [hand(2)]
    planted = Planted(samples, similar)

    report = evaluate(planted, samples, FREIHAND, "made")

    (query,) = planted.asked
    assert None not in (query.box, query.handedness, query.camera, query.bone_length_m)
    assert query.root_depth_m is None
    assert report["joints_pa_mm"].value == pytest.approx(0, abs=1e-9)
    assert report["mesh_pa_mm"].value == pytest.approx(0, abs=1e-4)
    assert report["f5_pa"].value == report["f15_pa"].value == 1
    assert report["f15"].value < 0.1, "nothing forgives a similarity without alignment"
    assert report["root_mm"].value > 100


def test_f_scores_are_those_of_another_implementation() -> None:
    samples = [hand(i) for i in range(3)]
    noise = np.random.default_rng(1).normal(0, 0.008, (40, 3))
    planted = Planted(samples, lambda x: x + noise[: len(x)])

    report = evaluate(planted, samples, PAPER, "made")

    for name, threshold in (("f5", 0.005), ("f15", 0.015)):
        expected = []
        for sample in samples:
            assert sample.vertices_m is not None
            a, b = sample.vertices_m + noise, sample.vertices_m
            p, r = (cKDTree(y).query(x)[0] < threshold for x, y in ((a, b), (b, a)))
            expected.append(2 * p.mean() * r.mean() / (p.mean() + r.mean()))
        assert report[name].value == pytest.approx(np.mean(expected), abs=1e-6)
        assert 0.05 < report[name].value < 0.95


def test_meshes_of_other_vertices_are_aligned_by_their_joints() -> None:
    """40 vertices against 80, or 40 others: no correspondence, hence no mesh error; F-scores there
    are."""
    samples = [hand(i) for i in range(2)]
    more = [
        replace(s, vertices_m=np.concatenate([s.vertices_m, s.vertices_m + np.float32(1e-4)]))
        for s in samples
        if s.vertices_m is not None
    ]
    others = [
        replace(s, vertices_m=s.vertices_m[::-1].copy(), our_mesh=False)
        for s in samples
        if s.vertices_m is not None
    ]

    for theirs in (more, others):
        report = evaluate(Planted(samples, similar), theirs, PAPER, "made")

        assert names(report).isdisjoint({"mesh_mm", "mesh_pa_mm", "f5_pa"})
        assert report["f5_pa_joints"].value == 1
        assert report["f5_pa_joints"].alignment == "procrustes_joints"


def test_networks_without_a_mesh_have_no_mesh_figures() -> None:
    samples = [hand(i) for i in range(2)]

    report = evaluate(Planted(samples, vertices_m=np.empty((0, 3))), samples, PAPER, "made")

    assert not any(name.startswith(("mesh", "f5", "f15")) for name in names(report))
    assert all(np.isfinite(figure.value) for figure in report.figures)


def test_the_median_thickness_of_each_finger_is_stated() -> None:
    topology = Topology.default()
    samples = [replace(hand(i), our_mesh=False) for i in range(3)]
    rest = np.float64(topology.template_vertices_m)
    joints = topology.joint_regressor @ rest
    sliver = rest.copy()
    sliver[np.isin(topology.parts, (6, 7))] = joints[6]
    report = evaluate(
        Planted(samples, vertices_m=sliver, joints_m=joints), samples, IN_THE_WILD, "slivers"
    )
    shares = {finger: report[f"girth_{finger}"] for finger in FINGERS}
    assert {finger: figure.count for finger, figure in shares.items()} == dict.fromkeys(FINGERS, 3)
    for finger, figure in shares.items():
        assert figure.value == pytest.approx(0.0 if finger == "index" else 1.0, abs=1e-5)
    # Where the labelled hand has our mesh, its own fingers are what they are compared with.
    thick = joints[9] + 1.5 * (rest - joints[9])
    thick_hands = [
        replace(
            sample,
            joints_m=joints + (0, 0, 1),
            vertices_m=np.float32(thick + (0, 0, 1)),
            our_mesh=True,
        )
        for sample in samples
    ]
    same = evaluate(Planted(thick_hands), thick_hands, PAPER, "thick")
    assert [same[f"girth_{finger}"].value for finger in FINGERS] == [pytest.approx(1.0)] * 5
    # A mesh of another topology has no fingers that we know.
    assert "girth_index" not in evaluate(Planted(samples), samples, PAPER, "clouds")


def test_figures_count_the_hands_that_they_are_of() -> None:
    few = np.isin(np.arange(21), [0, 1, 2, 5, 6, 9, 10])  # 7: too few for Procrustes
    many = np.arange(21) >= 8  # 13, without the wrist
    ten = np.arange(21) < 10  # enough, but the unit bone is not known
    samples = [hand(0), hand(1, few), hand(2, many), hand(3, ten)]
    flat = replace(hand(4), joints_m=None, vertices_m=None, intrinsics=None, is_right=None)
    planted = Planted([*samples, flat], away)

    wild = evaluate(planted, [*samples, flat], IN_THE_WILD, "made")

    assert wild.hands == 5
    assert wild["image_px"].count == 5
    assert wild["handedness"].count == 4
    assert wild["joints_pa_mm"].count == 3
    assert wild["joints_root_mm"].count == 3
    assert wild["joints_pa_mm"].value == pytest.approx(0, abs=1e-9)
    # Where the protocol gives what the labels lack, a hand does not count in 3D.
    given = evaluate(planted, [*samples, flat], PAPER, "made")
    assert given.hands == 4
    assert given.left_out == {"right or left not known": 1}
    assert given["image_px"].count == 4
    assert given["joints_mm"].count == 2
    assert given["joints_mm"].value == pytest.approx(5.0)
    assert given["joints_pa_mm"].count == 1


def test_pck_is_over_known_joints() -> None:
    known = np.arange(21) < 11
    samples = [hand(0, known), hand(1)]

    def odd_ones_off(x: Array) -> Array:
        moved = x.copy()
        moved[1::2, 0] += 0.03
        return moved

    report = evaluate(Planted(samples, odd_ones_off), samples, PAPER, "made")
    curve = next(curve for curve in report.curves if curve.alignment == "none")
    # Odd joints are 30 mm off: 5 of 11 and 10 of 21.
    assert curve.share[curve.thresholds_mm == 29] == pytest.approx(1 - 15 / 32)
    assert curve.share[-1] == 1
    assert curve.auc_20_50 == pytest.approx(1 - 15 / 32 / 3, abs=0.01)


def test_hands_that_cannot_be_placed_are_left_out_and_counted() -> None:
    tip = np.isin(np.arange(21), [7, 8])
    none = ALL & False
    one = np.arange(21) == 3
    beside = hand(5)
    beside = replace(beside, joints_px=beside.joints_px + [500, 0])
    tiny = hand(6)
    tiny = replace(tiny, joints_px=60 + (tiny.joints_px - tiny.joints_px.mean(axis=0)) * 0.03)
    samples = [hand(0), hand(1, tip), hand(2, none), hand(3, one), beside, tiny]

    report = evaluate(Planted(samples), samples, IN_THE_WILD, "made")

    assert report.hands == 1
    assert report.left_out == {
        "too few joints known to tell where the hand is": 3,
        "middle of the box outside the picture": 1,
        "box too small or too large": 1,
    }
    with pytest.raises(InputError, match=r"no labelled hand .*3 too few joints"):
        evaluate(Planted(samples), samples[1:], IN_THE_WILD, "made")
    missed = evaluate(Planted(samples, missed=[0]), samples[:1], UNAIDED, "made")
    assert (missed.hands, missed["found"].value) == (0, 0)
    with pytest.raises(InputError, match="it is empty"):
        evaluate(Planted([]), [], PAPER, "made")


def test_hands_that_are_not_found_are_told() -> None:
    samples = [hand(i) for i in range(5)]
    far = Planted(samples, offset_share=0.4, missed=[1, 3])
    near = Planted(samples, offset_share=0.3, missed=[1])

    assert evaluate(far, samples, UNAIDED, "made")["found"].value == 0
    report = evaluate(near, samples, UNAIDED, "made")
    assert near.asked[0].box is None
    assert report.left_out == {"no hand found": 1}
    assert (report["found"].value, report["found"].count) == (4 / 5, 5)
    assert report.hands == report["image_px"].count == 4


def test_a_teacher_s_joints_lie_in_no_camera_s_frame() -> None:
    sample = replace(hand(0), intrinsics=None, vertices_m=None)
    report = evaluate(Planted([sample], similar), [sample], IN_THE_WILD, "photos")
    assert report["joints_pa_mm"].value == pytest.approx(0, abs=1e-9)
    assert names(report).isdisjoint({"root_mm", "root_depth_share", "joints_mm"})


def test_errors_in_pixels_by_the_size_of_the_hand() -> None:
    samples = [hand(i) for i in range(2)]
    small = samples[0]
    middle = small.joints_px.mean(axis=0)
    side = float(np.ptp(small.joints_px, axis=0).max())
    small = replace(small, joints_px=middle + (small.joints_px - middle) * 40 / side)
    large = samples[1]
    large = replace(large, joints_px=80 + (large.joints_px - middle) * 4)
    planted = Planted([small, large], offset_share=0.1)

    report = evaluate(planted, [small, large], IN_THE_WILD, "made")

    assert report["image_px_box_0_48"].value == pytest.approx(4.0)
    big = [n for n in names(report) if n.startswith("image_px_box") and n != "image_px_box_0_48"]
    assert len(big) == 1
    expected = 0.1 * np.ptp(large.joints_px, axis=0).max()
    assert report[big[0]].value == pytest.approx(expected)
    assert report[big[0]].count == 1


def test_estimators_are_asked_in_batches() -> None:
    samples = [hand(i) for i in range(BATCH + 3)]
    planted = Planted(samples)
    assert evaluate(planted, iter(samples), PAPER, "made").hands == BATCH + 3
    assert planted.batches == [BATCH, 3]


def test_the_report_in_words_and_in_json() -> None:
    samples = [hand(i) for i in range(3)]
    planted = Planted(samples, away, missed=[2])
    reports = [evaluate(planted, samples, protocol, "made") for protocol in (PAPER, UNAIDED)]

    table = to_table(reports)
    assert "made (2 hands)" in table
    assert "given: box, handedness, camera, scale, root" in table
    assert "protocol unaided; given: nothing" in table
    assert "left out: 1, no hand found" in table
    assert re.search(r"^  joints_mm +5\.00 mm$", table, re.MULTILINE)
    assert re.search(r"^  found +66\.67 % +of 3 hands$", table, re.MULTILINE)
    assert table.count("found  ") == 1, "in a given box there is nothing to find"
    assert "aligned: procrustes" in table
    assert "nan" not in table

    read = json.loads(json.dumps(to_dict(planted.description, reports), allow_nan=False))
    assert (read["schema"], read["handmesh"]) == (SCHEMA, handmesh.__version__)
    assert read["estimator"] == planted.description
    first, second = read["reports"]
    assert (first["set"], first["hands"], first["left_out"]) == ("made", 2, {"no hand found": 1})
    assert first["protocol"] == {
        "name": "paper", "box": True, "handedness": True, "camera": True, "scale": True,
        "root": True,
    }  # fmt: skip
    assert second["protocol"]["name"] == "unaided"
    by_name = {figure["name"]: figure for figure in first["figures"]}
    assert by_name["joints_mm"] == {
        "name": "joints_mm", "value": pytest.approx(5.0), "unit": "mm", "count": 2,
        "alignment": "none", "given": ["box", "handedness", "camera", "scale", "root"],
    }  # fmt: skip
    assert by_name["presence"]["alignment"] is None
    curves = {curve["alignment"]: curve for curve in first["pck"]}
    assert set(curves) == {"none", "root"}
    assert len(curves["none"]["share"]) == len(curves["none"]["thresholds_mm"]) == 101
    assert by_name["auc_20_50"]["value"] == curves["none"]["auc_20_50"]


def test_other_protocols_have_no_name() -> None:
    samples = [hand(0)]
    protocol = Protocol(box=True, handedness=True, camera=True, scale=False, root=True)
    planted = Planted(samples)
    report = evaluate(planted, samples, protocol, "made")
    assert report.protocol_name == "other"
    assert planted.asked[0].bone_length_m is None
    assert "joints_mm" in report
    assert "root_mm" not in report


def test_figures_by_group_are_of_the_group_s_hands_alone() -> None:
    samples = [replace(hand(i), groups={"skin": "light" if i else "dark"}) for i in range(4)]
    samples[3] = replace(samples[3], intrinsics=None, joints_m=None, vertices_m=None)
    far = {0: 30.0, 1: 4.0, 2: 6.0}  # mm
    planted = Planted(samples)
    shifts = iter([[mm / 1000, 0, 0] for mm in far.values()])
    planted.move = lambda joints: joints + next(shifts) if len(joints) == 21 else joints

    report = evaluate(planted, samples, PAPER, "made")

    skin = {group.name: group for group in report.groups if group.kind == "skin"}
    assert (skin["light"].hands, skin["dark"].hands) == (3, 1)
    assert skin["light"].figures["joints_mm"] == pytest.approx(5.0), "the third has no 3D label"
    assert skin["dark"].figures["joints_mm"] == pytest.approx(30.0)
    assert sum(group.hands for group in report.groups if group.kind == "view") == 3
    assert "| skin | light | 3 |" in to_table([report], groups=True)
    assert "skin" not in to_table([report])
    read = to_dict(planted.description, [report])["reports"][0]["groups"]
    assert {"kind", "name", "asked", "hands", "figures"} == set(read[0])


def test_a_group_whose_hands_are_not_found_does_not_look_good() -> None:
    samples = [replace(hand(i), groups={"skin": "light" if i else "dark"}) for i in range(4)]

    unaided = evaluate(Planted(samples, missed=[0, 2]), samples, UNAIDED, "made")
    skin = {group.name: group for group in unaided.groups if group.kind == "skin"}
    assert (skin["dark"].asked, skin["dark"].hands) == (1, 0)
    assert skin["dark"].figures == {"found": 0.0}
    assert (skin["light"].asked, skin["light"].hands) == (3, 2)
    assert skin["light"].figures["found"] == pytest.approx(2 / 3)
    assert sum(group.asked for group in unaided.groups if group.kind == "view") == 4
    assert "| skin | light | 3 | 2 | 66.7 |" in to_table([unaided], groups=True)
    read = to_dict({}, [unaided])["reports"][0]["groups"]
    assert {(g["asked"], g["hands"]) for g in read if g["kind"] == "skin"} == {(1, 0), (3, 2)}

    in_boxes = evaluate(Planted(samples, missed=[0]), samples, PAPER, "made")
    (dark,) = (group for group in in_boxes.groups if group.name == "dark")
    assert (dark.asked, dark.hands, dark.figures) == (1, 0, {}), "found is no figure of boxes"
