"""The types that a checkpoint is written in, and what that does to its size and forecasts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import TINY, few_samples, ragged, write_t5
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models import bundled_names, load
from tsprune.models.checkpoints import BUNDLED
from tsprune.models.saving import round_weights, stored_tensors
from tsprune.pruning import prune

WEIGHTS = "model.safetensors"


def types(path: Path) -> set[torch.dtype]:
    return {x.dtype for x in load_file(path / WEIGHTS).values() if x.is_floating_point()}


def test_a_pruned_file_is_smaller_than_its_original(tmp_path: Path) -> None:
    """28 % of the parameters gone: at most 73 % of the bytes."""
    model = load("bundled:chronos-bolt", device="cpu")
    gone, count = [], 0
    for component in model.anatomy.components("mlp") + model.anatomy.components("attention"):
        if count >= 0.28 * model.parameter_count:
            break
        module = (
            model.anatomy.mlp(component).output if component.mlp else model.anatomy.site(component).module
        )
        count += sum(p.numel() for p in model.module.get_submodule(module).parameters())
        gone.append(component)
    smaller = prune(model, gone)
    assert smaller.parameter_count <= 0.72 * model.parameter_count
    smaller.save(tmp_path / "pruned")
    before = (BUNDLED / "chronos-bolt" / WEIGHTS).stat().st_size
    assert (tmp_path / "pruned" / WEIGHTS).stat().st_size <= 0.73 * before
    assert types(tmp_path / "pruned") == {torch.float16}
    contexts = ragged(model, 2)
    again = load(tmp_path / "pruned", device="cpu")
    np.testing.assert_array_equal(
        again.forecast(contexts, 9).quantiles, smaller.forecast(contexts, 9).quantiles
    )


@pytest.mark.parametrize("name", bundled_names())
def test_the_types_of_the_original(name: str, tmp_path: Path) -> None:
    load(f"bundled:{name}", device="cpu").save(tmp_path / "same")
    assert types(tmp_path / "same") == {torch.float16}
    load(f"bundled:{name}", device="cpu").save(tmp_path / "other", dtype="bfloat16")
    assert types(tmp_path / "other") == {torch.bfloat16}


@pytest.mark.parametrize("name", [name for name in TINY if not name.endswith("cached")])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float32])
def test_a_reload_forecasts_as_the_rounded_model(name: str, dtype: object, tmp_path: Path) -> None:
    TINY[name](tmp_path / "original")
    model = few_samples(load(tmp_path / "original", device="cpu"))
    contexts = ragged(model, 2)
    model.save(tmp_path / "copy", dtype=dtype)  # type: ignore[arg-type]
    changed = round_weights(model, dtype)  # type: ignore[arg-type]
    assert changed == (dtype != torch.float32)
    again = few_samples(load(tmp_path / "copy", device="cpu"))
    np.testing.assert_array_equal(
        again.forecast(contexts, 5).quantiles, model.forecast(contexts, 5).quantiles
    )
    model.save(tmp_path / "default")
    assert types(tmp_path / "default") == types(tmp_path / "copy")


def test_mixed_types_stay_where_they_were(tmp_path: Path) -> None:
    TINY["tiny-timesfm"](tmp_path / "original")
    path = tmp_path / "original" / WEIGHTS
    mixed = {n: x.to(torch.bfloat16) if "ff0" in n else x for n, x in load_file(path).items()}
    save_file(mixed, path)
    prune(load(tmp_path / "original", device="cpu"), "stack.0").save(tmp_path / "pruned")
    written = load_file(tmp_path / "pruned" / WEIGHTS)
    assert {n for n, x in written.items() if x.dtype == torch.bfloat16} == {n for n in written if "ff0" in n}


def test_a_weight_that_is_too_large(tmp_path: Path) -> None:
    TINY["tiny-timesfm"](tmp_path / "original")
    model = load(tmp_path / "original", device="cpu")
    with torch.no_grad():
        next(model.module.parameters()).fill_(1e6)
    with pytest.raises(TspruneError, match="too large for float16"):
        model.save(tmp_path / "copy", dtype="float16")
    assert not (tmp_path / "copy").exists()


def test_permissions_and_tied_weights(tmp_path: Path) -> None:
    write_t5(tmp_path / "original")
    load(tmp_path / "original", device="cpu").save(tmp_path / "copy")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "copy").iterdir()}
    assert set(modes) == {"config.json", "generation_config.json", WEIGHTS}
    assert len(set(modes.values())) == 1
    assert load_file(tmp_path / "copy" / WEIGHTS).keys() == load_file(tmp_path / "original" / WEIGHTS).keys()


@pytest.mark.parametrize("dtype", ["int8", "half", torch.int8, 3, None])
def test_unknown_types(dtype: object, tmp_path: Path) -> None:
    TINY["tiny-timesfm"](tmp_path / "original")
    model = load(tmp_path / "original", device="cpu")
    if dtype is None:
        model.save(tmp_path / "copy", dtype=None)
        return
    with pytest.raises(TspruneError, match="unknown precision"):
        model.save(tmp_path / "copy", dtype=dtype)  # type: ignore[arg-type]


def test_upstream_keeps_some_weights_of_t5_in_float32(tmp_path: Path) -> None:
    from chronos import ChronosPipeline

    write_t5(tmp_path)
    upstream = ChronosPipeline.from_pretrained(tmp_path, dtype=torch.float16).model.model.state_dict()
    ours = load(tmp_path, device="cpu", dtype="float16").module.state_dict()
    assert {name: x.dtype for name, x in ours.items()} == {name: x.dtype for name, x in upstream.items()}
    assert all(torch.equal(ours[name], x) for name, x in upstream.items())


def test_names_from_foreign_files_are_literal_in_the_card(tmp_path: Path) -> None:
    TINY["tiny-timesfm"](tmp_path / "original")
    prune(load(tmp_path / "original", device="cpu"), "stack.1.mlp").save(tmp_path / "pruned")
    path = tmp_path / "pruned" / "tsprune.json"
    record = json.loads(path.read_text())
    record["model"] = "x`\n---\nlicense: mit\n---\n# <script>alert(1)</script> [a](http://b) | c"
    record["provenance"] = {"<img src=x>\n## Licence": "a | b\n\n# c"}
    path.write_text(json.dumps(record))
    prune(load(tmp_path / "pruned", device="cpu"), "stack.0.mlp").save(tmp_path / "again")
    card = (tmp_path / "again" / "README.md").read_text()
    assert "<script" not in card
    assert "<img" not in card
    assert not re.search(r"(?<!\\)\]\(", card.split("## Licence")[0])  # no bracket that a link could follow
    lines = card.splitlines()
    assert not any(line.startswith(("---", "license")) for line in lines)
    assert [line for line in lines if line.startswith("## Licence")] == ["## Licence"]


def test_what_is_written_is_not_copied_unless_it_is_rounded() -> None:
    model = load("bundled:timesfm", device="cpu")
    held = {x.data_ptr() for x in model.module.state_dict().values()}
    for dtype, shared in (("float32", True), ("float16", False)):
        written = [x.data_ptr() for x in stored_tensors(model, dtype).values() if x.is_floating_point()]
        assert len(written) == len(set(written))
        assert all((address in held) is shared for address in written)


def test_weights_that_removal_scales_keep_their_digits(tmp_path: Path) -> None:
    """Unit scaling divides by the root of the width, so that the weights of a narrower layer are scaled."""
    model = load("bundled:toto2", device="cpu")
    smaller = prune(model, "stack.1.time.head.0")
    smaller.save(tmp_path / "pruned")
    written = load_file(tmp_path / "pruned" / WEIGHTS)
    output = smaller.anatomy.site(Component.parse("stack.1.time")).output
    assert {name for name, x in written.items() if x.dtype != torch.float16} == {
        f"{output}.weight",
        f"{output}.bias",
    }
    whole, ours = model.module.state_dict(), smaller.module.state_dict()
    for name, kept in ((f"{output}.weight", slice(16, None)), (f"{output}.bias", slice(None))):
        assert torch.equal(written[name], ours[name])
        torch.testing.assert_close(written[name], whole[name][..., kept] * (5 / 6) ** 0.5)
    smaller.save(tmp_path / "half", dtype="float16")
    assert types(tmp_path / "half") == {torch.float16}
