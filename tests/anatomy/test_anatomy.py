"""Addresses, selection and the arithmetic of where a head's weights are."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsprune.anatomy import (
    KINDS,
    Anatomy,
    AttentionSite,
    Block,
    Component,
    MLPSite,
    Projection,
    Stack,
)
from tsprune.errors import TspruneError


def site(kind: str, path: str, heads: int, key_heads: int | None = None) -> AttentionSite:
    key = Projection(f"{path}.k", key_heads or heads, 4)
    query, source = Projection(f"{path}.q", heads, 4), "encoder" if kind == "cross" else None
    return AttentionSite(kind, path, f"{path}.o", heads, 4, query, key, key, keys_from=source)


def stack(name: str, depth: int, kinds: tuple[str, ...], heads: int = 2) -> Stack:
    return Stack(
        name,
        tuple(
            Block(
                f"{name}.{i}",
                tuple(site(kind, f"{name}.{i}.{kind}", heads) for kind in kinds),
                MLPSite(f"{name}.{i}.mlp"),
            )
            for i in range(depth)
        ),
    )


ENCODER_DECODER = Anatomy((stack("encoder", 2, ("self",)), stack("decoder", 3, ("self", "cross"))), 8)


def addresses(components: tuple[Component, ...]) -> list[str]:
    return [component.address for component in components]


# Addresses

STACKS = st.sampled_from(["encoder", "decoder", "stack"])
ATTENTION = st.sampled_from(["self", "cross", "time", "group", "variate"])
NUMBERS = st.integers(0, 200)
COMPONENTS = st.one_of(
    st.builds(Component, STACKS, NUMBERS),
    st.builds(Component, STACKS, NUMBERS, ATTENTION),
    st.builds(Component, STACKS, NUMBERS, ATTENTION, NUMBERS),
    st.builds(Component, STACKS, NUMBERS, mlp=st.just(True)),
)


@given(COMPONENTS)
def test_an_address_names_its_component(component: Component) -> None:
    assert Component.parse(component.address) == component
    assert Component.parse(component.address).address == component.address
    assert str(component) == component.address


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("decoder.3.cross.head.5", "head"),
        ("encoder.0.self.head.2", "head"),
        ("stack.7.time.head.1", "head"),
        ("decoder.3.mlp", "mlp"),
        ("decoder.3.cross", "attention"),
        ("stack.12", "layer"),
    ],
)
def test_kinds_by_address(address: str, kind: str) -> None:
    component = Component.parse(address)
    assert component.kind == kind
    assert component.address == address


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "decoder",
        "decoder.",
        "decoder.x",
        "decoder.3.",
        "decoder.-1",
        "decoder.03",
        "decoder.3.mlp.head.0",
        "decoder.3.cross.5",
        "decoder.3.cross.head",
        "decoder.3.cross.head.5.1",
        "decoder.*.cross.head.5",
        " decoder.3",
        "decoder.3\n",
    ],
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(TspruneError, match="is not an address"):
        Component.parse(wrong)


# Components and selection


def test_components_in_order_of_execution() -> None:
    small = Anatomy((stack("encoder", 1, ("self",)), stack("decoder", 1, ("self", "cross"))), 8)
    assert addresses(small.components()) == [
        "encoder.0",
        "encoder.0.self",
        "encoder.0.self.head.0",
        "encoder.0.self.head.1",
        "encoder.0.mlp",
        "decoder.0",
        "decoder.0.self",
        "decoder.0.self.head.0",
        "decoder.0.self.head.1",
        "decoder.0.cross",
        "decoder.0.cross.head.0",
        "decoder.0.cross.head.1",
        "decoder.0.mlp",
    ]


def test_every_component_is_of_one_kind() -> None:
    by_kind = [ENCODER_DECODER.components(kind) for kind in KINDS]
    assert list(map(len, by_kind)) == [16, 5, 8, 5]
    assert sorted(addresses(tuple(itertools.chain(*by_kind)))) == sorted(
        addresses(ENCODER_DECODER.components())
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("decoder.*", ["decoder.0", "decoder.1", "decoder.2"]),
        ("*.0", ["encoder.0", "decoder.0"]),
        ("*.*.mlp", ["encoder.0.mlp", "encoder.1.mlp", "decoder.0.mlp", "decoder.1.mlp", "decoder.2.mlp"]),
        ("decoder.*.cross.head.1", [f"decoder.{i}.cross.head.1" for i in range(3)]),
        ("decoder.2.*.head.0", ["decoder.2.self.head.0", "decoder.2.cross.head.0"]),
        ("decoder.[02].cross", ["decoder.0.cross", "decoder.2.cross"]),
        ("decoder.?.c*", ["decoder.0.cross", "decoder.1.cross", "decoder.2.cross"]),
        ("encoder.1.self.head.0", ["encoder.1.self.head.0"]),
        (Component("encoder", 1, mlp=True), ["encoder.1.mlp"]),
    ],
)
def test_patterns_select_part_by_part(pattern: str, expected: list[str]) -> None:
    assert addresses(ENCODER_DECODER.select(pattern)) == expected


def test_a_star_does_not_cross_a_dot() -> None:
    assert all(c.kind == "layer" for c in ENCODER_DECODER.select("*.*"))
    assert {c.kind for c in ENCODER_DECODER.select("*.*.*")} == {"attention", "mlp"}
    assert {c.kind for c in ENCODER_DECODER.select("*.*.*.*.*")} == {"head"}


def test_lists_select_once_and_in_order_of_execution() -> None:
    wanted = ["decoder.*.mlp", "encoder.0.self.head.*", Component("decoder", 1, mlp=True), "decoder.1.mlp"]
    assert addresses(ENCODER_DECODER.select(wanted)) == [
        "encoder.0.self.head.0",
        "encoder.0.self.head.1",
        "decoder.0.mlp",
        "decoder.1.mlp",
        "decoder.2.mlp",
    ]
    assert ENCODER_DECODER.select([]) == ()


@given(st.sets(st.sampled_from(ENCODER_DECODER.components())))
def test_selecting_components_returns_exactly_them(chosen: set[Component]) -> None:
    selected = ENCODER_DECODER.select(chosen)
    assert set(selected) == chosen
    every = ENCODER_DECODER.components()
    assert [every.index(c) for c in selected] == sorted(every.index(c) for c in selected)


def test_no_match_is_an_error_that_shows_the_nearest_addresses() -> None:
    with pytest.raises(TspruneError) as caught:
        ENCODER_DECODER.select("decoder.1.cros.head.1")
    message = str(caught.value)
    assert "'decoder.1.cros.head.1'" in message
    assert "decoder.1.cross.head.1" in message
    assert "\n" not in message


@pytest.mark.parametrize("wrong", ["decoder.9", "stack.*", "decoder.0.self.head.2", "encoder.*.cross", "x"])
def test_one_pattern_without_a_match_is_enough(wrong: str) -> None:
    with pytest.raises(TspruneError, match="matches no component"):
        ENCODER_DECODER.select(["encoder.*", wrong])


def test_parts_that_a_model_does_not_have() -> None:
    with pytest.raises(TspruneError, match="no stack 'stack'; this model has: encoder, decoder"):
        ENCODER_DECODER.stack("stack")
    with pytest.raises(TspruneError, match=r"encoder\.0\.cross\.head\.1 is not part"):
        ENCODER_DECODER.site(Component("encoder", 0, "cross", 1))
    with pytest.raises(TspruneError, match=r"encoder\.0\.self\.head\.2 is not part"):
        ENCODER_DECODER.site(Component("encoder", 0, "self", 2))
    with pytest.raises(TspruneError, match=r"encoder\.2 is not part of this model; its encoder has 2 layers"):
        ENCODER_DECODER.block(Component("encoder", 2))


def test_a_component_knows_its_block_and_site() -> None:
    head = Component("decoder", 2, "cross", 1)
    assert ENCODER_DECODER.block(head).module == "decoder.2"
    assert ENCODER_DECODER.site(head).module == "decoder.2.cross"


# Expansion


def test_layers_are_replaced_by_their_sublayers() -> None:
    expanded = ENCODER_DECODER.expand([Component("decoder", 1), Component("encoder", 0)])
    assert addresses(expanded) == [
        "decoder.1.self",
        "decoder.1.cross",
        "decoder.1.mlp",
        "encoder.0.self",
        "encoder.0.mlp",
    ]


def test_heads_of_a_sublayer_that_is_there_itself_are_dropped() -> None:
    chosen = map(
        Component.parse,
        [
            "decoder.1.cross.head.0",
            "decoder.1.self.head.0",
            "decoder.1.cross",
            "decoder.1.mlp",
            "decoder.1.mlp",
        ],
    )
    expanded = ENCODER_DECODER.expand(chosen)
    assert addresses(expanded) == ["decoder.1.self.head.0", "decoder.1.cross", "decoder.1.mlp"]
    chosen = map(Component.parse, ["encoder.1.self.head.0", "encoder.1"])
    assert addresses(ENCODER_DECODER.expand(chosen)) == ["encoder.1.self", "encoder.1.mlp"]


@given(st.lists(st.sampled_from(ENCODER_DECODER.components())))
def test_expanding_is_idempotent_and_leaves_no_layer(chosen: list[Component]) -> None:
    once = ENCODER_DECODER.expand(chosen)
    assert ENCODER_DECODER.expand(once) == once
    assert len(set(once)) == len(once)
    assert all(c.kind != "layer" for c in once)


# Middle layers


@pytest.mark.parametrize("depth", range(1, 25))
def test_middle_layers_are_the_papers(depth: int) -> None:
    by_definition = [i for i in range(depth) if depth / 4 <= i < 3 * depth / 4 and 0 < i < depth - 1]
    assert list(Anatomy((stack("stack", depth, ("self",)),), 8).middle_layers("stack")) == by_definition


def test_middle_layers_of_the_paper_by_hand() -> None:
    def middle(depth: int) -> list[int]:
        return list(Anatomy((stack("stack", depth, ("self",)),), 8).middle_layers("stack"))

    assert middle(12) == [3, 4, 5, 6, 7, 8]
    assert middle(20) == list(range(5, 15))
    assert middle(6) == [2, 3, 4]
    assert middle(2) == []
    assert list(ENCODER_DECODER.middle_layers("decoder")) == [1]


# Rows of projections


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_rows_of_a_fused_layer_belong_to_exactly_one_head(
    heads: int, head_dim: int, parts: int, interleaved: bool
) -> None:
    width = heads * head_dim
    projections = [Projection("qkv", heads, head_dim, part * width, interleaved) for part in range(parts)]
    rows = [row for projection in projections for head in range(heads) for row in projection.rows(head)]
    assert sorted(rows) == list(range(parts * heads * head_dim))
    for part, projection in enumerate(projections):
        for head in range(heads):
            assert len(projection.rows(head)) == head_dim
            assert all(row // (heads * head_dim) == part for row in projection.rows(head))


def test_rows_by_hand() -> None:
    assert list(Projection("q", heads=3, head_dim=2).rows(1)) == [2, 3]
    assert list(Projection("qkv", heads=3, head_dim=2, start=6).rows(0)) == [6, 7]
    # Toto: row = part * D + d * heads + head
    assert list(Projection("qkv", heads=3, head_dim=2, interleaved=True).rows(1)) == [1, 4]
    assert list(Projection("qkv", heads=3, head_dim=2, start=12, interleaved=True).rows(2)) == [14, 17]


# Grouped queries


def test_neighbouring_query_heads_share_a_key_head() -> None:
    grouped = site("self", "x", heads=8, key_heads=2)
    assert [grouped.key_head(head) for head in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [site("self", "x", heads=3).key_head(head) for head in range(3)] == [0, 1, 2]
    assert [site("self", "x", heads=4, key_heads=1).key_head(head) for head in range(4)] == [0] * 4


@given(st.integers(1, 8), st.integers(1, 8))
def test_every_key_head_serves_equally_many(key_heads: int, group: int) -> None:
    grouped = site("self", "x", heads=key_heads * group, key_heads=key_heads)
    served = [grouped.key_head(head) for head in range(grouped.heads)]
    assert served == sorted(served)
    assert all(served.count(head) == group for head in range(key_heads))
    assert math.prod([grouped.heads, grouped.head_dim]) == grouped.columns(grouped.heads - 1).stop


def pruned_by_hand() -> Anatomy:
    """Of six layers with two heads: 1 and 3 gone, no MLP in 2, no attention in 4, one head in 5."""

    def block(position: int, number: int) -> Block:
        path = f"blocks.{position}"
        heads, kept = (1, (1,)) if number == 5 else (2, None)
        projection = Projection(f"{path}.q", heads, 3)
        site = AttentionSite(
            "self", path, f"{path}.o", heads, 3, projection, projection, projection, kept=kept
        )
        mlp = None if number == 2 else MLPSite(f"{path}.mlp")
        return Block(path, () if number == 4 else (site,), mlp, number)

    blocks = tuple(block(position, number) for position, number in enumerate((0, 2, 4, 5)))
    gone = ("stack.1", "stack.1.mlp", "stack.3", "stack.2.mlp", "stack.4.self", "stack.5.self.head.0")
    return Anatomy((Stack("stack", blocks),), 4, tuple(Component.parse(address) for address in gone))


def test_what_is_left_of_a_pruned_model_keeps_its_address() -> None:
    anatomy = pruned_by_hand()
    assert [c.address for c in anatomy.components()] == [
        *("stack.0", "stack.0.self", "stack.0.self.head.0", "stack.0.self.head.1", "stack.0.mlp"),
        *("stack.2", "stack.2.self", "stack.2.self.head.0", "stack.2.self.head.1"),
        *("stack.4", "stack.4.mlp"),
        *("stack.5", "stack.5.self", "stack.5.self.head.1", "stack.5.mlp"),
    ]
    head = Component.parse("stack.5.self.head.1")
    assert anatomy.block(head).module == "blocks.3"
    assert anatomy.site(head).columns(1) == slice(0, 3)
    assert anatomy.mlp(Component.parse("stack.4")).output == "blocks.2.mlp"
    assert list(anatomy.middle_layers("stack")) == [2, 4]
    assert [str(sublayer) for sublayer, _ in anatomy.sites()] == [
        "stack.0.self",
        "stack.2.self",
        "stack.5.self",
    ]
    assert (anatomy.whole_layers, anatomy.equal_heads) == (False, None)


def test_what_is_gone_is_said_to_be_gone() -> None:
    anatomy = pruned_by_hand()
    for address in ("stack.1", "stack.2.mlp", "stack.4.self", "stack.5.self.head.0", "stack.[13]"):
        with pytest.raises(TspruneError, match=r"was already removed from this model$"):
            anatomy.select(address)
    for find, address in (
        (anatomy.site, "stack.4.self"),
        (anatomy.mlp, "stack.2"),
        (anatomy.block, "stack.3"),
    ):
        with pytest.raises(TspruneError, match=r"was already removed from this model$"):
            find(Component.parse(address))
    with pytest.raises(TspruneError, match="matches no component"):
        anatomy.select("stack.6")
    assert len(anatomy.select("stack.*.mlp")) == 3  # some are gone, some are there


def test_expanding_a_layer_names_what_is_left_of_it() -> None:
    anatomy = pruned_by_hand()
    layers = [Component("stack", 2), Component("stack", 4)]
    assert [str(c) for c in anatomy.expand(layers)] == ["stack.2.self", "stack.4.mlp"]


def test_an_anatomy_is_shown_as_a_tree_with_counts() -> None:
    assert repr(ENCODER_DECODER).splitlines() == [
        "encoder-decoder, 5 layers, 16 heads, 5 MLPs, width 8",
        "  encoder",
        "    0 to 1: self (2 heads of 4), mlp",
        "  decoder",
        "    0 to 2: self (2 heads of 4), cross (2 heads of 4), mlp",
    ]
    blocks = (
        dataclasses.replace(block, number=n)
        for n, block in zip((0, 2, 3), ENCODER_DECODER.stacks[1].blocks, strict=True)
    )
    pruned = Anatomy(
        (dataclasses.replace(ENCODER_DECODER.stacks[1], blocks=tuple(blocks)),), 8, (Component("decoder", 1),)
    )
    assert [line.strip() for line in repr(pruned).splitlines()[2:]] == [
        "0: self (2 heads of 4), cross (2 heads of 4), mlp",
        "2 to 3: self (2 heads of 4), cross (2 heads of 4), mlp",
        "removed: 1 components",
    ]
    assert ENCODER_DECODER._repr_html_().startswith("<pre>encoder-decoder")


def test_an_mlp_of_experts_is_one_component() -> None:
    whole = stack("stack", 2, ("self",))
    experts = tuple(f"stack.1.mlp.experts.{number}" for number in range(3))
    first, second = whole.blocks
    mixed = dataclasses.replace(second, mlp=MLPSite("stack.1.mlp", experts=experts))
    anatomy = Anatomy((dataclasses.replace(whole, blocks=(first, mixed)),), 8)
    assert addresses(anatomy.components("mlp")) == ["stack.0.mlp", "stack.1.mlp"]
    assert [line.strip() for line in repr(anatomy).splitlines()[2:]] == [
        "0: self (2 heads of 4), mlp",
        "1: self (2 heads of 4), mlp (3 experts)",
    ]
