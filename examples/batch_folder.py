"""All photos below a folder: a line of JSON for each, with progress; run it again to go on.

python examples/batch_folder.py examples/photos hands.jsonl

A photo that has a line is not read again. A run that is stopped loses the photo that it was at.
"""

import json
import os
import sys
from pathlib import Path

from tqdm import tqdm

import handmesh as sdk

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def main() -> None:
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python examples/batch_folder.py FOLDER RESULTS.jsonl")
    folder, results = Path(sys.argv[1]), Path(sys.argv[2])
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    earlier = [json.loads(line) for line in read_whole_lines(results)]
    done = {line["photo"] for line in earlier}
    failed = sum("error" in line for line in earlier)
    left = [path for path in photos if str(path.relative_to(folder)) not in done]
    print(f"{len(photos)} photos, {len(photos) - len(left)} done already")

    if results.exists():  # half a line at the end is cut off
        os.truncate(results, results.read_bytes().rfind(b"\n") + 1)
    with sdk.load() as predictor, results.open("a", encoding="utf-8") as lines:
        predictor.warm_up()
        for path in tqdm(left, unit="photo"):
            line = {"photo": str(path.relative_to(folder))}
            try:
                hands = predictor.predict(path, max_hands=2)
                line["hands"] = [hand.to_dict() for hand in hands]
            except sdk.ImageError as error:  # told, and the others go on
                line["error"] = str(error)
                failed += 1
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    if failed:
        print(f'{failed} failed: their lines in {results} have an "error"', file=sys.stderr)


def read_whole_lines(results: Path) -> list[str]:
    """Lines of an earlier run, without the one that it was stopped in."""
    if not results.exists():
        return []
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped: run it again to go on")
    except OSError as error:  # of the results, in a folder that is not there, say
        sys.exit(f"cannot read or write {error.filename}: {error.strerror}")
