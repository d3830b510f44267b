"""CUDA kernels for the graph head, for use by `handmesh.backends.cuda`.

This release contains no kernels: the package reserves the name and the place. Inference runs on
ONNX Runtime or torch. The package takes arrays and returns arrays, and imports nothing else of
handmesh.
"""
