"""How a trained model travels: a folder with a manifest, and a hash for every file in it.

`handmesh.manifest` says what the manifest holds and what lies beside it. A file is hashed when
first asked for, and never again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import BundleError
from .graph import Topology
from .manifest import (
    MANIFEST,
    SCHEMA,
    detector_specs,
    io_specs,
    read_manifest,
    verify_file,
    verify_size,
    write_manifest,
)
from .spelling import did_you_mean

__all__ = [
    "DEFAULT",
    "DETECTOR",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "detector_specs",
    "io_specs",
    "read_manifest",
    "shipped",
    "write_manifest",
]

DEFAULT = "light"
# The kind of network that finds hands, and the name of the bundle that ships with one.
DETECTOR = "detector"

TOPOLOGY = "topology.npz"

_SHIPPED = Path(__file__).parent / "bundles"


class Bundle:
    """A trained model on disk. Make one with `Bundle.load`.

    Attributes:
        folder: where it lies.
        manifest: the parsed manifest, as `handmesh.manifest` describes it.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._verified: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path_or_name: str | os.PathLike[str] | None = None) -> Bundle:
        """Open a bundle: a folder, or the name of one that ships with handmesh.

        Only the manifest is read; files are read and checked when something needs them.

        Args:
            path_or_name: a str without a separator may be a name, as "light"; a `Path`, "./light"
                and whatever else is no such name is a folder. By default the shipped "light".

        Raises:
            BundleError: there is no such bundle, its manifest cannot be understood, or a name is
                that of a folder here as well.
            IntegrityError: the manifest was changed after it was written.
        """
        wanted = DEFAULT if path_or_name is None else path_or_name
        if not isinstance(wanted, (str, os.PathLike)):
            raise BundleError(
                "a bundle is the path of a folder, or the name of one that ships with handmesh, "
                f"not {type(wanted).__name__}"
            )
        own = shipped()
        folder = Path(wanted)
        if isinstance(wanted, str) and wanted in own:
            if path_or_name is not None and os.path.isdir(wanted):
                # Either may be meant, and one of them may be about to be changed.
                raise BundleError(
                    f"{wanted!r} is the name of a bundle that ships with handmesh, and a folder "
                    f"here: say {'./' + wanted!r} for the folder; for the shipped one, do this in "
                    "another folder"
                )
            folder = own[wanted]
        if not os.path.isfile(folder / MANIFEST):  # False, too, of a name that no file can have
            names = ", ".join(sorted(own)) or "none"
            raise BundleError(
                f"no bundle at {str(wanted)!r}: expected a folder with a {MANIFEST}, or the name "
                f"of a shipped bundle ({names}){did_you_mean(str(wanted), own)}"
            )
        return cls(folder, read_manifest(folder))

    @staticmethod
    def ships(name: str) -> bool:
        """Whether a bundle of that name is inside this package."""
        return name in shipped()

    @property
    def name(self) -> str:
        """What the manifest calls it, as "light"."""
        return str(self.manifest["name"])

    @property
    def is_detector(self) -> bool:
        """Whether its network finds hands, and gives no meshes."""
        return bool(self.manifest["network"] == DETECTOR)

    @property
    def is_shipped(self) -> bool:
        """Whether it is inside this package, by whatever way it was opened."""
        return self.folder.resolve() in {folder.resolve() for folder in shipped().values()}

    @property
    def can_be_exported(self) -> bool:
        """Whether it holds what exports begin with: weights, and crops to prove artifacts on."""
        return "torch" in self.artifacts and "reference.npz" in self.manifest["files"]

    @property
    def argument(self) -> str:
        """What names it in a command: a name that ships with handmesh, or the way to its folder."""
        own, name = shipped(), self.folder.resolve().name
        if self.is_shipped and not os.path.isdir(name):  # of a folder here the name is refused
            return name
        path = str(self.folder)
        # By itself it would be a name or an option.
        return os.path.join(".", path) if path in own or path.startswith("-") else path

    @property
    def image_size(self) -> int:
        """Side of the crops that the network takes, in pixels."""
        return int(self.manifest["input"]["shape"][1])

    @property
    def artifacts(self) -> Mapping[str, Mapping[str, Any]]:
        """By format, what the manifest says of each artifact."""
        artifacts: Mapping[str, Mapping[str, Any]] = self.manifest["artifacts"]
        return artifacts

    @cached_property
    def topology(self) -> Topology:
        """The mesh graph that the network was trained on.

        Raises:
            BundleError, IntegrityError: its file is missing or was changed.
            GraphMismatchError: it is another than the manifest names.
        """
        if self.is_detector:
            raise BundleError(
                f"bundle {self.name!r} finds hands and gives no meshes: open it with "
                "handmesh.detector.Detector, or give another bundle"
            )
        topology = Topology.load(self.file(TOPOLOGY))
        named = self.manifest.get("graph_sha256")
        if named is not None:
            topology.check_sha256(str(named), f"bundle {self.name!r}")
        return topology

    def artifact(self, name: str) -> Path:
        """Path of the artifact in that format, all its files verified.

        Raises:
            BundleError: the bundle has no such artifact, or a file of it is missing.
            IntegrityError: a file of it was changed.
        """
        entry = self._entry(name)
        for file in self._files_of(name):
            self.file(file)
        return self.folder / entry["path"]

    def precision_of(self, name: str) -> str:
        """How the artifact in that format stores its large weights, as `handmesh export
        --precision` names it: "fp32", "fp16" or "int8"; "" where the manifest does not say.

        Raises:
            BundleError: the bundle has no such artifact.
        """
        entry = self._entry(name)
        return str(entry.get("weights", entry.get("precision", "")))

    def size_of(self, name: str) -> int:
        """Bytes of the artifact in that format, all its files together.

        Raises:
            BundleError: as `artifact`; nothing is read.
        """
        self._entry(name)
        files = self.manifest["files"]
        return sum(int(files[file]["bytes"]) for file in self._files_of(name) if file in files)

    def _entry(self, name: str) -> Mapping[str, Any]:
        entry = self.artifacts.get(name)
        if entry is None:
            from .backends import export_command

            has = ", ".join(sorted(self.artifacts)) or "none"
            command = export_command(name, self)
            raise BundleError(
                f"bundle {self.name!r} has no {name!r} artifact (it has: {has}); "
                + (f"make it with `{command}`" if command else "give a bundle that has one")
            )
        return entry

    def _files_of(self, name: str) -> list[str]:
        path: str = self.artifacts[name]["path"]
        inside = [file for file in self.manifest["files"] if file.startswith(path + "/")]
        return inside or [path]

    def file(self, path: str) -> Path:
        """Path of one file of the bundle, verified the first time it is asked for.

        Raises:
            BundleError: the manifest does not name it, or it is missing.
            IntegrityError: its size or hash is not the manifest's.
        """
        described = self._described(path)
        target = self.folder / path
        with self._lock:
            if path not in self._verified:
                verify_file(target, described)
                self._verified.add(path)
        return target

    def check_sizes(self, name: str) -> None:
        """Look whether the files of an artifact, and the graph that it goes with, are there and of
        the manifest's sizes: at once, as nothing is read.

        Raises:
            BundleError: the bundle has no such artifact, or a file is missing.
            IntegrityError: a file has another size.
        """
        self._entry(name)
        graph = [] if self.is_detector else [TOPOLOGY]
        for path in (*self._files_of(name), *graph):
            verify_size(self.folder / path, self._described(path))

    def _described(self, path: str) -> Mapping[str, Any]:
        described: Mapping[str, Any] | None = self.manifest["files"].get(path)
        if described is None:
            raise BundleError(f"the manifest of bundle {self.name!r} names no file {path!r}")
        return described

    def check(self) -> None:
        """Verify every file at once.

        Raises:
            BundleError: a file is missing.
            IntegrityError: a file was changed.
        """
        for path in self.manifest["files"]:
            self.file(path)


def shipped() -> dict[str, Path]:
    """Folders of the bundles inside this package, by name."""
    return {path.parent.name: path.parent for path in _SHIPPED.glob(f"*/{MANIFEST}")}
