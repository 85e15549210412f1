"""Optional packages of tsprune, and the command that installs them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires


def install(extra: str) -> str:
    """The command that installs the packages of one extra, wherever tsprune itself came from.

    >>> install("toto")
    'pip install "timecopilot-toto>=0.1.7"'
    """
    try:
        stated = requires("tsprune") or []
    except PackageNotFoundError:  # imported from a checkout that is not installed
        stated = []
    needed = [line.split(";")[0].strip() for line in stated if line.endswith(f'extra == "{extra}"')]
    packages = " ".join(f'"{name}"' for name in needed) or f'".[{extra}]"'
    return f"pip install {packages}"
