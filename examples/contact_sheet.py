"""Many photos on one picture: each one with the mesh over it, and the hand from its side.

`handmesh sheet` does the same without the second view.

python examples/contact_sheet.py examples/photos/*.jpg --out sheet.png
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import handmesh as sdk
from handmesh.draw import overlay, side_view
from handmesh.imaging import decode
from handmesh.sheet import Tile, contact_sheet


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
            tiles.append(Tile(overlay(photo, hands), path.name))
            if hands:
                tiles.append(Tile(side_view(hands[0], options.side), hands[0].handedness))
            else:
                tiles.append(Tile(np.zeros((1, 1, 3), np.uint8), "no hand"))
    sheet = contact_sheet(tiles, options.side, columns=2 * options.columns)
    if not cv2.imwrite(str(options.out), sheet[..., ::-1]):  # OpenCV raises nothing
        sys.exit(f"cannot write {options.out}: is its folder there, and writable?")
    print(options.out)


if __name__ == "__main__":
    try:
        main()
    except sdk.HandMeshError as error:  # no such photo, a side of 3 pixels
        sys.exit(str(error))
