"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012), and what of a hand is filtered by it.

A first-order low-pass whose cutoff rises with the speed of what it follows: a hand that is still is
steady, and one that moves is followed closely. With the time constant tau = 1 / (2 pi f_c),

    a_k = dt_k / (dt_k + tau)        x^_k = a_k x_k + (1 - a_k) x^_(k-1)
    f_c = min_cutoff_hz + beta |v^|

where v^ is the speed, low-passed itself at ``derivative_cutoff_hz``. The speed here is that of the
*unfiltered* values, of which the authors published both variants: at a constant speed it is then
exact, and the filter lags behind by tau seconds exactly, whatever the frame rate and however it
varies (`OneEuro.lag_s`). Noise that is new in every frame is reduced to sqrt(a / (2 - a)) of its
standard deviation in a hand that is still.

What is filtered of a hand are the three things that the picture tells: (u, v), depths relative to
the wrist, and the wrist's depth in bones. The last is by far the noisiest and would shake all of
camera space, which follows from the three afterwards: so a filtered hand still projects to where
it is drawn, and each part lags only as much as its own noise demands.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .types import finite

__all__ = ["HandPoints", "HandSmoother", "OneEuro", "Smoothing"]

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """Parameters of a One-Euro filter.

    Attributes:
        min_cutoff_hz: cutoff at rest: lower is steadier, and slower to begin to move.
        beta: how fast the cutoff rises, in Hz for each unit of speed.
        derivative_cutoff_hz: cutoff of the speed's own low-pass.

    Raises:
        InputError: a cutoff is not a positive number, or beta a negative one.
    """

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff_hz", "beta", "derivative_cutoff_hz"):
            value = finite(getattr(self, name), f"Smoothing.{name}", InputError)
            if value < 0 or (value == 0 and name != "beta"):
                kind = "0 or more" if name == "beta" else "a positive number of Hz"
                raise InputError(f"Smoothing.{name} must be {kind}, not {value:g}")
            object.__setattr__(self, name, value)

    def lag_s(self, speed: float = 0.0) -> float:
        """Seconds by which what moves at a constant speed is shown late; at 0, a slow start."""
        return 1 / (2 * math.pi * (self.min_cutoff_hz + self.beta * abs(speed)))


class OneEuro:
    """A One-Euro filter for rows of numbers at times that need not be evenly spaced.

    Each row, a point, has one cutoff, by its speed as a vector: no direction is preferred.

    Args:
        smoothing: the filter's parameters.
    """

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self._time = -math.inf
        self._raw: Array | None = None
        self._filtered: Array | None = None
        self._velocity: Array | None = None

    def __call__(self, values: Array, time_s: float, scale: float = 1.0) -> Array:
        """The next values, filtered.

        Args:
            values: (N, D) points. The first are returned as they are.
            time_s: when, in seconds; later than the last ones.
            scale: what counts as one unit of length for the speed.

        Returns:
            (N, D) float64.

        Raises:
            InputError: the time is not later than the last, or the shape another.
        """
        values = np.asarray(values, dtype=np.float64)
        if self._raw is None or self._filtered is None or self._velocity is None:
            self._time, self._raw, self._filtered = time_s, values, values
            self._velocity = np.zeros_like(values)
            return values
        if values.shape != self._raw.shape:
            raise InputError(f"expected values of shape {self._raw.shape}, not {values.shape}")
        step = time_s - self._time
        if not step > 0:
            raise InputError(f"time must go on: {time_s:g} s is not later than {self._time:g} s")
        velocity = (values - self._raw) / (step * scale)  # (N, D)
        share = _share(step, self.smoothing.derivative_cutoff_hz)
        self._velocity = self._velocity + share * (velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)  # (N, 1)
        cutoff = self.smoothing.min_cutoff_hz + self.smoothing.beta * speed
        self._filtered = self._filtered + _share(step, cutoff) * (values - self._filtered)
        self._time, self._raw = time_s, values
        return self._filtered

    def __deepcopy__(self, memo: dict[int, Any]) -> OneEuro:
        return copy.copy(self)  # its arrays are replaced, never written to


def _share(step: float, cutoff_hz: float | Array) -> float | Array:
    """a = dt / (dt + tau): the share of the new value."""
    turn = 2 * math.pi * step * cutoff_hz
    return turn / (1 + turn)


@dataclasses.dataclass(frozen=True, eq=False)
class HandPoints:
    """What a picture tells of a hand before anything of it is metric.

    Attributes:
        joints_px, vertices_px: (21, 2) and (V, 2) float64, pixels of the photo.
        joints_depth, vertices_depth: (21,) and (V,) float64, behind the wrist, bone lengths.
        root_depth: the wrist's depth in bone lengths, above 0.
    """

    joints_px: Array
    vertices_px: Array
    joints_depth: Array
    vertices_depth: Array
    root_depth: float


class HandSmoother:
    """Filters one hand over time.

    Args:
        image: for (u, v); its unit of length is the side of the hand's crop.
        depth: for depths relative to the wrist; its unit is the middle finger's first bone.
        distance: for the logarithm of the wrist's depth: a speed of 1 is e times as far away after
            a second.
    """

    # Found on rendered clips by `python -m handmesh_benchmarks.tracking`.
    IMAGE = Smoothing(1.0, 40.0)
    DEPTH = Smoothing(1.0, 2.0)
    DISTANCE = Smoothing(0.5, 5.0)

    def __init__(
        self,
        image: Smoothing = IMAGE,
        depth: Smoothing = DEPTH,
        distance: Smoothing = DISTANCE,
    ) -> None:
        self._image, self._depth, self._distance = OneEuro(image), OneEuro(depth), OneEuro(distance)

    def __call__(self, points: HandPoints, time_s: float, crop_px: float) -> HandPoints:
        """The next points, filtered.

        Args:
            points: what was measured.
            time_s: when, in seconds.
            crop_px: side of the crop that showed the hand, in pixels.

        Raises:
            InputError: the time is not later than that of the last points.
        """
        joints = len(points.joints_px)
        flat = self._image(np.concatenate([points.joints_px, points.vertices_px]), time_s, crop_px)
        relative = np.concatenate([points.joints_depth, points.vertices_depth])
        depth = self._depth(relative[:, None], time_s)[:, 0]  # (21 + V,)
        distance = self._distance(np.log([[points.root_depth]]), time_s)
        return HandPoints(
            joints_px=flat[:joints],
            vertices_px=flat[joints:],
            joints_depth=depth[:joints],
            vertices_depth=depth[joints:],
            root_depth=float(np.exp(distance[0, 0])),
        )
