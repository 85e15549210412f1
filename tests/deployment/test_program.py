"""Programs compute what the modules that they were exported from compute, on any device and for any size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.accelerator import DEVICE, accelerator
from tsprune.deployment.program import Program
from tsprune.deployment.program_format import MOST_NUMBERS, Name, Node, ProgramText, Value, weights_of
from tsprune.deployment.program_operators import OPERATORS, PRODUCTS
from tsprune.deployment.program_reading import read_program
from tsprune.deployment.program_rounding import program_in_bf16, program_in_half
from tsprune.deployment.program_session import ProgramSession, program_session
from tsprune.deployment.program_writing import as_program, write_program

ROWS = torch.arange(40.0).reshape(2, 20).sin()


class Network(nn.Module):
    """Patches of 4, a gap as 0, a residual layer with a shared weight, changes in place, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.again = nn.Linear(64, 64)
        self.again.weight = self.layer.weight
        self.inner = nn.Linear(4, 64)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        patches = torch.nan_to_num(x, nan=0.0).unflatten(1, (-1, 4))
        place = torch.arange(patches.shape[1], device=x.device) // 2
        hidden = self.inner(patches) + place[:, None]
        hidden = hidden + self.again(torch.relu(self.layer(hidden)))
        hidden += torch.tensor([0.5])
        first, second = hidden.chunk(2, dim=-1)
        product = torch.einsum("bnd,bmd->bnm", first, second)
        return product.softmax(-1) * scale, hidden.sort(-1).values[..., :3]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def path(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("program") / "model.json"
    sizes = ({0: Dim("batch", min=1, max=50), 1: 4 * Dim("patches", min=1, max=30)}, None)
    with warnings.catch_warnings(action="ignore"):  # torch's own
        exported = torch.export.export(network, (ROWS, torch.ones(1)), dynamic_shapes=sizes, strict=False)
        write_program(exported, found, ["x", "scale"], ["product", "first"])
    return found


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "patches"), [(1, 1), (2, 5), (50, 30)])
def test_it_computes_as_its_module_for_any_size(
    network: Network, path: Path, rows: int, patches: int
) -> None:
    x, scale = torch.randn(rows, 4 * patches), torch.tensor([1.5])
    x[0, 1] = torch.nan
    with torch.no_grad():
        close(read_program(path)(x, scale), network(x, scale))


def test_a_shared_weight_is_kept_once(network: Network, path: Path) -> None:
    kept = sum(weight.shape == (64, 64) for weight in read_program(path).program.weights)
    assert kept == 1
    exact = sum(parameter.numel() for parameter in network.parameters())
    assert weights_of(path).stat().st_size < 4 * exact + 4096


def test_it_can_be_exported_again(network: Network, path: Path) -> None:
    """To an archive of torch's own, or for its compiler: the program is a module as any other."""
    sizes = (({0: Dim("batch", min=1, max=50), 1: 4 * Dim("patches", min=1, max=30)}, None),)
    program = read_program(path)
    with warnings.catch_warnings(action="ignore"):
        again = torch.export.export(program, (ROWS, torch.ones(1)), dynamic_shapes=sizes, strict=False)
        text, tensors = as_program(again, ["x", "scale"], ["product", "first"])
    x = torch.randn(3, 12)
    with torch.no_grad():
        close(Program(text, tensors)(x, torch.ones(1)), network(x, torch.ones(1)))


def test_it_computes_on_the_device_that_the_reader_chooses(network: Network, path: Path) -> None:
    with accelerator(), torch.no_grad():
        program = read_program(path, DEVICE)
        found = program(ROWS.to(DEVICE), torch.ones(1).to(DEVICE))
        assert {one.device.type for one in found} == {torch.device(DEVICE).type}
        close(found, network(ROWS, torch.ones(1)))


def test_what_depends_on_no_input_is_computed_once() -> None:
    """3 + 4 is, and so is twice that; the sum with the input is left."""
    nodes = (
        Node("aten.full.default", ((2,), 3.0), {"device": Name("device")}),
        Node("aten.add.Tensor", (Value(0), 4)),
        Node("aten.sym_size.int", (Value(1), 0)),
        Node("size.mul", (Value(2), 5)),
        Node("aten.mul.Tensor", (Value(1), Value(3))),
    )
    program = Program(ProgramText({}, (), (), nodes, {"y": 4}), {})
    assert (len(program._steps), program()[0].tolist()) == (0, [70, 70])


def test_constants_have_a_limit_together() -> None:
    half = Node("aten.full.default", ((MOST_NUMBERS // 2,), 1.0), {"device": Name("device")})
    with pytest.raises(ValueError, match="that depend on no input have more than"):
        Program(ProgramText({}, (), (), (half,) * 5, {"y": 0}), {})


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_is_harmless(name: str) -> None:
    """It changes no argument and returns tensors or sizes (its signature), and is not random (its mark)."""
    if not name.startswith("aten."):
        return
    _, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet), overload)
    assert not found._schema.is_mutable
    assert {str(one.real_type) for one in found._schema.returns} <= {"Tensor", "List[Tensor]", "int"}
    if packet != "scaled_dot_product_attention":  # only with its dropout
        assert torch.Tag.nondeterministic_seeded not in found.tags
    texts = {one.name for one in found._schema.arguments if "str" in str(one.real_type)}
    assert texts <= {"mode", "rounding_mode", "approximate", "equation"}


def test_half_precision_is_rounding_of_large_weights(network: Network, path: Path, tmp_path: Path) -> None:
    whole, half = copied(path, tmp_path / "whole"), copied(path, tmp_path / "half")
    program_in_half(half)
    size = weights_of(half).stat().st_size
    assert size < 0.7 * weights_of(whole).stat().st_size
    before, after = (
        {weight.shape: (weight.stored, weight.dtype) for weight in read_program(one).program.weights}
        for one in (whole, half)
    )
    assert set(before.values()) == {("float32", "float32")}
    assert after[64, 64] == ("float16", "float32")
    assert after[64, 4] == ("float32", "float32")  # of few values
    x = torch.randn(3, 12)
    with torch.no_grad():
        found = read_program(half)(x, torch.ones(1))
        rounded = Network()
        rounded.load_state_dict(network.state_dict())
        rounded.layer.weight.copy_(network.layer.weight.half())
        close(found, rounded(x, torch.ones(1)))


def copied(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for source in (path, weights_of(path)):
        (folder / source.name).write_bytes(source.read_bytes())
    return folder / path.name


def test_bf16_rounds_products_alone(network: Network, path: Path, tmp_path: Path) -> None:
    place = copied(path, tmp_path / "bf16")
    program_in_bf16(place)
    program = read_program(place)
    kinds = {weight.shape: (weight.stored, weight.dtype) for weight in program.program.weights}
    assert kinds[64, 64] == ("bfloat16", "bfloat16")
    x = torch.randn(3, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = network(x, torch.ones(1))[1].float()
    with torch.no_grad():
        exact, found = network(x, torch.ones(1))[1], program(x, torch.ones(1))[1]
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.03 * exact.abs().max()
    assert (found - expected).abs().max() < 0.03 * exact.abs().max()
    products = [node for node in program.program.nodes if node.operator in PRODUCTS]
    casts = [node for node in program.program.nodes if node.operator == "aten._to_copy.default"]
    assert len(casts) >= 2 * len(products)


def test_a_session_refuses_other_arrays(path: Path) -> None:
    session = program_session(path, None, "cpu", None)
    assert [one.name for one in session.get_inputs()] == ["x", "scale"]
    x, scale = ROWS.numpy(), np.ones(1, np.float32)
    assert session.run(None, {"x": x, "scale": scale})[0].shape == (2, 5, 5)
    wrong = {
        "the inputs are x, scale": {"x": x},
        "x is float64": {"x": x.astype(np.float64), "scale": scale},
        "does not fit": {"x": x[:, :3], "scale": scale},
        "scale has shape": {"x": x, "scale": np.ones(2, np.float32)},
        "not from 1 to 50": {"x": np.zeros((51, 4), np.float32), "scale": scale},
        "x is float32 of shape": {"x": x[0], "scale": scale},
        "a size is 0": {"x": x[:0], "scale": scale},
    }
    for reason, inputs in wrong.items():
        with pytest.raises(ValueError, match=reason):
            session.run(None, inputs)


def test_a_session_computes_with_its_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    session = ProgramSession(read_program(path), threads=torch.get_num_threads() + 1)
    session.program.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    session.run(None, {"x": ROWS.numpy(), "scale": np.ones(1, np.float32)})
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
