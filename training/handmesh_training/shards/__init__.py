"""Sets of rendered hands on disk, as WebDataset shards: tar files that many tools can read.

::

    DIR/manifest.json           what the set is, and the SHA-256 of every shard once all are there
    DIR/hands-00000.tar         samples, each as files of one name: see `records`
    DIR/hands-00000.json        the shard's SHA-256, and where in it each sample starts
    ...

Files appear under their final names only when they are whole.
"""

from .manifest import Manifest
from .reader import ShardSet, verify
from .records import Encoding
from .writer import SetSettings, render_shards

__all__ = ["Encoding", "Manifest", "SetSettings", "ShardSet", "render_shards", "verify"]
