"""From what a user names to checkpoint files on disk, without executing anything in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from tsprune.errors import TspruneError

BUNDLED = Path(__file__).parent / "bundled"
WEIGHTS = "model.safetensors"
REMOVAL = "tsprune.json"  # of a pruned checkpoint: see `pruned`
MAX_CONTEXT = "max_context"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint before it is loaded.

    name : what the user asked for
    directory : where its files are
    config : the parsed config.json, {} if there is none
    shapes : shape of every tensor, from the safetensors headers
    metadata : what else the safetensors headers say
    """

    name: str
    directory: Path
    config: Mapping[str, object]
    shapes: Shapes
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def context_length(self, default: int, least: int) -> int:
        """The history to use: `default`, unless the weights' metadata say `max_context`.

        For families whose config.json upstream takes literally, so that no key can be added to it.
        """
        stated = self.metadata.get(MAX_CONTEXT, str(default))
        if not stated.isdecimal() or int(stated) < least:
            raise TspruneError(
                f"{self.name}: {MAX_CONTEXT} in the metadata of the weights must be at least {least}"
            )
        return int(stated)


def bundled_names() -> tuple[str, ...]:
    """Names of the checkpoints that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS}")))


def find(name: str) -> Checkpoint:
    """The checkpoint `name`: `bundled:NAME`, a directory, or a hub id (from the hub or its cache).

    Raises TspruneError if there is none, or if it cannot be read safely.
    """
    directory = _directory(name)
    config = _config(directory)
    shapes, metadata = _headers(directory)
    return Checkpoint(name, directory, config, shapes, metadata)


def _directory(name: str) -> Path:
    if name.startswith("bundled:"):
        wanted = name.removeprefix("bundled:")
        if wanted not in bundled_names():
            raise TspruneError(f"no bundled checkpoint {wanted!r}; there are: {', '.join(bundled_names())}")
        return BUNDLED / wanted
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise TspruneError(f"{name} is a file; name the directory with config.json and {WEIGHTS}")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name)
    raise TspruneError(f"no model {name!r}: neither bundled:NAME, nor a directory, nor a hub id (owner/name)")


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repository, allow_patterns=["config.json", REMOVAL, "*.safetensors", _INDEX])
        )
    except LocalEntryNotFoundError:
        problem = "it is not in the local cache and the hub cannot be reached"
    except HFValidationError:
        problem = "this is not a valid hub id"
    except HfHubHTTPError as error:
        problem = one_line(error)
    except OSError as error:
        problem = f"the hub cannot be reached ({type(error).__name__})"
    raise TspruneError(f"cannot get {repository!r}: {problem}")


def _config(directory: Path) -> Mapping[str, object]:
    path = directory / "config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise TspruneError(f"{path} is not readable JSON ({one_line(error)})") from None
    if not isinstance(config, dict):
        raise TspruneError(f"{path} does not hold a JSON object")
    return config


def weight_files(directory: Path) -> Sequence[Path]:
    """The safetensors files of a checkpoint; TspruneError if there are none."""
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    pickles = [path.name for pattern in _PICKLES for path in directory.glob(pattern)]
    if pickles:
        raise TspruneError(
            f"{directory} holds only {pickles[0]}, a pickle that could execute code; "
            "convert it to model.safetensors first"
        )
    raise TspruneError(f"{directory} holds no checkpoint: there is no {WEIGHTS}")


def _headers(directory: Path) -> tuple[Shapes, Mapping[str, str]]:
    shapes: dict[str, tuple[int, ...]] = {}
    metadata: dict[str, str] = {}
    for path in weight_files(directory):
        try:
            with safe_open(path, framework="pt") as tensors:
                metadata |= tensors.metadata() or {}
                for name in tensors.keys():  # noqa: SIM118  (not a dict)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise TspruneError(f"{path} is damaged or not a safetensors file ({one_line(error)})") from None
    return shapes, metadata


def load_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    weights: dict[str, Tensor] = {}
    for path in weight_files(checkpoint.directory):
        weights |= load_file(path)
    return weights


def one_line(error: Exception, most: int = 200) -> str:
    """What another library's exception says, fit for the one line of a TspruneError."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def checkpoint_sha256(name: str) -> str:
    """SHA-256 over the weight files of the checkpoint `name`; "" if the model is not from a file."""
    try:
        directory = find(name).directory
    except TspruneError:
        return ""
    digest = hashlib.sha256()
    for path in weight_files(directory):
        digest.update(path.read_bytes())
    return digest.hexdigest()
