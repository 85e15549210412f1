"""How work is run, as opposed to which work: one frozen object in place of six arguments.

Public functions take these as keywords (`**options: Unpack[Options]`) and hand one `RunOptions` on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from tsprune.arguments import RULES, shown
from tsprune.errors import TspruneError
from tsprune.progress import Progress

BATCH_SIZE = 64
MEMORY = 2 << 30


class Options(TypedDict, total=False):
    """The keywords of `RunOptions`."""

    batch_size: int
    memory: int
    seed: int
    store: Any
    progress: Progress | bool | None


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How work is run.

    batch_size : windows forecast together
    memory : bytes that the records of a clean pass may hold
    seed : of random choices, such as splits and reference windows
    store : a file, or a `tsprune.sweeps.Store`, that keeps the results of sweeps; None keeps nothing
    progress : called with (stage, done, total), or True for a progress bar

    Raises TspruneError for numbers out of range.
    """

    batch_size: int = BATCH_SIZE
    memory: int = MEMORY
    seed: int = 0
    store: Any = None  # the store is defined on a higher floor
    progress: Progress | bool | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "memory", "seed"):
            object.__setattr__(self, name, RULES[name](getattr(self, name)))
        if isinstance(self.store, str):
            object.__setattr__(self, "store", Path(self.store))
        if not (self.progress is None or isinstance(self.progress, bool) or callable(self.progress)):
            raise TspruneError(
                f"progress must be a bool or a function of (stage, done, total), not {shown(self.progress)}"
            )

    def replace(self, **changed: Unpack[Options]) -> RunOptions:
        """These options with some changed."""
        return dataclasses.replace(self, **changed)

    def keywords(self, **changed: Unpack[Options]) -> Options:
        """These options, with some changed, as keywords for a function that takes `Options`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return cast(Options, own | dict(changed))
