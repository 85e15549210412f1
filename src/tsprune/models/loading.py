"""From a checkpoint on disk to a Forecaster, the same way for every family, pruned or not.

1. The model that config.json describes is outlined (`skeleton`). Its tensors are compared with those of
   the file: a contradiction is refused before memory is taken.
2. It is built without weights; for a pruned checkpoint, the components in tsprune.json are removed.
3. The weights are read one by one, strictly: none may be missing, left over, or of another shape.
4. A fine-tuned adapter beside them is merged (`adapters`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tsprune.errors import TspruneError, TspruneWarning, one_line
from tsprune.models import adapters, skeleton
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.families import Family
from tsprune.models.forecaster import Forecaster
from tsprune.models.locations import REMOVAL
from tsprune.models.placement import STORED
from tsprune.models.pruned import PruningRecord
from tsprune.models.removal import remove
from tsprune.models.weights import Headers, named, tensors


def opened(family: Family, checkpoint: Checkpoint, record: PruningRecord | None) -> Forecaster:
    """The model of a checkpoint, in float32 on the CPU.

    record : content of tsprune.json; None: the checkpoint is not pruned

    Raises TspruneError if the files contradict each other.
    """
    where = _Place(family, checkpoint, record)
    if record is None:
        where.require_numbers()
    count = len(where.described.shapes)
    where.match(skeleton.outlined(where.build, count))
    model = skeleton.without_weights(where.build, count)
    where.fill(model)
    if checkpoint.adapter is not None:
        adapters.merge(model, checkpoint.adapter)
    if record is not None:
        model.origin = record.origin
    return model


class _Place:
    """The weights of one checkpoint, held against a model.

    name : of the checkpoint and the file that describes its sizes
    described : the checkpoint, or the original of a pruned one
    """

    def __init__(self, family: Family, checkpoint: Checkpoint, record: PruningRecord | None) -> None:
        assert checkpoint.headers is not None
        self._headers: Headers = checkpoint.headers
        self._family, self._record, self._pruned = family, record, record is not None
        self._kind = family.forecaster  # imported before anything is built on the meta device
        self._checkpoint = checkpoint.name
        self.name = f"{checkpoint.name}: {REMOVAL if self._pruned else 'config.json'}"
        self.described = checkpoint
        if record is not None:
            shapes = record.origin.shapes
            self.described = dataclasses.replace(checkpoint, config=record.config, shapes=shapes)

    def build(self) -> Forecaster:
        """The model with upstream's initial weights, without the components that were removed."""
        try:
            model = self._kind.blank(self.described)
            skeleton.require_few_constants(model.saved_module)
        except TspruneWarning:
            raise
        except TspruneError as error:
            raise TspruneError(self.refused(error)) from None
        except Exception as error:  # upstream raises many classes
            raise TspruneError(self.undescribed(error)) from error
        if self._record is None:
            return model
        original = self._record.origin
        shapes = {name: tuple(tensor.shape) for name, tensor in model.module.state_dict().items()}
        if shapes != dict(original.shapes):
            raise TspruneError(f"{self.name} contradicts itself: its shapes are not those of its config")
        try:
            remove(model, model.anatomy.select(original.components))
        except TspruneError as error:
            raise TspruneError(f"{self.name} does not fit its own model ({error})") from None
        return model

    def undescribed(self, error: Exception) -> str:
        detail = one_line(error, 200) or type(error).__name__
        if self._pruned:
            return f"{self.name} does not describe a {self._family.name} model ({detail})"
        return f"{self.name} does not describe a {self._family.title} model of these weights ({detail})"

    def refused(self, error: TspruneError) -> str:
        """The message of a family about impossible values, with the file."""
        if self._pruned:
            return self.undescribed(error)
        return str(error) if self._checkpoint in str(error) else f"{self._checkpoint}: {error}"

    def _disagree(self, problem: str, names: Iterable[str]) -> TspruneError:
        detail = f"{problem}: {named(sorted(names))}"
        if self._pruned:
            return TspruneError(f"{self.name} and the weights disagree ({detail})")
        return TspruneError(
            f"{self.name} and weights disagree; this is no {self._family.title} model ({detail})"
        )

    def require_numbers(self) -> None:
        """No tensor without elements."""
        empty = [name for name, shape in self._headers.shapes.items() if 0 in shape]
        if empty:
            raise self._disagree("without elements", empty)

    def _names(self, model: Forecaster) -> dict[str, str]:
        """Name in the upstream module -> name in the file, for every tensor to be read."""
        module = model.saved_module
        derived = skeleton.constants(module)
        ignored = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
        known = module.state_dict().keys()
        names: dict[str, str] = {}
        for stored in self._headers.shapes:
            name = model.upstream_name(stored)
            if name in known:
                if name in names:
                    raise self._disagree("twice", [stored, names[name]])
                names[name] = stored
            elif name not in derived and not any(re.search(pattern, name) for pattern in ignored):
                names[name] = stored  # unexpected
        return names

    def match(self, model: Forecaster) -> None:
        """TspruneError unless the file holds the model's tensors, all of them and no others."""
        names, shapes, dtypes = self._names(model), self._headers.shapes, self._headers.dtypes
        missing, unlike, types = [], [], []
        for tensor, aliases in skeleton.tied(model.saved_module):
            given = [names.pop(alias) for alias in aliases if alias in names]
            missing += [] if given else [aliases[0]]
            unlike += [name for name in given if shapes[name] != tuple(tensor.shape)]
            types += [
                f"{n} ({dtypes[n]})" for n in given if tensor.is_floating_point() != (dtypes[n] in STORED)
            ]
        for problem, found in (
            ("missing", missing),
            ("of another shape", unlike),
            ("unexpected", list(names.values())),
            ("stored as another type of number", types),
        ):
            if found:
                raise self._disagree(problem, found)

    def fill(self, model: Forecaster) -> None:
        """Puts the weights into a model that has none."""
        module = model.saved_module
        stored_as = {stored: name for name, stored in self._names(model).items()}
        places = {name: (tensor, names) for tensor, names in skeleton.tied(module) for name in names}
        filled: dict[int, tuple[str, Tensor]] = {}
        for stored, given in tensors(self._headers, stored_as):
            tensor, names = places[stored_as[stored]]
            first, before = filled.get(id(tensor), (stored, given))
            if before is not given and not _same(before, given):
                raise TspruneError(
                    f"{self._checkpoint}: {stored} differs from {first}, to which config.json ties it"
                )
            filled[id(tensor)] = (stored, given)
            value = given.to(torch.float32 if given.is_floating_point() else given.dtype, copy=True)
            if isinstance(tensor, nn.Parameter):
                skeleton.put(module, names, nn.Parameter(value, requires_grad=tensor.requires_grad))
            else:
                tensor.copy_(value)
        model.stored = {
            stored_as[name]: STORED[kind]
            for name, kind in self._headers.dtypes.items()
            if name in stored_as and kind in STORED
        }


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN."""
    alike: Any = (one == other) | ((one != one) & (other != other))
    return one.shape == other.shape and bool(alike.all())
