"""A checkpoint before it is loaded: its files found and their headers read, nothing executed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsprune.errors import TspruneError
from tsprune.models import weights
from tsprune.models.adapter_files import AdapterFiles, base_of, read_adapter
from tsprune.models.documents import MOST_CONFIG_BYTES, read_if_there
from tsprune.models.locations import BUNDLED, CONFIG, GENERATION, REMOVAL, Location, bundled_names, locate
from tsprune.models.stated import Requirement, check, known_only, mapping
from tsprune.models.weights import WEIGHTS, Headers, Shapes

__all__ = ["BUNDLED", "REMOVAL", "WEIGHTS", "Checkpoint", "Shapes", "bundled_names", "find"]

MAX_CONTEXT = "max_context"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint before it is loaded.

    name : how `tsprune.load` finds it again
    directory : where its weights are
    config : the parsed config.json, {} if there is none
    shapes : shape of every tensor, from the safetensors headers
    metadata : free text in the safetensors headers
    headers : all that the headers state; None of a checkpoint that has no files
    generation : the parsed generation_config.json, {} if there is none
    adapter : the fine-tuned adapter to be merged, if there is one
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    shapes: Shapes
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headers: Headers | None = None
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapter: AdapterFiles | None = None

    def context_length(self, default: int, least: int) -> int:
        """The history to use: `default`, unless the weights' metadata state `max_context`.

        For families whose config.json upstream takes literally, so that no key can be added to it.
        """
        stated = self.metadata.get(MAX_CONTEXT, str(default))
        digits = stated.isascii() and stated.isdecimal() and len(stated) < 10
        if not digits or int(stated) < least:
            raise TspruneError(
                f"{self.name}: {MAX_CONTEXT} in the metadata of the weights must be at least {least}"
            )
        return int(stated)

    def settings(
        self, rules: Mapping[str, Requirement], *, key: str | None = None, required: bool = False
    ) -> dict[str, Any]:
        """The values of config.json that `rules` know, checked; warns of the others, which are left out.

        key : of an object in config.json that holds them; None: they are at the top
        required : whether every one must be there

        Raises TspruneError that names the first value that breaks its rule.
        """
        where, stated = CONFIG, self.config
        if key is not None:
            check({key: self.config.get(key)}, {key: mapping}, CONFIG)
            where, stated = f"{key} in {CONFIG}", self.config[key]
        found = known_only(stated, rules, f"{self.name}: {where}")
        check(found, rules, where, required=required)
        return found

    @property
    def sha256(self) -> str:
        """SHA-256 over the weight files, those of the adapter included, hexadecimal."""
        files = list(weights.weight_files(self.directory))
        return weights.sha256([*files, *(self.adapter.files if self.adapter else ())])


def find(
    model: str | os.PathLike[str], *, revision: str | None = None, subfolder: str | None = None
) -> Checkpoint:
    """The checkpoint `model`: `bundled:NAME`, a directory, or a hub id (from the hub or its cache).

    model, revision, subfolder : as `tsprune.models.locations.locate` takes them

    Raises TspruneError if there is none, or if it cannot be read safely.
    """
    place = locate(model, revision=revision, subfolder=subfolder)
    adapter = read_adapter(place.directory)
    base = place if adapter is None else base_of(adapter, place)
    return _read(place.name, base, adapter)


def _read(name: str, place: Location, adapter: AdapterFiles | None) -> Checkpoint:
    directory = place.directory
    config = read_if_there(directory / CONFIG, "config.json", MOST_CONFIG_BYTES)
    generation = read_if_there(directory / GENERATION, "generation_config.json", MOST_CONFIG_BYTES)
    headers = weights.read_headers(directory)
    return Checkpoint(
        name, directory, config or {}, headers.shapes, headers.metadata, headers, generation or {}, adapter
    )


def checkpoint_sha256(name: str) -> str:
    """SHA-256 over the weight files of the checkpoint `name`; "" if the model is not from a file."""
    try:
        return find(name).sha256
    except TspruneError:
        return ""
