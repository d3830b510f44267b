"""Which files of a folder are skins, panoramas or photos, for whoever reads or hashes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SKIN_CROP = "crop.json"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def skin_files(folder: Path) -> list[Path]:
    """Skin textures directly in a folder."""
    return _sorted(folder, folder.glob("*"), (".png",))


def panorama_files(folder: Path) -> list[Path]:
    """Radiance panoramas directly in a folder."""
    return _sorted(folder, folder.glob("*"), (".hdr",))


def photo_files(folder: Path) -> list[Path]:
    """Photos in a folder and its sub-folders."""
    return _sorted(folder, folder.rglob("*"), PHOTO_SUFFIXES)


def _sorted(folder: Path, paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Those with a suffix, in capitals or not, in an order that no file system decides."""
    chosen = [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]
    return sorted(chosen, key=lambda path: path.relative_to(folder).as_posix())
