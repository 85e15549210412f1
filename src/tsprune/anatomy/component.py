"""Components: the parts that can be ablated, their addresses, and patterns that name several.

A pattern is matched part by part, so `*` never crosses a dot.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from tsprune.arguments import shown
from tsprune.errors import TspruneError

Kind = Literal["head", "mlp", "attention", "layer"]
KINDS: tuple[Kind, ...] = ("head", "mlp", "attention", "layer")

DESCRIPTION = ("address", "kind", "stack", "layer", "attention", "head")

_ADDRESS = re.compile(
    r"(?P<stack>[a-z]+)\.(?P<layer>0|[1-9][0-9]*)"
    r"(?:\.(?:(?P<mlp>mlp)|(?!mlp\b)(?P<attention>[a-z]+)(?:\.head\.(?P<head>0|[1-9][0-9]*))?))?"
)


@dataclasses.dataclass(frozen=True)
class Component:
    """A thing that can be ablated, with a stable printable address.

    layer      `decoder.3`              attention sublayers and MLP of one block
    attention  `decoder.3.cross`        one attention sublayer
    head       `decoder.3.cross.head.5`
    mlp        `decoder.3.mlp`
    """

    stack: str
    layer: int
    attention: str | None = None
    head: int | None = None
    mlp: bool = False

    @property
    def kind(self) -> Kind:
        if self.mlp:
            return "mlp"
        if self.head is not None:
            return "head"
        return "attention" if self.attention else "layer"

    @property
    def address(self) -> str:
        sublayer = "mlp" if self.mlp else self.attention
        address = f"{self.stack}.{self.layer}" + (f".{sublayer}" if sublayer else "")
        return address if self.head is None else f"{address}.head.{self.head}"

    @classmethod
    def parse(cls, address: str) -> Component:
        """The component at `address`; TspruneError if it is not an address."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise TspruneError(f"{address!r} is not an address; one looks like decoder.3.cross.head.5")
        head = None if match["head"] is None else int(match["head"])
        return cls(match["stack"], int(match["layer"]), match["attention"], head, match["mlp"] is not None)

    def __str__(self) -> str:
        return self.address


def check_kinds(kinds: Iterable[object]) -> None:
    """Raises TspruneError unless every entry is a kind of component."""
    for kind in kinds:
        if kind not in KINDS:
            raise TspruneError(f"unknown kind {shown(kind)}; one of: {', '.join(KINDS)}")


def described(components: Iterable[Component]) -> dict[str, list[object]]:
    """The columns `DESCRIPTION` of a table with one row per component; None where one does not apply."""
    rows = list(components)
    return {name: [getattr(component, name) for component in rows] for name in DESCRIPTION}


Selection = str | Component | Iterable[str | Component]


def as_patterns(what: Selection) -> Sequence[str]:
    """A selection as addresses and patterns; TspruneError if it is neither."""
    items = [what] if isinstance(what, str | Component) or not isinstance(what, Iterable) else list(what)
    for item in items:
        if not isinstance(item, str | Component):
            raise TspruneError(f"select by addresses, patterns or components, not by {shown(item)}")
    return [str(item) for item in items]


def matches(pattern: str, address: str) -> bool:
    """Whether a pattern names the component at an address.

    >>> matches("decoder.*.mlp", "decoder.3.mlp"), matches("decoder.*", "decoder.3.mlp")
    (True, False)
    """
    wanted, parts = pattern.split("."), address.split(".")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
