"""Combinations: every finger open, half, hooked or closed, with several thumbs."""

from __future__ import annotations

from itertools import product

from .authored import Spec

STATES = "ohkc"
# Which closed finger a thumb holds down, the easiest to reach first.
HOLD_ORDER = "MRIL"


def coupled(fingers: str) -> str:
    """The nearest letters that tendons allow: fingers of one muscle follow each other.

    A ring finger between closed neighbours rises half way at most; a little finger closes with its
    ring finger and lags behind an open one; open neighbours pull on a closed finger.
    """
    index, middle, ring, little = tuple(fingers)
    if ring == "o" and middle in "ck" and little in "ck":
        ring = "r"
    if little == "c" and ring in "or":
        little, ring = "h", "e" if ring == "o" else ring
    if middle in "c" and index == "o" and ring in "oe":
        middle = "s"
    if ring == "c" and middle == "o" and little == "o":
        ring = "s"
    if little == "o" and ring == "k":
        little = "e"
    return index + middle + ring + little


def combined() -> list[Spec]:
    """All combinations, thumb out, along the hand, and across it: on a closed finger if one is."""
    found: dict[tuple[str, str], Spec] = {}
    for states in product(STATES, repeat=4):
        fingers = coupled("".join(states))
        closed = [f for f in HOLD_ORDER if fingers["IMRL".index(f)] in "cs"]
        holding = "over" if closed and closed[0] in "IM" else "oppose" if closed else "across"
        touches = (f"T2p={closed[0]}1d",) if closed else ()
        for thumb, touch in (("out", ()), ("natural", ()), (holding, touches)):
            label = {"out": "thumb_out", "natural": "thumb_easy"}.get(thumb, "thumb_across")
            name = f"combined_{fingers}_{label}"
            spec = Spec(name, fingers, thumb, touch, 0.3, kind="combined")
            found.setdefault((fingers, label), spec)
    return list(found.values())
