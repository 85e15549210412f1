"""Names of models resolved to folders: bundled, local, or in the hub's cache."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import stat
from pathlib import Path, PurePosixPath

from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.files import status, user_path
from tsprune.models.weights import ADAPTER_WEIGHTS, INDEX, WEIGHTS

BUNDLED = Path(__file__).parent / "bundled"
CONFIG = "config.json"
REMOVAL = "tsprune.json"  # of a pruned checkpoint: see `pruned`
EXPORT = "tsprune-export.json"  # of an exported model: see `tsprune.deployment`
GENERATION = "generation_config.json"
ADAPTER = "adapter_config.json"
# files fetched from a repository; other weights in it are not part of the checkpoint
_FETCHED = (CONFIG, REMOVAL, GENERATION, ADAPTER, ADAPTER_WEIGHTS, WEIGHTS, INDEX, "model-*-of-*.safetensors")
_REVISION = re.compile(r"[\w.+-]+(/[\w.+-]+)*")


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a checkpoint is.

    name : how to find it again, its revision and subfolder included
    """

    name: str
    directory: Path


def bundled_names() -> tuple[str, ...]:
    """Names of the checkpoints that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS}")))


def locate(
    model: str | os.PathLike[str], *, revision: str | None = None, subfolder: str | None = None
) -> Location:
    """The folder of `model`: `bundled:NAME`, a local folder, or a hub id.

    model : a hub id may have a revision and a subfolder: `owner/name@revision:sub/folder`. A path object
        is always a local folder
    revision : branch, tag or commit of a hub id
    subfolder : folder inside a local folder or a repository

    Raises TspruneError if there is no such folder.
    """
    name = os.fsdecode(os.fspath(model))
    inside = None if subfolder is None else _subfolder(subfolder)
    if isinstance(model, str) and name.startswith("bundled:"):
        return _bundled(name, revision, inside)
    if not name.strip():
        raise TspruneError(f"no model {name!r}: name a folder, bundled:NAME or a hub id (owner/name)")
    path = user_path(name)
    found = status(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        return _local(name, path, revision, inside)
    if found is not None:
        raise TspruneError(f"{name} is a file; name the directory with {CONFIG} and {WEIGHTS}")
    if not isinstance(model, str) or not _may_be_hub_id(name):
        raise TspruneError(
            f"no model {shown(name)}: no such folder, and neither bundled:NAME nor a hub id (owner/name)"
        )
    return _in_hub(name, revision, inside)


def _bundled(name: str, revision: str | None, inside: str | None) -> Location:
    wanted = name.removeprefix("bundled:")
    if wanted not in bundled_names():
        raise TspruneError(f"no bundled checkpoint {shown(wanted)}; there are: {', '.join(bundled_names())}")
    if revision is not None or inside is not None:
        raise TspruneError(f"{name} has neither revisions nor subfolders; leave them out")
    return Location(name, BUNDLED / wanted)


def _local(name: str, path: Path, revision: str | None, inside: str | None) -> Location:
    if revision is not None:
        raise TspruneError(f"{name} is a local folder, which has no revision; leave it out")
    if inside is None:
        return Location(name, path)
    if not (path / inside).is_dir():
        raise TspruneError(f"no folder {shown(inside)} in {name}")
    return Location(str(Path(name) / inside), path / inside)


def _subfolder(stated: object) -> str:
    if not isinstance(stated, str | os.PathLike):
        raise TspruneError(f"subfolder must be the name of a folder, not {shown(stated)}")
    text = os.fsdecode(os.fspath(stated))
    pure = PurePosixPath(text)
    if not text.strip() or pure.is_absolute() or ".." in pure.parts or "\\" in text or "\0" in text:
        raise TspruneError(f"subfolder must be a folder inside of the model's, not {shown(text)}")
    user_path(text)
    return str(pure)


def _may_be_hub_id(name: str) -> bool:
    identifier = re.split("[@:]", name, maxsplit=1)[0]
    return identifier.count("/") == 1 and not name.startswith((".", "/", "~")) and "\\" not in name


def _in_hub(name: str, revision: str | None, inside: str | None) -> Location:
    repository, _, rest = name.partition(":")
    repository, _, stated = repository.partition("@")
    if stated and revision is not None and stated != revision:
        raise TspruneError(f"{name} and revision={shown(revision)} are different revisions; name one")
    wanted = stated or revision
    if wanted is not None and (
        not isinstance(wanted, str) or len(wanted) > 200 or not _REVISION.fullmatch(wanted) or ".." in wanted
    ):
        raise TspruneError(f"revision must be a branch, tag or commit, not {shown(wanted)}")
    inside = _subfolder(rest) if rest and inside is None else inside
    directory = _snapshot(repository, wanted, inside)
    full = repository + (f"@{wanted}" if wanted else "") + (f":{inside}" if inside else "")
    if inside is not None:
        directory = directory / inside
        if not directory.is_dir():
            raise TspruneError(f"{repository} has no folder {shown(inside)}")
    return Location(full, directory)


def _snapshot(repository: str, revision: str | None, inside: str | None) -> Path:
    """The folder of a repository in the hub's cache, downloaded if need be."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # where its first half is a folder here, it is most likely a path: nothing is asked of the network
    a_path = Path(repository.partition("/")[0]).is_dir()
    prefix = "" if inside is None else f"{glob.escape(inside)}/"
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[prefix + pattern for pattern in _FETCHED],
                local_files_only=a_path or constants.is_offline_mode(),
            )
        )
    except LocalEntryNotFoundError:
        problem = "it is not in the local cache of the hub"
        if not a_path:
            problem += " and the hub cannot be reached"
    except HFValidationError:
        problem = "this is not a valid hub id"
    except HfHubHTTPError as error:
        problem = f"the hub answers: {one_line(error, 200)}"
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"the hub cannot be reached ({type(error).__name__})"
    at = "" if revision is None else f" at revision {revision}"
    raise TspruneError(f"no such folder {shown(repository)}, and no hub model of that id{at}: {problem}")
