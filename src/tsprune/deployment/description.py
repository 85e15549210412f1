"""The folder of an exported model: its files, and tsprune-export.json, which describes them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsprune.choices import EXPORT_FORMATS, EXPORT_PRECISIONS, TORCH_EXPORT
from tsprune.deployment.graph_sessions import OPENVINO_SUFFIX
from tsprune.deployment.program_format import PROGRAM_SUFFIX
from tsprune.errors import TspruneError
from tsprune.files import read_object, user_path
from tsprune.models.locations import EXPORT
from tsprune.models.sampled_paths import sampling_of

GRAPH = "model.onnx"
STEP = "step.onnx"  # of a model that draws paths step by step, whose GRAPH is that of the history
SELF_TEST = "selftest.safetensors"
_FORMAT = 1
_SUFFIXES = {"openvino": OPENVINO_SUFFIX, TORCH_EXPORT: PROGRAM_SUFFIX}  # in place of GRAPH's and STEP's


@dataclasses.dataclass(frozen=True)
class Description:
    """What a program must know to forecast with an exported graph.

    name, family : of the model that was exported
    precision : of the weights of products: one of `EXPORT_PRECISIONS`
    horizon : the most steps that it forecasts
    context_length : history longer than this is cut off in front
    span : of which the length of a batch is a multiple
    future_span : steps of each number of the second input, which says how many to forecast; 0: there is none
    fills_gaps : whether a gap at the beginning of the history is filled from the values before it
    marks_padding : whether steps before the history begins are infinite in a batch; else they are missing
    levels : quantile levels, ascending
    parameters : of the model
    removed : addresses of the components that pruning removed from the original
    original : the model that it was pruned from; "" if it was not
    distance : of the graph's quantiles from the model's, relative to the largest, in the self-test
    kept_fp32 : graph nodes that int8 left in fp32
    loss : of int8 and bf16, against fp32 on windows: the larger relative change of MASE and CRPS
    files : SHA-256 of each other file, by its name
    made_with : versions of the packages
    sampling : of a model that draws paths, the fields of its `PathSampling`; None: it forecasts in one pass
    graph_format : one of `EXPORT_FORMATS`
    """

    name: str
    family: str
    precision: str
    horizon: int
    context_length: int
    span: int
    future_span: int
    fills_gaps: bool
    levels: tuple[float, ...]
    parameters: int
    distance: float
    removed: tuple[str, ...] = ()
    original: str = ""
    kept_fp32: tuple[str, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    made_with: Mapping[str, str] = dataclasses.field(default_factory=dict)
    marks_padding: bool = False
    sampling: Mapping[str, Any] | None = None
    graph_format: str = EXPORT_FORMATS[0]
    loss: float | None = None

    @property
    def graph(self) -> str:
        """The name of the graph's file."""
        return self._file(GRAPH)

    @property
    def step(self) -> str:
        """The name of the file with the graph of one step, of a model that draws paths step by step."""
        return self._file(STEP)

    def _file(self, name: str) -> str:
        suffix = _SUFFIXES.get(self.graph_format)
        return name if suffix is None else str(Path(name).with_suffix(suffix))

    def as_object(self) -> dict[str, Any]:
        """The content of tsprune-export.json."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}


def is_export(path: object) -> bool:
    """Whether a folder holds an exported model; False for anything that is no path of one."""
    try:
        return (user_path(path) / EXPORT).is_file()  # type: ignore[arg-type]
    except (TspruneError, OSError, ValueError, TypeError):
        return False


def read_description(folder: Path) -> Description:
    """The checked description of a folder; TspruneError in one line if it is none, or damaged."""
    if not (folder / EXPORT).is_file():
        raise TspruneError(f"{folder} holds no exported model (no {EXPORT}); tsprune export writes one")
    stated = read_object(folder / EXPORT, EXPORT)
    if stated.get("format") != _FORMAT:
        raise TspruneError(f"{folder}: {EXPORT} has another format than {_FORMAT}; update tsprune")
    names = {field.name for field in dataclasses.fields(Description)}
    try:
        found = Description(**{key: value for key, value in stated.items() if key in names})
        found = dataclasses.replace(
            found,
            levels=tuple(found.levels),
            removed=tuple(found.removed),
            kept_fp32=tuple(found.kept_fp32),
            files=dict(found.files),
        )
        if found.sampling is not None:
            sampling_of(found.sampling)
        problem = _problem(found)
    except (TypeError, ValueError) as error:
        raise TspruneError(f"{folder}: {EXPORT} is damaged ({error})") from None
    if problem:
        raise TspruneError(f"{folder}: {EXPORT} is damaged ({problem})")
    return found


def _problem(found: Description) -> str | None:
    """The first statement that cannot be true, None if all can."""
    counts = {name: getattr(found, name) for name in ("horizon", "context_length", "span", "parameters")}
    wrong = [name for name, value in counts.items() if type(value) is not int or not 0 < value < 2**50]
    if wrong:
        return f"{wrong[0]} is not a positive whole number"
    if type(found.future_span) is not int or found.future_span < 0:
        return "future_span is not a whole number"
    words = [name for name in ("name", "family", "original") if not isinstance(getattr(found, name), str)]
    if words:
        return f"{words[0]} is no text"
    if found.precision not in EXPORT_PRECISIONS:
        return f"precision is not one of {', '.join(EXPORT_PRECISIONS)}"
    if found.graph_format not in EXPORT_FORMATS:
        return f"graph_format is not one of {', '.join(EXPORT_FORMATS)}"
    levels = found.levels
    ordered = all(type(x) is float and 0 < x < 1 for x in levels) and list(levels) == sorted(set(levels))
    if not ordered or 0.5 not in levels:
        return "levels are not ascending numbers between 0 and 1 with 0.5 among them"
    if type(found.distance) is not float or not math.isfinite(found.distance):
        return "distance is no number"
    if found.loss is not None and not (type(found.loss) is float and math.isfinite(found.loss)):
        return "loss is no number"
    if (found.precision, found.graph_format) in (("bf16", "onnx"), ("int8", TORCH_EXPORT)):
        return f"{found.graph_format} is not written in {found.precision}"
    if found.graph not in found.files or not all(
        isinstance(name, str) and Path(name).name == name and isinstance(digest, str)
        for name, digest in found.files.items()
    ):
        return "files are not names in this folder with their SHA-256"
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
