"""Many photos on one picture: each one, the mesh over it, and the hand from its side.

python examples/contact_sheet.py examples/photos/*.jpg --out sheet.png
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import handmesh as sdk
from handmesh.draw import overlay, side_view
from handmesh.imaging import decode


def tile(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture, as large as fits a grey square."""
    scale = side / max(picture.shape[:2])
    shrunk = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    square = np.full((side, side, 3), 40, dtype=np.uint8)
    top, left = (side - shrunk.shape[0]) // 2, (side - shrunk.shape[1]) // 2
    square[top : top + shrunk.shape[0], left : left + shrunk.shape[1]] = shrunk
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--side", type=int, default=280, help="pixels of each tile")
    parser.add_argument("--columns", type=int, default=3, help="photos in a row")
    parser.add_argument("--bundle", help="trained model (default: the shipped one)")
    options = parser.parse_args()

    tiles = []
    with sdk.load(options.bundle) as predictor:
        for path in options.photos:
            photo = decode(path)
            hands = predictor.predict(photo)
            seen = overlay(photo, hands) if hands else photo
            tiles.append(tile(seen, options.side))
            side = side_view(hands[0], size=options.side) if hands else np.zeros_like(tiles[0])
            tiles.append(tile(side, options.side))
    across = 2 * min(options.columns, len(options.photos))
    blank = np.full_like(tiles[0], 40)
    tiles += [blank] * (-len(tiles) % across)
    rows = [np.hstack(tiles[i : i + across]) for i in range(0, len(tiles), across)]
    cv2.imwrite(str(options.out), np.vstack(rows)[..., ::-1])
    print(options.out)


if __name__ == "__main__":
    main()
