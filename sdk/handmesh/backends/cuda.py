TRUNK, HEAD = "trunk.onnx", "head.npz"
