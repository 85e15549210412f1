"""What is needed to tell two runs of a study apart: versions, hashes, seeds, arguments."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from tsprune.data.suite import Suite

PACKAGES = (
    "tsprune",
    "torch",
    "numpy",
    "scipy",
    "transformers",
    "chronos-forecasting",
    "timesfm",
    "timecopilot-toto",
    "timecopilot-uni2ts",
    "gluonts",
)


def manifest(suite: Suite, checkpoints: dict[str, str], arguments: dict[str, object]) -> dict[str, object]:
    """The manifest of a study, ready for JSON."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        "checkpoints": checkpoints,
        "suite": {"name": suite.name, "windows": len(suite), "fingerprint": suite.fingerprint},
        "arguments": arguments,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
