"""The CUDA sources of this package, and a hash that changes when one of them does."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["FOLDER", "headers", "sha256", "text"]

FOLDER = Path(__file__).parent / "src"


def text(name: str) -> str:
    """One file."""
    return (FOLDER / name).read_text(encoding="utf-8")


def headers() -> dict[str, str]:
    """All headers, by name."""
    return {path.name: text(path.name) for path in sorted(FOLDER.glob("*.h"))}


def sha256() -> str:
    """Of names and contents of all sources."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in {".cu", ".h"}:
            digest.update(f"{path.name}\0{text(path.name)}\0".encode())
    return digest.hexdigest()
