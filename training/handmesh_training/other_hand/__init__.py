"""Hands of another model's shape and skin, in our mesh: a second domain of which all is known.

`gltf` reads the model, `fit` poses our hand like it, `drape` lays our surface onto its, `rest`
takes the result back to the rest pose, `bake` carries the textures over; `registered` does it all.
"""

from .gltf import ModelledHand, read_hand, source_files
from .registered import Agreement, OtherHand, hash_of

__all__ = ["Agreement", "ModelledHand", "OtherHand", "hash_of", "read_hand", "source_files"]
