"""How light or dark a rendered skin is, told by the Monk Skin Tone scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .rendering.appearance import Appearance
from .rendering.skins import SkinSet, skin_tones

# Linear sRGB to CIE XYZ, each row over the white point's value (D65).
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
) / [[0.95047], [1.0], [1.08883]]  # fmt: skip


def skin_albedo(look: Appearance, skins: SkinSet) -> NDArray[np.float64]:
    """(B, 3) mean linear albedo of each picture's skin."""
    reference = skins.reference[look.skin].astype(np.float64)  # (B, 3)
    return look.skin_gain * reference ** look.skin_contrast[:, None]


def nearest_monk(albedo: NDArray[np.floating]) -> NDArray[np.int64]:
    """(B,) tones of the Monk scale, 1 (light) to 10 (dark), nearest to (B, 3) linear albedo.

    Nearest in CIE 1976 L*a*b* to the ten albedos that stand for the scale's swatches here
    (`rendering.skins.skin_tones`): swatches on a screen are not skin under light.
    """
    scale = _lab(skin_tones().astype(np.float64))  # (10, 3)
    distance = np.linalg.norm(_lab(np.asarray(albedo))[:, None] - scale[None], axis=-1)  # (B, 10)
    return distance.argmin(axis=1) + 1


def _lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) linear sRGB to CIE 1976 L*a*b* (ISO/CIE 11664-4)."""
    xyz = linear @ _TO_XYZ.T
    cut = 6 / 29
    f = np.where(xyz > cut**3, np.cbrt(xyz), xyz / (3 * cut**2) + 4 / 29)
    lightness = 116 * f[..., 1] - 16
    return np.stack(
        [lightness, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )
