"""A plan: the components to remove from a model, and how they were chosen."""

from __future__ import annotations

import dataclasses
import html
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsprune.anatomy import Anatomy, Component, Selection, described
from tsprune.atomic import write_whole
from tsprune.errors import TspruneError
from tsprune.files import parse_json, read_text
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster
from tsprune.text import count

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
_ROWS = 12  # of a plan in a notebook


@dataclasses.dataclass(frozen=True, repr=False)
class Plan:
    """Components to remove, by their addresses in the original model.

    model : name of the model it was made for, as `tsprune.load` takes it
    family : e.g. "chronos-bolt"
    components : components to remove, in order of execution
    checkpoint : SHA-256 of that model's weight files; "" allows any checkpoint with these components
    provenance : how it was chosen, anything that JSON can hold
    """

    model: str
    family: str
    components: tuple[Component, ...]
    checkpoint: str = ""
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model: Forecaster, components: Selection, **provenance: Any) -> Plan:
        """A plan to remove `components` (addresses, glob patterns or components) from `model`.

        >>> import tsprune
        >>> plan = tsprune.Plan.of(tsprune.load("bundled:timesfm"), "stack.2.mlp", chosen="by hand")
        >>> [component.address for component in plan.components]
        ['stack.2.mlp']
        """
        name, checkpoint = identity(model)
        return cls(name, model.family, model.anatomy.select(components), checkpoint, provenance)

    def __repr__(self) -> str:
        every, how = count(len(self.components), "component"), self.provenance
        parts = [self.model, f"{every}{': ' if self.components else ''}{self.removed}"]
        if isinstance(saved := how.get("expected_saving"), float):
            parts.append(f"saves {100 * saved:.1f} % of {how.get('objective')}")
        if isinstance(loss := how.get("loss_on_calibration"), float):
            parts.append(f"{how.get('metric')} {100 * loss:+.2f} % on the calibration series")
        return f"Plan({', '.join(parts)})"

    @property
    def removed(self) -> str:
        """The kinds of its components with their numbers, such as "3 heads, 1 mlp"."""
        kinds = Counter(component.kind for component in self.components)
        return ", ".join(count(number, kind) for kind, number in kinds.items())

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.frame.to_html(index=False, max_rows=_ROWS)}"

    @property
    def frame(self) -> pd.DataFrame:
        """One row per component: address, kind, stack, layer, attention, head."""
        import pandas as pd

        return pd.DataFrame(described(self.components))

    def check(self, model: Forecaster) -> None:
        """TspruneError unless this plan is for `model` and all its components are there."""
        name, checkpoint = identity(model)
        if self.family != model.family:
            raise TspruneError(f"the plan is for a {self.family} model ({self.model}), not for {name}")
        if self.checkpoint and checkpoint and self.checkpoint != checkpoint:
            raise TspruneError(
                f"the plan is for the weights of {self.model}, which are not those of {name}; "
                'set its "checkpoint" to "" to use it all the same'
            )
        self.fit(model.anatomy)

    def fit(self, anatomy: Anatomy) -> tuple[Component, ...]:
        """The components; TspruneError names the first that `anatomy` does not have."""
        return anatomy.select(self.components)

    def to_json(self) -> str:
        """Readable JSON, with a line for each component."""
        content = {
            "version": _VERSION,
            "model": self.model,
            "family": self.family,
            "checkpoint": self.checkpoint,
            "components": [component.address for component in self.components],
            "provenance": dict(self.provenance),
        }
        return json.dumps(content, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote; TspruneError if `text` is not one."""
        try:
            stated = parse_json(text)
            if not isinstance(stated, dict):
                raise TypeError("not a JSON object")
            if stated["version"] != _VERSION:
                raise TspruneError(
                    f"the plan has version {stated['version']!r}; this tsprune reads {_VERSION}"
                )
            if not isinstance(stated["components"], list):
                raise TypeError("components is not a list")
            for name in ("model", "family", "checkpoint"):
                if not isinstance(stated.get(name, ""), str):
                    raise TypeError(f"{name} is not text")
            return cls(
                model=stated["model"],
                family=stated["family"],
                components=tuple(Component.parse(str(address)) for address in stated["components"]),
                checkpoint=stated.get("checkpoint", ""),
                provenance=dict(stated.get("provenance", {})),
            )
        except (ValueError, TypeError, KeyError) as error:
            detail = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise TspruneError(f"not a plan ({detail})") from None

    def save(self, path: str | Path) -> None:
        """Writes the plan to a file, whole or not at all."""
        write_whole(path, (self.to_json() + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan from a file; TspruneError if it cannot be read or is not a plan."""
        text = read_text(path, "plan")
        try:
            return cls.from_json(text)
        except TspruneError as error:
            raise TspruneError(f"{path}: {error}") from None


def identity(model: Forecaster) -> tuple[str, str]:
    """(name, SHA-256 of the weight files) of the original model that `model` is or was pruned from."""
    if model.origin is not None:
        return model.origin.name, model.origin.sha256
    return model.name, checkpoint_sha256(model.name)
