"""3D hand meshes from one RGB photo."""

__version__ = "0.1.0"
