"""What several sub-commands of training have in common."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from handmesh.errors import InputError

# Seeds of rendered hands: training counts up from zero, evaluation stands far off.
EVALUATION_SEED = 987_654


def check_written(option: str, path: Path, ending: str) -> None:
    """Look at the name of a file that is to be written, before the work.

    Raises:
        InputError: it has another ending than its one format, or its folder is not there.
    """
    if path.suffix.lower() != ending:
        raise InputError(f"{option} must end in {ending}, not {path.name!r}")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")


def check_folder(option: str, folder: Path) -> None:
    """Look at a folder that is to be made, before the work; nothing is left of the look.

    Raises:
        InputError: it cannot be made, or not be written to.
    """
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        # Permissions do not tell it all: nobody can write to /proc.
        tempfile.TemporaryDirectory(dir=nearest, prefix=".handmesh-").cleanup()
    except OSError as cause:
        raise InputError(
            f"{option} {folder}: nothing can be written to {nearest} ({cause.strerror}); give a "
            "folder that can be made"
        ) from cause


def add_surroundings(parser: argparse.ArgumentParser) -> None:
    """Folders that rendering takes skins, light and backgrounds from."""
    parser.add_argument(
        "--skins", type=Path, metavar="DIR", help="MakeHuman body-atlas crops (default: made up)"
    )
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help=".hdr panoramas (default: made up)"
    )
    parser.add_argument(
        "--backgrounds", type=Path, metavar="DIR", help="photos to put behind rendered hands"
    )


def add_photos(parser: argparse.ArgumentParser) -> None:
    """Real photos with a teacher's labels."""
    parser.add_argument(
        "--photos",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of real photos with pseudo_labels.json; DIR:train and DIR:held-out are four "
        "fifths and the last fifth of it; may be given more than once",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """All that training draws from: surroundings, photos and data sets."""
    add_surroundings(parser)
    add_photos(parser)
    parser.add_argument(
        "--data",
        "--dataset",
        action="append",
        default=[],
        metavar="LAYOUT:SPLIT:DIR",
        help="a labelled data set, as stb:train_sk:DIR; may be given more than once",
    )
