"""Freed memory is kept where the command line says so, and only there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
{first}
def work():
    for _ in range(20):
        np.ones(8 * 2**20)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from tsprune.cost.allocator import keep_freed_memory\nkeep_freed_memory()"
OWN = "MALLOC_", "GLIBC_TUNABLES"

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is about glibc's allocator")


def faults(first: str, **more: str) -> int:
    """Pages that a new process has to be given for memory that it had before."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"  # else the pages are as large as the system has them
    program = [sys.executable, "-c", FAULTS.format(first=first)]
    done = subprocess.run(program, env=environment | more, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    assert faults(KEEP) < 1000 < faults("import tsprune")


def test_what_the_user_set_is_left_alone() -> None:
    assert faults(KEEP, MALLOC_ARENA_MAX="2") > 1000


def test_the_command_line_keeps_it() -> None:
    quiet = "import sys\nfrom tsprune.cli import main\nsys.argv = ['tsprune', '--help']\n"
    run = quiet + "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
    assert faults(run + "    try: main()\n    except SystemExit: pass") < 1000
