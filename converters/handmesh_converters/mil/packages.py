"""What a written package says of itself, and its bytes: the same for the same network."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handmesh import __version__
from handmesh.errors import ExportError

__all__ = ["check_description", "describe", "tidy"]

_AUTHOR = "handmesh"
_MESHES = "3D hand mesh and 21 joints from an RGB crop (network {network})"
_FEATURES = {
    "image": "Square RGB crop around a hand, {size} x {size} pixels",
    "vertices": "1 x V x 3: u and v as fractions of the crop, then depth behind the wrist in "
    "lengths of the middle finger's first bone",
    "joints": "1 x 21 x 3, as the vertices: wrist, then thumb, index, middle, ring and little "
    "finger, each from base to tip",
    "confidence": "1 x 21: trust in each joint, 0 to 1",
    "presence": "Probability that the crop shows a hand",
    "handedness": "Probability that it is a right hand, in the crop as given",
}
_DETECTOR = "Hands in an RGB photo, as turned squares (network {network})"
_FEATURES_OF_DETECTORS = {
    "image": "RGB photo, shrunk and centred in a black square of {size} x {size} pixels",
    "hands": "1 x K x 7, the surest first: score; centre x, y and side of a square around a hand, "
    "fractions of the picture; cosine and sine of the angle, clockwise, in which the hand points "
    "up; probability of a right hand",
}
# A name for each of a package's items, where coremltools draws a new one each time.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "handmesh")
# When, and with which torch: the manifest of the bundle says it better.
_OTHERS_METADATA = "com.github.apple.coremltools."


def describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Write author, licence, version, descriptions and metadata into coremltools' model."""
    licences = json.loads(metadata.get("licences", "{}"))
    model.author = _AUTHOR
    model.version = __version__
    model.license = "; ".join(f"{part}: {licence}" for part, licence in sorted(licences.items()))
    description = model.get_spec().description
    finds_hands = any(feature.name == "hands" for feature in description.output)
    network = metadata.get("network", "")
    model.short_description = (_DETECTOR if finds_hands else _MESHES).format(network=network)
    features = _FEATURES_OF_DETECTORS if finds_hands else _FEATURES
    size = description.input[0].type.imageType.width
    for feature in description.input:
        model.input_description[feature.name] = features[feature.name].format(size=size)
    for feature in description.output:
        model.output_description[feature.name] = features[feature.name]
    for key, value in sorted(metadata.items()):
        model.user_defined_metadata[key] = value


def check_description(spec: Any, manifest: Mapping[str, Any]) -> None:
    """Check the interface that apps are given, which running the program does not show.

    Args:
        spec: the model's proto. manifest: of the bundle, with its `input` and `outputs`.

    Raises:
        ExportError: input or outputs are described otherwise than the manifest does.
    """
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType, ImageFeatureType

    found: dict[str, object] = {}
    for feature in spec.description.input:
        image = feature.type.imageType
        color = ImageFeatureType.ColorSpace.Name(image.colorSpace)
        found[feature.name] = (color, image.height, image.width)
    for feature in spec.description.output:
        array = feature.type.multiArrayType
        kind = ArrayFeatureType.ArrayDataType.Name(array.dataType)
        found[feature.name] = (kind, *array.shape)
    given = manifest["input"]
    wanted: dict[str, object] = {given["name"]: (given["color"], *given["shape"][1:3])}
    for name, output in manifest["outputs"].items():
        wanted[name] = (output["dtype"].upper(), 1, *output["shape"][1:])
    if found != wanted:
        raise ExportError(
            f"the package describes {found} to apps, where its bundle says {wanted}: export it "
            "again"
        )


def tidy(package: Path) -> None:
    """Make a saved package reproducible and readable by all, and drop what no runtime reads."""
    from coremltools.proto import Model_pb2

    manifest_path = package / "Manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    names = {
        old: str(uuid.uuid5(_NAMESPACE, item["path"]))
        for old, item in manifest["itemInfoEntries"].items()
    }
    items = {names[old]: item for old, item in manifest["itemInfoEntries"].items()}
    root = names[manifest["rootModelIdentifier"]]
    manifest |= {"itemInfoEntries": items, "rootModelIdentifier": root}
    manifest_path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", "utf-8")

    model_path = package / "Data" / items[root]["path"]
    spec = Model_pb2.Model()
    spec.ParseFromString(model_path.read_bytes())
    said = spec.description.metadata.userDefined
    for key in [key for key in said if key.startswith(_OTHERS_METADATA)]:
        del said[key]
    model_path.write_bytes(spec.SerializeToString(deterministic=True))

    kept = {manifest_path, *(package / "Data" / item["path"] for item in items.values())}
    for path in package.iterdir():
        if path.is_file() and path not in kept:
            path.unlink()
    for folder, _, files in os.walk(package):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(Path(folder) / name, 0o644)
