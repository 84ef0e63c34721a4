"""Installs advfeat and its experiments: `pip install -e .`."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent


def version() -> str:
    text = (HERE / "advfeat" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("advfeat/__init__.py names no __version__")
    return found.group(1)


def requirements() -> list[str]:
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


NOTEBOOK = ["ipykernel>=6.25", "jupytext>=1.16", "nbclient>=0.9"]
TEST = [
    *NOTEBOOK,
    "beartype>=0.19",
    "hypothesis>=6.100",
    "lime>=0.2",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"]
DEV = [*TEST, "build>=1.0", "mypy>=1.10", "pre-commit>=3.7", "ruff==0.17.*"]

DATA = ["*.html", "*.pyi", "py.typed", "**/*.html", "zoo/*.json", "zoo/*.npz", "data/*.npz"]

setuptools.setup(
    name="advfeat",
    version=version(),
    description="Adversarial examples are features: attacks, robust training and pictures in JAX",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        *setuptools.find_packages(include=["advfeat*"]),
        # In the wheel the experiments are advfeat's own: `python -m advfeat.experiments.NAME`.
        *(f"advfeat.{name}" for name in setuptools.find_packages(include=["experiments*"])),
    ],
    package_dir={"advfeat": "advfeat", "advfeat.experiments": "experiments"},
    package_data={"advfeat": DATA},
    install_requires=requirements(),
    extras_require={
        "test": TEST,
        "dev": DEV,
        "docs": DOCS,
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "peers": [
            "adversarial-robustness-toolbox>=1.20",
            "captum>=0.7",
            "foolbox>=3.3",
            "torch>=2.2",
            "torchattacks>=3.5",
        ],
        "lime": ["lime>=0.2"],
        "notebook": NOTEBOOK,
        "adapters": ["dm-haiku>=0.0.13", "equinox>=0.11"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
