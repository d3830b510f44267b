"""CUDA kernels for the graph head: latent vectors in, vertices and joints out, in five launches.

    from handmesh_kernels.constants import HeadConstants
    from handmesh_kernels.launcher import GraphHead

    head = GraphHead(HeadConstants.load("cuda/head.npz"))     # a GPU, and PyCUDA or CuPy
    vertices, joints = head.run(latent, joints_uv)            # arrays or addresses on the device
    head.fetch(vertices)

`src/decoder.cu` is to be read first, `twin.py` beside it: the same head in NumPy. The package takes
arrays and returns arrays, and imports nothing else of handmesh, nor PyCUDA or CuPy before they are
needed. Within handmesh it is used by `handmesh.backends.cuda`.
"""
