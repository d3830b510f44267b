"""One sample as files of a tar archive, and back.

    000000123.png (or .jpg)     the picture, 8-bit RGB
    000000123.json              labels: see `to_json`
    000000123.vertices.npy      (V, 3) float32, metres, camera frame
    000000123.mask.png          8 bit, the share of the pixel that the hand covers; optional
    000000123.depth.png         16 bit, in units of `DEPTH_UNIT_M`, 0 = no hand; optional

The first dot ends the sample's name, as WebDataset has it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError, ShardIntegrityError
from handmesh_training.record import HandRecord

# Depth up to 6.5 m in steps of a tenth of a millimetre.
DEPTH_UNIT_M = 1e-4
JPEG_QUALITY = (95, 100)


@dataclass(frozen=True)
class Encoding:
    """How samples are written.

    Attributes:
        image: "png", exact, or "jpg", a third of the size.
        quality: of JPEG, 95 to 100. mask, depth: whether to write them, too.

    Raises:
        InputError: another format or quality.
    """

    image: Literal["png", "jpg"] = "png"
    quality: int = 95
    mask: bool = True
    depth: bool = True

    def __post_init__(self) -> None:
        if self.image not in ("png", "jpg"):
            raise InputError(f"pictures are written as png or jpg, not {self.image!r}")
        low, high = JPEG_QUALITY
        if not low <= self.quality <= high:
            raise InputError(
                f"JPEG quality must be {low} to {high}, not {self.quality}: below, it leaves marks "
                "that no camera does"
            )


def encode(record: HandRecord, encoding: Encoding) -> bytes:
    """The sample's part of a tar file; the same record gives the same bytes.

    Raises:
        InputError: mask or depth are to be written, but the record has none.
    """
    files = {
        encoding.image: _encode_image(record.image[..., ::-1], encoding),
        "json": json.dumps(to_json(record), separators=(",", ":")).encode(),
        "vertices.npy": _encode_array(record.vertices_m),
    }
    for name, array in (("mask", record.mask), ("depth", record.depth_m)):
        if not getattr(encoding, name):
            continue
        if array is None:
            raise InputError(f"sample {record.index} has no {name} to write")
        stored: NDArray[Any] = array
        if name == "depth":
            stored = np.clip(np.round(array / DEPTH_UNIT_M), 0, 65535).astype(np.uint16)
        files[f"{name}.png"] = _encode_image(stored, Encoding())
    buffer = io.BytesIO()
    for suffix, data in files.items():
        # No date and no owner: bytes are to depend on the sample alone.
        entry = tarfile.TarInfo(f"{record.key}.{suffix}")
        entry.size = len(data)
        buffer.write(entry.tobuf(tarfile.USTAR_FORMAT))
        buffer.write(data)
        buffer.write(b"\0" * (-len(data) % tarfile.BLOCKSIZE))
    return buffer.getvalue()


def to_json(record: HandRecord) -> dict[str, Any]:
    """The labels that are no arrays of many rows.

    ``index``; ``has_hand`` (false: a picture of the background alone, whose other labels mean
    nothing); ``handedness``; ``skin_tone`` on the Monk scale; ``gesture``, its name or null;
    ``camera``, in pixels, pixel centres at integers; ``joints_px`` (21, 2) and ``joints_m``
    (21, 3), camera frame, in the order of `handmesh.JOINT_NAMES`.
    """
    fx, fy, cx, cy = (_shortest(value) for value in record.intrinsics)
    joints_px = record.joints_m[:, :2] / record.joints_m[:, 2:] * record.intrinsics[:2]
    return {
        "index": record.index,
        "has_hand": record.has_hand,
        "handedness": "right",
        "skin_tone": record.skin_tone,
        "gesture": record.gesture,
        "camera": {"fx": fx, "fy": fy, "cx": cx, "cy": cy},
        "joints_px": [
            [round(float(x), 3) for x in row] for row in joints_px + record.intrinsics[2:]
        ],
        "joints_m": [[_shortest(x) for x in row] for row in record.joints_m],
    }


def decode(data: bytes, where: str) -> HandRecord:
    """One sample from its part of a tar file.

    Args:
        data: that part. where: name of the sample, for messages.

    Raises:
        ShardIntegrityError: it is not a whole sample.
    """
    try:
        files = _files(data)
        labels = json.loads(files["json"])
        camera = [labels["camera"][name] for name in ("fx", "fy", "cx", "cy")]
        mask = files.get("mask.png")
        depth = files.get("depth.png")
        picture = files["png"] if "png" in files else files["jpg"]
        return HandRecord(
            index=int(labels["index"]),
            image=np.ascontiguousarray(
                _decode_image(picture, cv2.IMREAD_COLOR, np.uint8)[..., ::-1]
            ),
            has_hand=bool(labels["has_hand"]),
            intrinsics=np.array(camera, dtype=np.float32),
            joints_m=np.array(labels["joints_m"], dtype=np.float32).reshape(21, 3),
            vertices_m=np.load(io.BytesIO(files["vertices.npy"]), allow_pickle=False),
            skin_tone=int(labels["skin_tone"]),
            gesture=labels["gesture"],
            mask=None if mask is None else _decode_image(mask, cv2.IMREAD_UNCHANGED, np.uint8),
            depth_m=None
            if depth is None
            else _decode_image(depth, cv2.IMREAD_UNCHANGED, np.uint16) * np.float32(DEPTH_UNIT_M),
        )
    # Damaged bytes make tarfile, json, NumPy and OpenCV raise a dozen types.
    except Exception as error:
        raise ShardIntegrityError(
            f"{where} cannot be decoded ({type(error).__name__}: {error}); check the set with "
            "`handmesh render --verify DIR` and render it again where it is damaged"
        ) from error


def _files(data: bytes) -> Mapping[str, bytes]:
    """Suffix and contents of the files of one sample."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            if file is not None:
                found[entry.name.partition(".")[2]] = file.read()
    return found


def _shortest(value: np.floating) -> float:
    """A float32 as the float64 with the fewest digits that is rounded back to it."""
    return float(str(np.float32(value)))


def _encode_image(image: NDArray[Any], encoding: Encoding) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, encoding.quality] if encoding.image == "jpg" else []
    done, data = cv2.imencode(f".{encoding.image}", image, options)
    if not done:
        raise InputError(f"a picture of {image.shape} {image.dtype} cannot be encoded")
    return data.tobytes()


def _decode_image(data: bytes, flags: int, dtype: type[np.generic]) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None or image.dtype != dtype:
        raise ValueError("not the picture that was written")
    return np.asarray(image)


def _encode_array(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
