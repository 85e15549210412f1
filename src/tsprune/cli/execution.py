"""Running a command: every way it can end is an exit code and at most one line on stderr.

0: done. 1: it ran, and something does not hold or failed (`verify`, cells of a sweep), or whoever read the
output stopped reading. 2: a user's mistake or a fault of the machine, in one line that begins with "error:".
130: stopped with Ctrl-C.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import warnings
from contextlib import suppress
from typing import Any

import typer
from typer.main import get_command

from tsprune.cli.output import err
from tsprune.errors import TspruneError, one_line

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_OUT_OF_MEMORY = "out of memory; try a smaller --batch-size, shorter series or fewer --configs"

# Click's base class, which Typer exports under no name of its own: (BadParameter, UsageError, ClickException)
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


def run_command(app: typer.Typer) -> int:
    """Runs the command of `sys.argv` and returns its exit code; nothing but an error of ours is raised."""
    for stream in (sys.stdout, sys.stderr):  # characters that the terminal's encoding lacks are escaped
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    held: list[str] = []  # printed after the output, so that an error line stands alone
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: held.append(one_line(message, 300))
        code, message = _ended(app)
    if message is not None:
        err.print(one_line(f"error: {message}"), markup=False, highlight=False, soft_wrap=True)
    else:
        for text in dict.fromkeys(held):
            err.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)
    return code


@functools.cache
def _command(app: typer.Typer) -> Any:
    """Every command of `app`; a process that runs several builds them once."""
    return get_command(app)


def _ended(app: typer.Typer) -> tuple[int, object]:
    """(exit code, the message of an error or None) of a command."""
    try:
        result = _command(app)(prog_name="tsprune", standalone_mode=False)  # the code of an Exit is returned
        sys.stdout.flush()
    except TspruneError as error:
        return REFUSED, error
    except (KeyboardInterrupt, typer.Abort):
        return STOPPED, None
    except MemoryError:
        return REFUSED, _OUT_OF_MEMORY
    except OSError as error:
        return _of_system(error)
    except RuntimeError as error:  # of torch's allocators only the GPU's have a class of their own
        if not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        return REFUSED, _OUT_OF_MEMORY
    except _ClickError as error:
        return REFUSED, _of_usage(error)
    return (result if isinstance(result, int) else DONE), None


def _of_system(error: OSError) -> tuple[int, object]:
    """The end of a command by an error of the system: a closed pipe, or a full disk."""
    if error.errno == errno.EPIPE:
        _discard_output()
        return FAILED, None
    if error.filename is None:  # files that this package writes have their own messages
        _discard_output()
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return REFUSED, f"{where}{error.strerror or one_line(error, 200) or type(error).__name__}"


def _of_usage(error: Any) -> object:
    """The mistake in the arguments; the help itself where there are none."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        with suppress(OSError):
            error.show()
        return None
    command = "" if context is None else f"; see {context.command_path} --help"
    return f"{one_line(error.format_message()).rstrip('.')}{command}"


def _discard_output() -> None:
    """Discards the output that is still buffered: Python flushes it once more when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
