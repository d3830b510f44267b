"""Labels on the detector's grid, and its loss (CenterNet, Zhou et al. 2019)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.nn.detector import DIRECTION, OFFSET, PRESENCE, RIGHT, UNIT_SIZE
from handmesh.nn.detector import SIZE as LOG_SIZE

from .scenes import COS, HAND, IGNORED, KIND, SIN, SIZE, TURNED, X, Y
from .scenes import RIGHT as IS_RIGHT

# Standard deviation of a hand's heat, as a share of its box, and its bounds in cells.
_SPREAD, _LEAST, _MOST = 0.07, 0.6, 1.6
# Where a hand may be found or not: this near to its centre, as a share of its box.
_DOUBTFUL = 0.5
# Powers of the focal loss: of what is easy, and of being near to a centre.
_EASY, _NEAR = 2, 4


@dataclass(frozen=True)
class DetectionWeights:
    """Of the terms of the loss."""

    presence: float = 1.0
    offset: float = 1.0
    size: float = 2.0
    direction: float = 1.0
    right: float = 0.5


class Targets(NamedTuple):
    """What the grid should say.

    Attributes:
        heat: (B, G, G) float32, 1 in the cell of a hand's centre, less around it.
        counts: (B, G, G) float32, 0 where presence is not judged.
        near: (B, G, G) float32, weight of the rest: the heat in a centre's cell and its eight
            neighbours, 0 elsewhere.
        offset: (B, 2, G, G) from the cell's middle to the centre of the nearest hand, in cells.
        log_size: (B, G, G). direction: (B, 2, G, G) cosine and sine.
        turned: (B, G, G) whether that means anything. right: (B, G, G) 0 or 1.
    """

    heat: Tensor
    counts: Tensor
    near: Tensor
    offset: Tensor
    log_size: Tensor
    direction: Tensor
    turned: Tensor
    right: Tensor


def targets(labels: Tensor, side: int) -> Targets:
    """Labels (B, M, 8), as `scenes` makes them, on a grid of G = ``side`` cells.

    Unlike CenterNet's, sizes and the rest are also said in a centre's eight neighbours: the peak
    that is read off may be one of them.
    """
    kind = labels[..., KIND]  # (B, M)
    x, y = labels[..., X] * side, labels[..., Y] * side  # in cells
    column, row = x.floor(), y.floor()
    cells = torch.arange(side, device=labels.device, dtype=labels.dtype)
    dx = cells.view(1, 1, 1, side) - column[..., None, None]  # (B, M, 1, G)
    dy = cells.view(1, 1, side, 1) - row[..., None, None]  # (B, M, G, 1)
    squared = dx.square() + dy.square()  # (B, M, G, G)
    extent = labels[..., SIZE] * side
    sigma = (_SPREAD * extent).clamp(_LEAST, _MOST)[..., None, None]
    is_hand = (kind == HAND)[..., None, None]
    heats = torch.exp(-squared / (2 * sigma.square())) * is_hand
    heat, nearest = heats.max(dim=1)  # (B, G, G)
    doubtful = (squared.sqrt() < _DOUBTFUL * extent[..., None, None]) & (kind == IGNORED)[
        ..., None, None
    ]
    adjacent = ((dx.abs() <= 1) & (dy.abs() <= 1)).gather(1, nearest[:, None])[:, 0]

    def of_nearest(values: Tensor) -> Tensor:
        """(B, M) to (B, G, G): of the hand whose heat is felt."""
        return values.gather(1, nearest.flatten(1)).view_as(nearest)

    return Targets(
        heat=heat,
        counts=((heat > 0.5) | ~doubtful.any(dim=1)).to(labels.dtype),
        near=heat * adjacent,
        offset=torch.stack(
            [
                of_nearest(x) - cells.view(1, 1, side) - 0.5,
                of_nearest(y) - cells.view(1, side, 1) - 0.5,
            ],
            dim=1,
        ),
        log_size=torch.log(of_nearest(labels[..., SIZE]).clamp(min=1e-3) / UNIT_SIZE),
        direction=torch.stack([of_nearest(labels[..., COS]), of_nearest(labels[..., SIN])], dim=1),
        turned=of_nearest(labels[..., TURNED]),
        right=of_nearest(labels[..., IS_RIGHT]),
    )


def detection_loss(
    grid: Tensor, labels: Tensor, weights: DetectionWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal loss of presence; L1 of offset, size and direction, and cross-entropy of the side,
    near the centres.

    Args:
        grid: (B, 7, G, G) of `DetectorNetwork`. labels: (B, M, 8). weights: of the terms.
    """
    true = targets(labels, grid.shape[-1])
    hands = (true.heat == 1).sum().clamp(min=1)
    near = true.near.sum().clamp(min=1)

    logit = grid[:, PRESENCE]
    sure, unsure = F.logsigmoid(logit), F.logsigmoid(-logit)  # log p, log (1 - p)
    p = logit.sigmoid()
    at_centre = (1 - p).pow(_EASY) * sure
    elsewhere = (1 - true.heat).pow(_NEAR) * p.pow(_EASY) * unsure
    presence = -(torch.where(true.heat == 1, at_centre, elsewhere) * true.counts).sum() / hands

    def mean(error: Tensor, weight: Tensor) -> Tensor:
        return (error * weight).sum() / near

    right = F.binary_cross_entropy_with_logits(grid[:, RIGHT], true.right, reduction="none")
    terms = {
        "presence": presence,
        "offset": mean((grid[:, OFFSET] - true.offset).abs().sum(dim=1), true.near),
        "size": mean((grid[:, LOG_SIZE] - true.log_size).abs(), true.near),
        "direction": mean(
            (grid[:, DIRECTION] - true.direction).abs().sum(dim=1), true.near * true.turned
        ),
        "right": mean(right, true.near),
    }
    scale = asdict(weights)
    return torch.stack([scale[name] * term for name, term in terms.items()]).sum(), terms
