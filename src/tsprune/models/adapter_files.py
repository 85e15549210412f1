"""The files of a fine-tuned adapter such as LoRA, beside the weights it belongs to or apart from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsprune.arguments import shown
from tsprune.errors import TspruneError
from tsprune.models.documents import MOST_CONFIG_BYTES, read_object
from tsprune.models.locations import ADAPTER, Location, locate
from tsprune.models.weights import ADAPTER_WEIGHTS, INDEX, Headers, file_headers

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
    config = read_object(directory / ADAPTER, ADAPTER, MOST_CONFIG_BYTES)
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
    try:
        base = _located(adapter.directory, stated, revision)
    except TspruneError as error:
        raise TspruneError(f"the base of the adapter in {place.name} cannot be found ({error})") from None
    if not _holds_weights(base.directory) and read_adapter(base.directory) is not None:
        raise TspruneError(
            f"the base of the adapter in {place.name} is itself an adapter ({shown(stated)}); merge it first"
        )
    return base


def _located(directory: Path, stated: str, revision: object) -> Location:
    beside = directory / stated
    if not os.path.isdir(stated) and os.path.isdir(beside):
        return Location(str(beside), beside)
    local = stated.startswith("bundled:") or os.path.isdir(stated)
    return locate(stated, revision=None if local or not isinstance(revision, str) else revision)


def _holds_weights(directory: Path) -> bool:
    return any(
        name == INDEX or (name.endswith(".safetensors") and name != ADAPTER_WEIGHTS)
        for name in os.listdir(directory)
    )
