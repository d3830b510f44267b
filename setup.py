"""Packaging of handmesh: one distribution, five packages, each in a top-level folder of its own.

The base install is what an app needs to run the shipped model: NumPy, OpenCV and ONNX Runtime, and
tqdm for the command's progress.
Everything else is an extra. `constraints.txt` holds the versions that are tested together.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Import name -> the folder that holds it. The folders themselves are not packages, so nothing
# generic such as `training` or `kernels` lands in site-packages.
PACKAGE_ROOTS = {
    "handmesh": "sdk",
    "handmesh_training": "training",
    "handmesh_converters": "converters",
    "handmesh_kernels": "kernels",
    "handmesh_benchmarks": "benchmarks",
}

BASE = [
    "numpy>=2,<2.4",
    "opencv-python-headless>=4.13",  # from there on WebP files are turned as their EXIF says
    "onnxruntime>=1.20",
    "tqdm>=4.66",
]
# One extra for each runtime. `onnx` comes with the base; the extra is there so that every backend
# has one of its name.
ONNX = ["onnxruntime>=1.20"]
TFLITE = ["ai-edge-litert>=2.1"]
# Core ML takes a picture as a PIL image, and coremltools does not ask for Pillow itself.
COREML = ["coremltools>=9.0", "pillow>=10"]
TORCH = ["torch>=2.6", "safetensors>=0.4"]
# PyCUDA serves as well where it was built; docs/jetson.md. ONNX Runtime for GPUs takes the place of
# the base's onnxruntime, which no extra can say.
CUDA = ["cupy-cuda12x>=13"]
COMPLETION = ["shtab>=1.13"]
ONNX_EXPORT = [*TORCH, "onnx>=1.18", "onnxscript>=0.5", "onnxsim>=0.4.36"]
TFLITE_EXPORT = [*TORCH, *TFLITE, "litert-torch>=0.10", "ai-edge-quantizer>=0.10"]
CONVERTERS = [*ONNX_EXPORT, *TFLITE_EXPORT, *COREML]
TRAINING = [
    *TORCH,
    "anny>=0.6.2",
    "matplotlib>=3.9",
    "scipy>=1.14",
    "tensorboard>=2.17",
]
BENCH = [*ONNX_EXPORT, "pytest>=8", "pytest-benchmark>=5"]
DEV = [
    *ONNX_EXPORT,
    *COREML,
    *TFLITE_EXPORT,
    *COMPLETION,
    "hypothesis>=6.100",
    "jsonschema>=4.20",
    "matplotlib>=3.9",
    "mypy>=1.13",
    "pdoc>=15",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "scipy>=1.14",
    "tensorboard>=2.17",
    "trimesh>=4.4",
    "webdataset>=1.0",
]


def version() -> str:
    """The version that `handmesh.__version__` states, read without importing the package."""
    source = (ROOT / "sdk" / "handmesh" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('sdk/handmesh/__init__.py has no line `__version__ = "..."`')
    return match.group(1)


def packages() -> tuple[list[str], dict[str, str]]:
    """Every package with its sub-packages, and the folder of each top-level one."""
    names: list[str] = []
    folders: dict[str, str] = {}
    for name, folder in PACKAGE_ROOTS.items():
        names += find_packages(where=str(ROOT / folder), include=[name, f"{name}.*"])
        folders[name] = f"{folder}/{name}"
    return names, folders


PACKAGES, PACKAGE_DIR = packages()

setup(
    name="handmesh",
    version=version(),
    description="A 3D hand mesh from one RGB photo, on phones, boards, browsers and laptops",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    packages=PACKAGES,
    package_dir=PACKAGE_DIR,
    package_data={
        "handmesh": ["py.typed", "assets/*", "bundles/**/*"],
        "handmesh_training": [
            "py.typed",
            "assets/*",
            "rendering/*.cpp",
            "rendering/*.cu",
            "rendering/*.h",
        ],
        "handmesh_converters": ["py.typed"],
        "handmesh_kernels": ["py.typed", "src/*.cu", "src/*.h"],
        "handmesh_benchmarks": ["py.typed", "*.json"],
    },
    include_package_data=False,
    zip_safe=False,
    install_requires=BASE,
    extras_require={
        "onnx": ONNX,
        "tflite": TFLITE,
        "coreml": COREML,
        "torch": TORCH,
        "completion": COMPLETION,
        "converters": sorted(set(CONVERTERS)),
        "training": TRAINING,
        "cuda": CUDA,
        "bench": BENCH,
        "dev": sorted(set(DEV)),
        # Not cuda: its wheel must match the machine's driver, so it is asked for by name.
        "all": sorted({*CONVERTERS, *TRAINING, *BENCH, *DEV}),
    },
    entry_points={
        "console_scripts": ["handmesh = handmesh.cli:main"],
        # One entry a package: its `add_commands` adds all of the package's sub-commands.
        "handmesh.commands": [
            "training = handmesh_training.cli:add_commands",
            "converters = handmesh_converters.cli:add_commands",
            "benchmarks = handmesh_benchmarks.cli:add_commands",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
