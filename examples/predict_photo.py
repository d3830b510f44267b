"""Find the hands in a photo, print where they are, and save the mesh of each.

python examples/predict_photo.py examples/photos/pointing.jpg
"""

import sys
from pathlib import Path

import handmesh as sdk


def main() -> None:
    default = Path(__file__).parent / "photos" / "pointing.jpg"
    photo = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    try:
        hands = sdk.predict(photo, max_hands=2)
    except sdk.ImageError as error:
        sys.exit(str(error))
    if not hands:
        print(f"no hand in {photo}")
    for number, hand in enumerate(hands, start=1):
        tip = sdk.JOINT_NAMES.index("index_tip")
        x, y, z = hand.joints_m[tip]
        u, v = hand.joints_px[tip]
        print(
            f"{hand.handedness} hand, presence {hand.presence:.0%}: index finger tip at pixel "
            f"({u:.0f}, {v:.0f}), at ({x:+.3f}, {y:+.3f}, {z:+.3f}) m, depth {hand.depth}"
        )
        saved = hand.save(f"{photo.stem}_{number}.glb")
        print(f"mesh of {len(hand.vertices_m)} vertices in {saved}")


if __name__ == "__main__":
    main()
