// Stands in for the package of that name where it is not installed: as much of its interface as
// docs/apps.md uses, with the file decoded by the SDK, which turns photos upright and drops alpha.
const { spawnSync } = require("child_process");

const RUN = `
import struct, sys
from handmesh.imaging import decode
image = decode(sys.argv[1])
sys.stdout.buffer.write(struct.pack("<II", image.shape[1], image.shape[0]) + image.tobytes())
`;

class Sharp {
  constructor(path) {
    this.path = path;
  }

  async toBuffer({ resolveWithObject }) {
    if (!resolveWithObject) throw new Error("the pixels alone are not had here");
    const options = { maxBuffer: 1 << 28 };
    const done = spawnSync(process.env.HANDMESH_PYTHON, ["-c", RUN, this.path], options);
    if (done.status !== 0) throw new Error(String(done.stderr));
    const info = { width: done.stdout.readUInt32LE(0), height: done.stdout.readUInt32LE(4), channels: 3 };
    return { data: done.stdout.subarray(8), info };
  }
}

for (const name of ["rotate", "removeAlpha", "toColourspace", "raw"]) {
  Sharp.prototype[name] = function () {
    return this;
  };
}

module.exports = (path) => new Sharp(path);
