#!/bin/sh
# Prove a bundle's TFLite artifact in tflite-runtime 2.14.0, the last one, which is what many boards have.
#
#   tests/tflite_runtime/verify.sh BUNDLE [FOLDER]
#
# It was built against NumPy 1, so it gets an environment of its own, FOLDER (default .tflite-runtime),
# with what the SDK needs and without ONNX Runtime, kept for the next time.
set -eu

BUNDLE=${1:?usage: tests/tflite_runtime/verify.sh BUNDLE [FOLDER]}
FOLDER=${2:-.tflite-runtime}
PYTHON=${PYTHON:-python3}
SDK=$(cd "$(dirname "$0")/../../sdk" && pwd)

# Its wheels are of these interpreters; NumPy 1.26 asks for 3.9 too.
"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' || {
    echo "tflite-runtime 2.14.0 is for Python up to 3.11, handmesh for 3.10 and newer: set PYTHON=python3.11" >&2
    exit 2
}

if [ ! -d "$FOLDER/venv" ]; then
    rm -rf "$FOLDER/venv.partial"
    mkdir -p "$FOLDER"
    "$PYTHON" -m venv "$FOLDER/venv.partial"
    # Newer OpenCV asks for NumPy 2.
    "$FOLDER/venv.partial/bin/python" -m pip --disable-pip-version-check install --quiet \
        "tflite-runtime==2.14.0" "numpy==1.26.4" "opencv-python-headless==4.11.0.86" "tqdm>=4.66"
    mv "$FOLDER/venv.partial" "$FOLDER/venv"
fi

PYTHONPATH=$SDK exec "$FOLDER/venv/bin/python" -m handmesh verify "$BUNDLE" --backend tflite \
    --threads 1
