"""Follow hands before a webcam, or in a video file, in a window. Press q to end.

python examples/webcam.py               # camera 0
python examples/webcam.py clip.mp4

A window needs an OpenCV that has one: pip install opencv-python in place of opencv-python-headless.
"""

import sys

import cv2

import handmesh as sdk
from handmesh.draw import overlay


def main() -> None:
    source = sys.argv[1] if len(sys.argv) > 1 else "0"
    # A preview of oneself is mirrored; say so, and left and right are the person's own.
    live = source.isdecimal()
    with (
        sdk.open_video(int(source) if live else source) as video,
        sdk.Tracker(mirrored=live) as tracker,
    ):
        for frame in video:
            pixels = frame.pixels[:, ::-1] if live else frame.pixels
            tracked = tracker.update(pixels, frame.time_s)
            for hand in tracked.hands:
                x, y, z = hand.joints_m[sdk.JOINT_NAMES.index("index_tip")]
                print(
                    f"{frame.time_s:7.2f} s  hand {hand.id} ({hand.handedness}): "
                    f"index finger tip at ({x:+.3f}, {y:+.3f}, {z:+.3f}) m"
                )
            picture = overlay(pixels, [hand.hand for hand in tracked.hands])
            try:
                cv2.imshow("handmesh: q ends", picture[..., ::-1])
            except cv2.error:
                sys.exit(
                    "no window: pip uninstall opencv-python-headless; pip install opencv-python"
                )
            if cv2.waitKey(1) & 0xFF == ord("q"):
                break


if __name__ == "__main__":
    try:
        main()
    except sdk.HandMeshError as error:  # no such camera, no video file
        sys.exit(str(error))
