"""What rendered hands are made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from handmesh.errors import InputError

from .poses import ShapeShift


@dataclass(frozen=True)
class RenderSettings:
    """What to render with, in one picklable value.

    Attributes:
        skins: folder of MakeHuman body-atlas crops with a ``crop.json``; None for made-up skins.
        environments: folder of Radiance .hdr panoramas; None for made-up ones.
        backgrounds: folder of photos to put behind hands; None for panoramas only.
        crop_px: side of the stored crops.
        margin: side of the crop over the larger side of the joints' tight box.
        empty: share of crops without a hand.
        shape_shift: coefficients of `HandModel.shape_names` that all hands have on top of their
            own: other people than usual.
        things: what may be placed around hands, names of `rendering.scene.SHARES` and
            `partners.PARTNER`; None for all of them. It is not in the representation, as below.
        other_hand: folder with another model's hand, see `other_hand.OtherHand`: all hands have its
            surface, shaped as ours otherwise are, and its skins. It is not in the representation,
            by which sets on disk made without one go.
        partners: share of hands with another one beside them; None for `partners.SHARE`. It is not
            in the representation either, so that sets made before are known by it still: what goes
            by that adds it where it is given.

    Raises:
        InputError: both skins and another hand, which has its own; or a share beyond 0..1.
    """

    skins: Path | None = None
    environments: Path | None = None
    backgrounds: Path | None = None
    crop_px: int = 160
    margin: float = 1.9
    empty: float = 0.05
    shape_shift: ShapeShift = ()
    things: frozenset[str] | None = field(default=None, repr=False)
    other_hand: Path | None = field(default=None, repr=False)
    partners: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.skins is not None and self.other_hand is not None:
            raise InputError(
                f"the hand in {self.other_hand} has skins of its own; give it without those in "
                f"{self.skins}"
            )
        if self.partners is not None and not 0 <= self.partners <= 1:
            raise InputError(f"partners is a share of hands, in 0..1, not {self.partners}")
