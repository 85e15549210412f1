"""A checkpoint before it is loaded: its files found and their headers read, nothing executed.

Among them are those of a fine-tuned adapter such as LoRA, beside the weights it belongs to or apart.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsprune.arguments import shown
from tsprune.errors import TspruneError
from tsprune.files import CONFIG_BYTES, read_object
from tsprune.models import weights
from tsprune.models.locations import (
    ADAPTER,
    BUNDLED,
    CONFIG,
    EXPORT,
    GENERATION,
    REMOVAL,
    Location,
    bundled_names,
    locate,
)
from tsprune.models.stated import Requirement, known_only, mapping, require
from tsprune.models.weights import ADAPTER_WEIGHTS, INDEX, WEIGHTS, Headers, Shapes, file_headers

__all__ = ["BUNDLED", "REMOVAL", "WEIGHTS", "Checkpoint", "Shapes", "bundled_names", "find"]

MAX_CONTEXT = "max_context"
_PICKLE = "adapter_model.bin"


@dataclasses.dataclass(frozen=True)
class AdapterFiles:
    """An adapter before it is merged.

    config : the parsed adapter_config.json
    headers : of its weights
    """

    directory: Path
    config: Mapping[str, Any]
    headers: Headers

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, besides the base, that determine the merged weights."""
        return (self.directory / ADAPTER, self.directory / ADAPTER_WEIGHTS)


def read_adapter(directory: Path) -> AdapterFiles | None:
    """The adapter in a folder, None if there is none.

    Raises TspruneError for one that is incomplete, damaged, or a pickle.
    """
    there = {name for name in (ADAPTER, ADAPTER_WEIGHTS, _PICKLE) if os.path.lexists(directory / name)}
    if not there:
        return None
    if ADAPTER_WEIGHTS not in there:
        if _PICKLE in there:
            raise TspruneError(
                f"{directory} holds the adapter {_PICKLE}, a pickle that could execute code; "
                f"convert it to {ADAPTER_WEIGHTS} first"
            )
        raise TspruneError(f"the adapter in {directory} is incomplete: {ADAPTER_WEIGHTS} is missing")
    if ADAPTER not in there:
        raise TspruneError(f"the adapter in {directory} is incomplete: {ADAPTER} is missing")
    config = read_object(directory / ADAPTER, ADAPTER, CONFIG_BYTES)
    headers = file_headers(directory / ADAPTER_WEIGHTS)
    return AdapterFiles(directory, config, headers)


def base_of(adapter: AdapterFiles, place: Location) -> Location:
    """Where the weights are that an adapter belongs to.

    The folder of the adapter if it holds weights, else the base in adapter_config.json: `bundled:NAME`, a
    folder (also one relative to the adapter's) or a hub id.

    place : of the adapter
    """
    if _holds_weights(adapter.directory):
        return place
    stated, revision = (adapter.config.get(key) for key in ("base_model_name_or_path", "revision"))
    if not isinstance(stated, str) or not stated.strip():
        raise TspruneError(
            f"the adapter in {place.name} names no base; put it into the folder of the base's weights"
        )
    beside, local = adapter.directory / stated, os.path.isdir(stated)
    if local or stated.startswith("bundled:") or not isinstance(revision, str):
        revision = None
    try:
        relative = not local and os.path.isdir(beside)
        base = Location(str(beside), beside) if relative else locate(stated, revision=revision)
    except TspruneError as error:
        raise TspruneError(f"the base of the adapter in {place.name} cannot be found ({error})") from None
    if not _holds_weights(base.directory) and read_adapter(base.directory) is not None:
        raise TspruneError(
            f"the base of the adapter in {place.name} is itself an adapter ({shown(stated)}); merge it first"
        )
    return base


def _holds_weights(directory: Path) -> bool:
    return any(
        name == INDEX or (name.endswith(".safetensors") and name != ADAPTER_WEIGHTS)
        for name in os.listdir(directory)
    )


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
            require({key: self.config.get(key)}, {key: mapping}, CONFIG)
            where, stated = f"{key} in {CONFIG}", self.config[key]
        found = known_only(stated, rules, f"{self.name}: {where}")
        require(found, rules, where, required=required)
        return found

    @property
    def sha256(self) -> str:
        """SHA-256 over the weight files, those of the adapter included, hexadecimal."""
        files = weights.weight_map(self.directory)
        return weights.sha256([*files, *(self.adapter.files if self.adapter else ())])


def find(
    model: str | os.PathLike[str], *, revision: str | None = None, subfolder: str | None = None
) -> Checkpoint:
    """The checkpoint `model`: `bundled:NAME`, a directory, or a hub id (from the hub or its cache).

    model, revision, subfolder : as `tsprune.models.locations.locate` takes them

    Raises TspruneError if there is none, or if it cannot be read safely.
    """
    place = locate(model, revision=revision, subfolder=subfolder)
    if os.path.lexists(place.directory / EXPORT):
        raise TspruneError(
            f"{place.name} is an exported model, without components; name the model it was exported from "
            "(tsprune.load_exported loads it, to forecast and to evaluate)"
        )
    adapter = read_adapter(place.directory)
    directory = (place if adapter is None else base_of(adapter, place)).directory
    config, generation = (
        read_object(directory / name, name, CONFIG_BYTES) if os.path.lexists(directory / name) else {}
        for name in (CONFIG, GENERATION)
    )
    headers = weights.read_headers(directory)
    found = directory, config, headers.shapes, headers.metadata, headers, generation
    return Checkpoint(place.name, *found, adapter)


def checkpoint_sha256(name: str) -> str:
    """SHA-256 over the weight files of the checkpoint `name`; "" if the model is not from a file."""
    try:
        return find(name).sha256
    except TspruneError:
        return ""
