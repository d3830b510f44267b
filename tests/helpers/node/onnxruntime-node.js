// Stands in for the package of that name where it is not installed: as much of its interface as
// docs/apps.md uses, with the session's work done by ONNX Runtime in Python.
const { spawnSync } = require("child_process");

const RUN = `
import json, sys
import numpy, onnxruntime
path, shape = sys.argv[1], json.loads(sys.argv[2])
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
image = numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8).reshape(shape)
names = [output.name for output in session.get_outputs()]
values = session.run(names, {"image": image})
print(json.dumps({n: {"dims": v.shape, "data": v.ravel().tolist()} for n, v in zip(names, values)}))
`;

class Tensor {
  constructor(type, data, dims) {
    if (type !== "uint8" || !(data instanceof Uint8Array)) throw new Error(`no ${type} here`);
    if (data.length !== dims.reduce((a, b) => a * b)) throw new Error(`${data.length} for ${dims}`);
    Object.assign(this, { type, data, dims });
  }
}

class InferenceSession {
  static async create(path) {
    return Object.assign(new InferenceSession(), { path });
  }

  async run({ image }) {
    const code = ["-c", RUN, this.path, JSON.stringify(image.dims)];
    const options = { input: image.data, maxBuffer: 1 << 28 };
    const done = spawnSync(process.env.HANDMESH_PYTHON, code, options);
    if (done.status !== 0) throw new Error(String(done.stderr));
    const found = JSON.parse(done.stdout);
    for (const value of Object.values(found)) value.data = Float32Array.from(value.data);
    return found;
  }
}

module.exports = { InferenceSession, Tensor };
