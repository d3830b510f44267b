"""The authored gestures, as a table: fingers by letters, thumb by name, and what touches what.

Each of the four letters stands for a finger, index to little, and names a flexion of its three
joints (`FINGERS`). A touch such as ``T2p=I1d`` brings two places of the skin together: finger
(T, I, M, R, L), bone (0 nearest the palm), side (p palm, d back, r thumb's, u little finger's).
The angles are starting points: `contact.solve` closes the touches and parts what overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass

# MCP, PIP, DIP flexion in degrees.
FINGERS: dict[str, tuple[float, float, float]] = {
    "o": (0, 3, 2),  # open
    "x": (-16, 0, 0),  # bent back
    "r": (28, 34, 20),  # relaxed
    "e": (14, 18, 10),  # easy: nearly open
    "h": (48, 55, 34),  # half closed
    "k": (4, 96, 58),  # hook
    "w": (30, 92, 55),  # claw
    "b": (0, 62, 38),  # crooked
    "c": (86, 102, 68),  # closed
    "s": (66, 88, 52),  # softly closed
    "f": (80, 100, 8),  # closed with a straight end joint
    "t": (82, 6, 4),  # table top
    "l": (26, 6, 4),  # lowered, straight
    "d": (50, 8, 5),  # tilted forward, straight
    "g": (36, 26, 14),  # cupped
    "p": (52, 50, 26),  # meeting the thumb, bent
    "q": (64, 22, 8),  # meeting the thumb, long
    "n": (38, 74, 46),  # meeting the thumb, round
}

# CMC twist, abduction (positive towards the back), flexion; MCP flexion; IP flexion, degrees.
THUMBS: dict[str, tuple[float, float, float, float, float]] = {
    "natural": (0, 8, 0, 8, 10),
    "out": (0, 14, -22, 0, -4),
    "up": (-4, 24, -14, -6, -14),
    "side": (0, 28, 20, 6, 6),
    "forward": (8, -24, 0, 8, 6),
    "oppose": (14, -22, 22, 18, 16),
    "across": (10, 6, 36, 38, 34),
    "over": (12, -10, 32, 36, 40),
    "tuck": (10, 8, 38, 40, 26),
    "hook": (0, 4, 4, 34, 62),
    "front": (4, -28, 14, 24, 66),
    "post": (-4, -34, 4, 22, 66),
}

# Degrees added to each finger's abduction at full spread; positive towards the thumb.
FAN_DEG = (15.0, 3.0, -9.0, -18.0)
TOGETHER_DEG = (-11.0, -1.0, 9.0, 17.0)


@dataclass(frozen=True)
class Spec:
    """One gesture before its touches are solved.

    Attributes:
        name: unique, words joined by underscores.
        fingers: four letters of `FINGERS`, index to little.
        thumb: a name in `THUMBS`.
        touches: places brought together, ``T2p=I1d``.
        spread: -1 fingers together, 0 as they fall, 1 spread.
        lean: degrees added to the abduction of each finger.
        kind: fist, near_fist (one finger or the thumb different), thumb_before (either, with the
            thumb bent before the fingers), count, scissors, pinch, grip, flat, open, sign, or
            combined.
    """

    name: str
    fingers: str
    thumb: str
    touches: tuple[str, ...] = ()
    spread: float = 0.0
    lean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    kind: str = "sign"


def _spec(kind: str, name: str, fingers: str, thumb: str, touches: str = "", spread: float = 0.0,
          lean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)) -> Spec:  # fmt: skip
    return Spec(name, fingers, thumb, tuple(touches.split()), spread, lean, kind)


def _fists() -> list[Spec]:
    rows = [
        ("fist", "cccc", "over", "T2p=M1d T1p=I1d"),
        ("fist_thumb_on_index", "cccc", "over", "T2p=I1d"),
        ("fist_thumb_low", "cccc", "over", "T2p=M2d"),
        ("fist_thumb_to_ring", "cccc", "over", "T2p=R1d T1p=I1d"),
        ("fist_thumb_beside", "cccc", "side", "T2p=I1r"),
        ("fist_thumb_beside_high", "cccc", "side", "T2p=I0r"),
        ("fist_thumb_tucked", "ssss", "tuck", "T2d=M2p"),
        ("fist_thumb_tucked_deep", "hhss", "tuck", "T2d=R2p"),
        ("fist_soft", "ssss", "over", "T2p=I1d"),
        ("fist_soft_beside", "ssss", "side", "T2p=I1r"),
        ("fist_loose", "hsss", "over", "T2p=I2r"),
        ("fist_hollow", "hhhh", "oppose", "T2p=I2r"),
        ("fist_flat", "ffff", "over", "T2p=I1d"),
        ("fist_flat_beside", "ffff", "side", "T2p=I1r"),
        ("fist_hitchhike", "cccc", "out", ""),
        ("fist_knock", "scss", "over", "T2p=M1d"),
        ("fist_index_raised", "scss", "over", "T2p=M1d T2r=I2p"),
        ("fist_graded", "sscc", "over", "T2p=I1d"),
        ("fist_graded_reverse", "ccss", "over", "T2p=M1d"),
        ("fist_thumb_across_fingertips", "kkkk", "across", "T2p=M2d"),
        ("fist_thumb_relaxed", "cccc", "natural", ""),
        ("fist_soft_thumb_relaxed", "ssss", "natural", ""),
    ]
    return [_spec("fist", *row) for row in rows]


def _near_fists() -> list[Spec]:
    rows: list[tuple[str, str, str, str]] = [
        ("thumbs_up", "cccc", "up", ""),
        ("thumbs_up_soft", "ssss", "up", ""),
        ("thumb_out_soft", "ssss", "out", ""),
        ("thumb_forward_fist", "cccc", "forward", ""),
        ("point", "occc", "over", "T2p=M1d"),
        ("point_thumb_on_ring", "occc", "over", "T2p=R1d T1p=M1d"),
        ("point_thumb_beside", "occc", "side", "T2p=M1r"),
        ("point_thumb_along", "occc", "side", "T2p=I0r"),
        ("point_soft", "esss", "over", "T2p=M1d"),
        ("point_relaxed", "erss", "natural", ""),
        ("point_bent_back", "xccc", "over", "T2p=M1d"),
        ("point_forward", "dccc", "over", "T2p=M1d"),
        ("point_table", "tccc", "over", "T2p=M1d"),
        ("hooked_index", "kccc", "over", "T2p=M1d"),
        ("hooked_index_soft", "bccc", "over", "T2p=M1d"),
        ("hooked_index_half", "bsss", "over", "T2p=M2d"),
        ("hooked_index_low", "wccc", "over", "T2p=M1d"),
        ("hooked_index_beside", "kccc", "side", "T2p=M1r"),
        ("hooked_index_thumb_out", "kccc", "out", ""),
        ("hooked_index_thumb_up", "bccc", "up", ""),
        ("trigger", "wccc", "side", ""),
        ("half_index", "hccc", "over", "T2p=M1d"),
        ("gun", "occc", "up", ""),
        ("gun_soft", "esss", "out", ""),
        ("letter_l", "occc", "out", ""),
        ("middle_finger", "coss", "over", "T2p=R1d"),
        ("middle_finger_thumb_beside", "socs", "side", "T2p=I1r"),
        ("hooked_middle", "cbcc", "over", "T2p=I1d"),
        ("ring_finger", "cceh", "over", "T2p=M1d"),
        ("little_finger", "ccco", "over", "T2p=M1d T1p=I1d"),
        ("little_finger_beside", "ccco", "side", "T2p=I1r"),
        ("little_finger_soft", "ssse", "over", "T2p=M1d"),
        ("hooked_little", "cccb", "over", "T2p=M1d"),
        ("half_little", "ccch", "over", "T2p=M1d"),
        ("shaka", "ccco", "out", ""),
        ("shaka_up", "ccco", "up", ""),
        ("shaka_soft", "sssb", "out", ""),
    ]
    return [_spec("near_fist", *row) for row in rows]


def _thumbs_before() -> list[Spec]:
    # The thumb bent before the fingers, its tip up: how a closed hand is held up to a camera.
    rows: list[tuple[str, str, str, str]] = [
        ("fist_thumb_before", "cccc", "front", "T2p=M1d"),
        ("fist_thumb_before_apart", "cccc", "post", ""),
        ("fist_soft_thumb_before", "ssss", "front", "T2p=M1d"),
        ("fist_flat_thumb_before", "ffff", "post", "T2p=M1d"),
        ("point_thumb_before", "occc", "front", "T2p=M1d"),
        ("point_soft_thumb_before", "esss", "post", "T2p=M1d"),
        ("hooked_index_thumb_before", "kccc", "front", "T2p=M1d"),
        ("hooked_index_soft_thumb_before", "bccc", "post", "T2p=M1d"),
        ("half_index_thumb_before", "hccc", "post", "T2p=M1d"),
        ("little_finger_thumb_before", "ccco", "front", "T2p=I1d"),
        ("point_thumb_before_low", "occc", "post", "T2p=M1d"),
        ("point_thumb_before_apart", "occc", "post", ""),
        ("point_flat_thumb_before", "efff", "front", "T2p=M1d"),
        ("hooked_index_thumb_before_low", "kccc", "post", "T2p=M1d"),
        ("hooked_index_thumb_before_apart", "bccc", "front", ""),
        ("claw_index_thumb_before", "wccc", "post", "T2p=M1d"),
    ]
    return [_spec("thumb_before", *row) for row in rows]


def _counts() -> list[Spec]:
    rows = [
        ("two", "oocc", "over", "T2p=R1d", 0.6),
        ("two_together", "oocc", "over", "T2p=R1d", -1.0),
        ("two_wide", "oocc", "over", "T2p=R1d", 1.2),
        ("two_thumb_to_little", "oocc", "over", "T2p=L1d T1p=R1d", 0.4),
        ("two_soft", "eess", "over", "T2p=R1d", 0.3),
        ("two_bent", "bbcc", "over", "T2p=R1d", 0.4),
        ("two_hooked", "kkcc", "over", "T2p=R1d", 0.2),
        ("two_thumb_beside", "oocc", "side", "T2p=I0r", 0.2),
        ("two_thumb_and_index", "ocss", "out", "", 0.0),
        ("two_thumb_and_index_up", "occc", "out", "", 0.8),
        ("three", "oooc", "oppose", "T2p=L1d", 0.5),
        ("three_together", "oooc", "oppose", "T2p=L1d", -1.0),
        ("three_soft", "eees", "oppose", "T2p=L1d", 0.2),
        ("three_thumb", "oocc", "out", "", 0.8),
        ("three_thumb_up", "oocc", "up", "", -0.5),
        ("three_thumb_soft", "eess", "natural", "", 0.5),
        ("three_middle_ring_little", "hooo", "oppose", "T2p=I2p", 0.5),
        ("four", "oooo", "across", "", 0.8),
        ("four_together", "oooo", "across", "", -1.0),
        ("four_thumb_low", "oooo", "tuck", "", 0.3),
        ("four_soft", "eeee", "across", "", 0.4),
        ("four_thumb_out", "oooc", "out", "", 0.8),
        ("five", "oooo", "out", "", 1.0),
        ("five_together", "oooo", "side", "", -1.0),
        ("zero", "nnnn", "oppose", "T2p=I2p T2p=M2p", -0.5),
        ("zero_round", "nnhh", "oppose", "T2p=I2p", 0.0),
        ("seven_asl", "oohe", "oppose", "T2p=R2p", 0.4),
        ("eight_asl", "oheo", "oppose", "T2p=M2p", 0.4),
        ("six_thumb_little", "ccco", "up", "", 1.0),
        ("seven_chinese", "qqcc", "oppose", "T2p=I2p T2p=M2p", -1.0),
        ("eight_chinese", "eccc", "out", "", 0.0),
    ]
    specs = [_spec("count", *row) for row in rows]
    crossed = (-22.0, 14.0, 0.0, 0.0)
    for name, fingers in (("crossed_fingers", "oecc"), ("crossed_fingers_soft", "ebss")):
        specs.append(_spec("count", name, fingers, "over", "T2p=R1d", 0.0, crossed))
    return specs


def _scissors() -> list[Spec]:
    """Index and middle finger as far apart as people have them on photos, where 30 to 50 degrees
    are common; in four, one of them is lowered."""
    rows = [
        ("scissors", "oocc", "over", "T2p=R1d", (14, -6)),
        ("scissors_wide", "oocc", "over", "T2p=R1d", (22, -12)),
        ("scissors_widest", "oocc", "over", "T2p=R1d", (28, -18)),
        ("scissors_lowered", "olcc", "over", "T2p=R1d", (12, -6)),
        ("scissors_lowered_wide", "xlcc", "over", "T2p=R1d", (20, -12)),
        ("scissors_lowered_far", "odcc", "over", "T2p=R1d", (14, -8)),
        ("scissors_lowered_index", "locc", "over", "T2p=R1d", (16, -8)),
        ("scissors_soft", "eess", "over", "T2p=R1d", (18, -10)),
        ("scissors_thumb_beside", "oocc", "side", "T2p=I0r", (20, -10)),
        ("scissors_thumb_out", "oocc", "out", "", (18, -10)),
        ("scissors_half", "oohh", "natural", "", (18, -10)),
    ]
    return [
        _spec("scissors", name, fingers, thumb, touches, 0.0, (index, middle, 0.0, 0.0))
        for name, fingers, thumb, touches, (index, middle) in rows
    ]


# Fingers straight or nearly so, and side by side.
_FLAT = ("flat", "flat_thumb_out", "flat_thumb_forward", "easy_together", "karate")


def _opens() -> list[Spec]:
    rows = [
        ("flat", "oooo", "natural", -0.6),
        ("flat_thumb_out", "oooo", "out", -1.0),
        ("flat_thumb_forward", "oooo", "forward", -0.8),
        ("spread", "oooo", "out", 1.3),
        ("spread_thumb_forward", "oooo", "forward", 1.1),
        ("spread_natural", "oooo", "natural", 0.7),
        ("stretched", "xxxx", "up", 1.2),
        ("bent_back", "xxxx", "natural", -0.3),
        ("easy", "eeee", "natural", 0.2),
        ("easy_together", "eeee", "side", -0.8),
        ("easy_spread", "eeee", "out", 0.9),
        ("relaxed", "rrrr", "natural", 0.0),
        ("relaxed_graded", "errh", "natural", 0.0),
        ("relaxed_deep", "rrhh", "natural", 0.0),
        ("relaxed_hanging", "rhhh", "side", -0.3),
        ("relaxed_index_out", "ohhh", "natural", 0.0),
        ("relaxed_little_out", "rrre", "natural", 0.2),
        ("relaxed_thumb_forward", "rrrr", "forward", 0.0),
        ("cupped", "gggg", "side", -1.0),
        ("cupped_open", "gggg", "forward", -0.2),
        ("scoop", "dggg", "side", -0.8),
        ("table_top", "tttt", "natural", -0.6),
        ("table_top_thumb_under", "tttt", "forward", -0.6),
        ("tilted", "dddd", "natural", -0.6),
        ("tilted_thumb_out", "dddd", "out", -0.6),
        ("claw", "wwww", "hook", 0.3),
        ("claw_wide", "bbbb", "hook", 1.2),
        ("claw_thumb_forward", "wwww", "forward", 0.3),
        ("half", "hhhh", "natural", 0.0),
        ("half_thumb_out", "hhhh", "out", 0.0),
        ("half_spread", "hhhh", "forward", 1.0),
        ("hooks", "kkkk", "side", -0.6),
        ("hooks_thumb_out", "kkkk", "out", 0.0),
        ("hooks_thumb_forward", "kkkk", "forward", 0.0),
        ("piano", "grgr", "natural", 0.5),
        ("typing", "errr", "natural", 0.4),
        ("mouse", "eegg", "natural", 0.3),
        ("mouse_click", "gegg", "natural", 0.3),
        ("wave_roll", "oegh", "out", 0.3),
        ("wave_roll_reverse", "hgeo", "out", 0.3),
        ("karate", "oooo", "hook", -1.0),
    ]
    specs = [
        _spec("flat" if name in _FLAT else "open", name, f, thumb, "", spread)
        for name, f, thumb, spread in rows
    ]
    vulcan = (3.0, 16.0, -8.0, 4.0)
    specs.append(_spec("open", "vulcan", "oooo", "out", "", 0.0, vulcan))
    specs.append(_spec("open", "vulcan_soft", "eeee", "natural", "", 0.0, vulcan))
    return specs


def _pinches() -> list[Spec]:
    specs = []
    names = ("index", "middle", "ring", "little")
    letters = "IMRL"
    others = {"open": "o", "easy": "e", "relaxed": "r", "closed": "c", "soft": "s", "half": "h"}
    for finger, name in enumerate(names):
        for style, letter in others.items():
            if (name, style) == ("index", "open"):
                continue  # that is ok
            fingers = letter * finger + "p" + letter * (3 - finger)
            touch = f"T2p={letters[finger]}2p"
            spread = 0.6 if letter in "oe" else 0.0
            specs.append(_spec("pinch", f"pinch_{name}_{style}", fingers, "oppose", touch, spread))
    rows = [
        ("ok", "hooo", "oppose", "T2p=I2p", 0.7),
        ("ok_together", "poee", "oppose", "T2p=I2p", -0.6),
        ("ok_fanned", "nerr", "oppose", "T2p=I2p", 0.8),
        ("ok_tip_to_tip", "nooe", "oppose", "T2p=I2p", 0.3),
        ("pinch_long", "qhhh", "oppose", "T2p=I2p", 0.0),
        ("pinch_long_open", "qoee", "oppose", "T2p=I2p", 0.3),
        ("pinch_long_closed", "qccc", "oppose", "T2p=I2p", 0.0),
        ("pinch_round_closed", "nccc", "oppose", "T2p=I2p", 0.0),
        ("pinch_side", "wccc", "side", "T2p=I1r", 0.0),
        ("pinch_side_soft", "nsss", "side", "T2p=I2r", 0.0),
        ("key", "sccc", "side", "T2p=I1r", 0.0),
        ("key_far", "wsss", "side", "T2p=I2r", 0.0),
        ("chuck", "pprr", "oppose", "T2p=I2p T2p=M2p", -0.6),
        ("chuck_closed", "ppcc", "oppose", "T2p=I2p T2p=M2p", -0.6),
        ("chuck_long", "qqhh", "oppose", "T2p=I2p T2p=M2p", -0.8),
        ("all_tips", "pppp", "oppose", "T2p=I2p T2p=M2p T2p=R2p", -0.8),
        ("all_tips_long", "qqqq", "oppose", "T2p=M2p", -1.0),
        ("beak", "qqqq", "oppose", "T2p=I2p T2p=M2p", -1.0),
        ("beak_open", "dddd", "forward", "", -1.0),
        ("pinch_wide", "pccc", "forward", "", 0.0),
        ("pinch_wide_open", "greo", "forward", "", 0.3),
        ("pinch_nearly", "prrr", "oppose", "", 0.0),
        ("pinch_nearly_closed", "pccc", "oppose", "", 0.0),
        ("pinch_two_fingers", "eppe", "oppose", "T2p=M2p T2p=R2p", 0.2),
        ("horns_pinch", "oppo", "oppose", "T2p=M2p T2p=R2p", 0.2),
        ("snap_ready", "rpss", "oppose", "T2p=M2p", -0.3),
        ("snap_done", "rcss", "side", "", 0.0),
        ("flick_index", "nrrr", "oppose", "T2p=I2d", 0.0),
        ("flick_middle", "ener", "oppose", "T2p=M2d", 0.0),
        ("money", "qsss", "oppose", "T2p=I1p", 0.0),
        ("heart_finger", "pccc", "side", "T2r=I2p", 0.0),
        ("pinch_little_tight", "eehn", "oppose", "T2p=L2p", 0.0),
        ("pinch_ring_tight", "eene", "oppose", "T2p=R2p", 0.0),
        ("thumb_to_little_base", "oooe", "across", "T2p=L0p", 0.3),
        ("thumb_to_ring_base", "ooeo", "across", "T2p=R0p", 0.3),
        ("thumb_to_index_middle_joint", "gooo", "oppose", "T2p=I1p", 0.3),
        ("thumb_to_middle_middle_joint", "egee", "oppose", "T2p=M1p", 0.3),
    ]
    return specs + [_spec("pinch", *row) for row in rows]


def _grips() -> list[Spec]:
    rows = [
        ("grip_power_thin", "ssss", "over", "T2p=M2d", -0.3),
        ("grip_power", "hhhh", "oppose", "T2p=M2r", -0.3),
        ("grip_cylinder_small", "nnnn", "oppose", "", -0.3),
        ("grip_cylinder", "hhhh", "oppose", "", -0.2),
        ("grip_cylinder_wide", "gghh", "forward", "", 0.0),
        ("grip_mug", "hhhh", "side", "T2p=I1r", -0.2),
        ("grip_sphere_small", "nnnh", "oppose", "", 0.5),
        ("grip_sphere", "rrrr", "forward", "", 1.0),
        ("grip_sphere_wide", "gggg", "forward", "", 1.3),
        ("grip_disc", "bbbb", "forward", "", 1.1),
        ("grip_pen", "pphc", "oppose", "T2p=I2p T2u=M2r", -0.4),
        ("grip_pen_loose", "grhs", "oppose", "T2p=I2r", -0.3),
        ("grip_pen_fist", "ssss", "forward", "", -0.3),
        ("grip_chopsticks", "gphs", "oppose", "T2p=I1p", 0.0),
        ("grip_scissors", "ghss", "oppose", "", 0.2),
        ("grip_knife", "dsss", "side", "T2p=M1r", 0.0),
        ("grip_racket", "hsss", "over", "T2p=M1d", 0.2),
        ("grip_card", "whhh", "side", "T2p=I2r", 0.0),
        ("grip_paper", "tttt", "oppose", "T2p=I1p", -0.8),
        ("grip_plate", "dddd", "oppose", "T2p=I2p", -0.6),
        ("grip_book", "eeee", "forward", "", 0.2),
        ("grip_phone_thumb", "rrrr", "across", "", -0.2),
        ("grip_bag", "kkkk", "natural", "", -0.5),
        ("grip_bag_tight", "wwww", "side", "", -0.6),
        ("grip_cigarette", "eerr", "natural", "I1u=M1r", -0.4),
        ("grip_cigarette_straight", "oorh", "natural", "I2u=M2r", -0.4),
        ("grip_spray", "bsss", "forward", "", 0.0),
        ("grip_joystick", "hsss", "up", "", 0.0),
        ("grip_remote", "rhhs", "side", "", -0.3),
        ("grip_ball_two_fingers", "gghs", "forward", "", 0.5),
    ]
    return [_spec("grip", *row) for row in rows]


def _signs() -> list[Spec]:
    rows = [
        ("asl_b", "oooo", "across", "T2p=R0p", -1.0),
        ("asl_c", "bgrr", "forward", "", -0.6),
        ("asl_c_tight", "nnnn", "forward", "", -0.8),
        ("asl_d", "onnn", "oppose", "T2p=M2p", 0.0),
        ("asl_d_round", "ohhh", "oppose", "T2p=M2p T2p=R2p", 0.0),
        ("asl_e", "wwww", "tuck", "T2r=M2d", -0.8),
        ("asl_e_open", "kkkk", "across", "", -0.8),
        ("asl_f", "qooo", "oppose", "T2p=I2p", 0.8),
        ("asl_g", "tccc", "forward", "", 0.0),
        ("asl_h", "ttcc", "over", "T2p=R1d", -1.0),
        ("asl_k", "oecc", "oppose", "T2p=M1r", 0.3),
        ("asl_m", "tttc", "tuck", "T2p=R2u", -0.8),
        ("asl_m_closed", "sssc", "tuck", "", -0.6),
        ("asl_n", "ttcc", "tuck", "T2p=M2u", -0.8),
        ("asl_o", "pppp", "oppose", "T2p=I2p T2p=M2p", -0.8),
        ("asl_p", "odcc", "oppose", "T2p=M1r", 0.0),
        ("asl_q", "gccc", "forward", "", 0.0),
        ("asl_r", "oecc", "over", "T2p=R1d", -0.3),
        ("asl_t", "scss", "across", "T1r=I1p", 0.0),
        ("asl_w", "oooc", "oppose", "T2p=L1d", 0.9),
        ("asl_x", "bccc", "over", "T2p=M2d", 0.0),
        ("asl_y", "ccco", "out", "", 1.0),
        ("asl_i_love_you", "occo", "out", "", 0.6),
        ("horns", "occo", "over", "T2p=M1d T2p=R1d", 0.6),
        ("horns_soft", "esse", "over", "T2p=M1d", 0.3),
        ("horns_beside", "occo", "side", "", 0.3),
        ("four_together_hooked", "kkko", "side", "", 0.0),
        ("bunny", "bbcc", "natural", "", 0.5),
        ("fig", "sccc", "over", "T1d=I1p T2u=M1r", 0.0),
        ("blade_two", "oocc", "side", "", -1.0),
        ("scout", "oooh", "oppose", "T2p=L2d", -0.8),
        ("salute", "oooo", "across", "T2p=I0p", -1.0),
        ("call_me", "ssso", "up", "", 0.0),
        ("gun_two_soft", "eess", "out", "", -0.8),
        ("bird_shadow", "oohh", "out", "", -0.6),
        ("dog_shadow", "ddde", "up", "", -0.6),
        ("beckon", "hrrr", "out", "", 0.0),
        ("beckon_index", "bsss", "natural", "", 0.0),
        ("spider", "crro", "natural", "", 0.5),
        ("walk_two", "dhcc", "over", "T2p=R1d", 0.4),
        ("walk_two_other", "hdcc", "over", "T2p=R1d", 0.4),
        ("peace_bent_thumb", "oocc", "hook", "", 0.9),
        ("three_low", "coss", "natural", "", 0.0),
        ("little_bent", "ooob", "natural", "", 0.4),
        ("index_middle_hooked_thumb_out", "kkcc", "out", "", 0.0),
        ("three_hooked", "kkkc", "across", "T2p=L1d", 0.0),
        ("ring_little_open", "ccoo", "over", "T2p=M1d", 0.3),
        ("middle_ring_open", "coos", "over", "T2p=I1d", 0.0),
        ("index_ring_open", "ocoh", "over", "T2p=M1d", 0.3),
        ("index_little_bent", "bccb", "over", "T2p=M1d", 0.3),
    ]
    return [_spec("sign", *row) for row in rows]


def authored() -> list[Spec]:
    """All authored gestures."""
    return [
        *_fists(),
        *_near_fists(),
        *_thumbs_before(),
        *_counts(),
        *_scissors(),
        *_opens(),
        *_pinches(),
        *_grips(),
        *_signs(),
    ]
