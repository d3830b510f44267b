#!/bin/sh
# Prove a bundle on emulated ARM64: `handmesh verify` under qemu with the aarch64 wheels of the runtimes.
#
#   tests/arm64/verify.sh BUNDLE [FOLDER]
#
# FOLDER (default .arm64) keeps a Debian for arm64 and the wheels, 0.5 GB, for the next time. An
# emulator says nothing about speed.
set -eu

BUNDLE=${1:?usage: tests/arm64/verify.sh BUNDLE [FOLDER]}
FOLDER=${2:-.arm64}
PYTHON=${PYTHON:-python3}
# Of Debian packages; by default what debootstrap knows.
MIRROR=${MIRROR:-}
SUITE=bookworm
# Of the interpreter that this suite has.
PYTHON_VERSION=3.11
# The newest of both runtimes whose wheels do not crash under qemu.
RUNTIMES="onnxruntime==1.26.0 ai-edge-litert==2.1.6"
OTHERS="opencv-python-headless flatbuffers packaging protobuf backports.strenum tqdm typing-extensions"

SDK=$(cd "$(dirname "$0")/../../sdk" && pwd)
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
ROOT=$FOLDER/root

for tool in debootstrap qemu-aarch64-static dpkg; do
    if ! command -v "$tool" > /dev/null; then
        echo "$tool is missing: on Debian or Ubuntu, apt install debootstrap qemu-user-static" >&2
        exit 2
    fi
done

# Each is made under another name, so that what is there is whole.
if [ ! -d "$ROOT" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "debootstrap needs root to make $ROOT: run this once with sudo" >&2
        exit 2
    fi
    rm -rf "$ROOT.partial"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libstdc++6,libgomp1 \
        "$SUITE" "$ROOT.partial" ${MIRROR:+"$MIRROR"}
    # Unpacked, not configured, which would take a kernel that starts ARM programs.
    for package in "$ROOT.partial"/var/cache/apt/archives/*.deb; do
        dpkg -x "$package" "$ROOT.partial"
    done
    mv "$ROOT.partial" "$ROOT"
fi

if [ ! -d "$FOLDER/site" ]; then
    rm -rf "$FOLDER/site.partial" "$FOLDER/wheels"
    # Everything by name: pip would judge what else is needed by the machine it runs on.
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --dest "$FOLDER/wheels" \
        --python-version "$PYTHON_VERSION" --platform manylinux2014_aarch64 \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
        "numpy>=2,<2.4" $RUNTIMES $OTHERS
    for wheel in "$FOLDER"/wheels/*.whl; do
        "$PYTHON" -m zipfile -e "$wheel" "$FOLDER/site.partial"
    done
    mv "$FOLDER/site.partial" "$FOLDER/site"
    rm -rf "$FOLDER/wheels"
fi

PYTHONPATH=$FOLDER/site:$SDK exec qemu-aarch64-static -L "$ROOT" \
    "$ROOT/usr/bin/python$PYTHON_VERSION" -m handmesh verify "$BUNDLE"
