#!/usr/bin/env bash
# Everything that needs a GPU, on a machine with one, nvcc, and a Python with torch and CuPy. Installs
# nothing. Results go to $OUT (default: on_gpu/).
#
#   python -m handmesh_benchmarks.kernels --heads on_gpu/heads   # beforehand, where handmesh is installed
#   PYTHON=python3 OUT=on_gpu kernels/on_gpu.sh
#   BUNDLE=my_bundle kernels/on_gpu.sh    # also runs a bundle with a `cuda` artifact through the SDK;
#                                         # needs onnxruntime-gpu
#
# Nobody has run this on a GPU yet: expect to mend it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT="$PWD"
PYTHON="${PYTHON:-python3}"
OUT="${OUT:-on_gpu}"
mkdir -p "$OUT"
export PYTHONPATH="$ROOT/sdk:$ROOT/converters:$ROOT/training:$ROOT/benchmarks:$ROOT/kernels${PYTHONPATH:+:$PYTHONPATH}"
export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$OUT/cache}"
failed=()

step() {  # NAME COMMAND...: go on after a failure, and say so at the end
  local name="$1"; shift
  echo; echo "== $name"
  "$@" 2>&1 | tee "$OUT/$name.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$name")
}

nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv || exit 2
ARCH="$("$PYTHON" -c 'import cupy; print(cupy.cuda.Device(0).compute_capability)')" || exit 2

# The sources through nvcc, whose warnings NVRTC does not give; then as the launcher compiles them.
for half in 0 1; do
  step "nvcc_half$half" nvcc -std=c++14 -O3 -arch="sm_$ARCH" -cubin -Xptxas -v -DHM_HALF=$half \
    -o "$OUT/decoder_half$half.cubin" kernels/handmesh_kernels/src/decoder.cu
done
step compile "$PYTHON" -m handmesh_kernels.compile --arch "$ARCH" --ptx --out "$OUT/kernels"

if [ ! -f "$OUT/heads/fp16.npz" ]; then  # takes more than torch: see above
  step heads "$PYTHON" -m handmesh_benchmarks.kernels --heads "$OUT/heads"
fi
HEADS=("$OUT/heads/fp32.npz" "$OUT/heads/fp16.npz")
step check "$PYTHON" -m handmesh_kernels.check "${HEADS[@]}" --exact "$OUT/heads/fp32.npz" --binding cupy
if "$PYTHON" -c 'import pycuda.driver' 2>/dev/null; then
  step check_pycuda "$PYTHON" -m handmesh_kernels.check "${HEADS[@]}" --exact "$OUT/heads/fp32.npz" --binding pycuda
else
  echo "PyCUDA is not installed: not checked through it"
fi
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m handmesh_kernels.check \
      "${HEADS[@]}" --exact "$OUT/heads/fp32.npz" --binding cupy --batches 1,17
  done
else
  echo "compute-sanitizer is not installed: not run"
fi

step benchmark "$PYTHON" -m handmesh_benchmarks.kernels --constants "$OUT/heads" \
  --out "$OUT/kernels.json"

if [ -n "${BUNDLE:-}" ]; then
  step verify "$PYTHON" -m handmesh verify "$BUNDLE" --backend cuda
  step predict "$PYTHON" -m handmesh predict examples/photos/open.jpg --bundle "$BUNDLE" --backend cuda --out "$OUT/pictures"
else
  echo; echo "No BUNDLE: the backend was not run end to end"
fi

echo
if [ "${#failed[@]}" -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all passed; $OUT/kernels.json has the figures"
