"""What is needed to tell two runs of a study apart: versions, hashes, seeds, arguments."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.checkpoints import find, weight_files

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


def checkpoint_sha256(name: str) -> str:
    """SHA-256 over the weight files of the checkpoint `name`; "" if the model is not from a file."""
    try:
        directory: Path = find(name).directory
    except TspruneError:
        return ""
    digest = hashlib.sha256()
    for path in weight_files(directory):
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
