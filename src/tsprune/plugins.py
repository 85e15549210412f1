"""Registries of named things: those of this package, and those that installed packages add.

A package adds to a registry by an entry point in its pyproject.toml, which every process of the same
environment sees, workers included:

    [project.entry-points."tsprune.scores"]
    my_score = "my_package.scores:MY_SCORE"
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar

from tsprune.arguments import shown
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.lazy import importing


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T], Generic[T]):
    """Things of one class by name: the built-in ones in their order, then those of entry points.

    Entry points are read when the registry is first looked at. One that cannot be imported, or holds
    something else, is left out with a warning, so that a broken package does not stop the others.
    """

    def __init__(self, group: str, kind: type[T], builtin: Iterable[T], *, noun: str) -> None:
        self.group = group
        self.noun = noun
        self._kind = kind
        self._builtin = tuple(builtin)

    @functools.cached_property
    def _items(self) -> dict[str, T]:
        items = {item.name: item for item in self._builtin}
        for entry in entry_points(group=self.group):
            for item in self._loaded(entry):
                if items.setdefault(item.name, item) is not item:
                    self._warn(entry, f"its name {shown(item.name)} is taken")
        return items

    def _loaded(self, entry: EntryPoint) -> tuple[T, ...]:
        try:
            with importing():
                value = entry.load()
        except Exception as error:  # whatever a foreign package raises
            self._warn(entry, f"{type(error).__name__}: {error}")
            return ()
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, self._kind) for item in items):
            self._warn(entry, f"not a {self._kind.__name__}")
            return ()
        return items

    def _warn(self, entry: EntryPoint, reason: str) -> None:
        warnings.warn(TspruneWarning(f"{entry.value} ({self.group}) is left out: {reason}"), stacklevel=2)

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def named(self, name: object) -> T:
        """The entry with this name; TspruneError, with the names that exist, if there is none."""
        item = self._items.get(name) if isinstance(name, str) else None
        if item is None:
            raise TspruneError(f"unknown {self.noun} {shown(name)}; one of: {', '.join(self)}")
        return item
