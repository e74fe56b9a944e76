"""What the recipe says a model costs is what the module has, does and keeps, for every kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB, section
from torch.utils.flop_counter import FlopCounterMode
from variants import DELTANET, GATES, LINEAR, MAMBA2, SIDE_BY_SIDE, attention_layers, recurrent_layers

from smelt.model.cache import Cache
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.recipe.account import cache_bytes, forward_flops, parameters
from smelt.recipe.load import load_recipe
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.parts.table import KINDS
from smelt.recipe.sections.model import Model

ARCHITECTURES = sorted((Path(__file__).parents[2] / "recipes" / "architectures").glob("*.yaml"))
GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
MLA = {"kind": "mla", "heads": 4, "kv_rank": 16, "q_rank": 12, "nope_dim": 8, "rope_dim": 4, "value_dim": 8}
MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 48, "shared_width": 32, "shared_gate": True}

dense = st.fixed_dictionaries(
    {"kind": st.sampled_from(["swiglu", "geglu", "relu2"]), "width": st.integers(1, 50), "bias": st.booleans()}
)
experts = st.fixed_dictionaries(
    {
        "kind": st.just("moe"),
        "experts": st.sampled_from([4, 8]),
        "top_k": st.integers(1, 4),
        "width": st.integers(1, 20),
        "activation": st.sampled_from(["swiglu", "relu2", "clamped_swiglu"]),
        "bias": st.booleans(),
        "balance": st.sampled_from([None, {"kind": "loss"}, {"kind": "bias"}]),
    }
) | st.just(MOE)
norms = st.fixed_dictionaries(
    {"placement": st.sampled_from(["pre", "post", "sandwich"]), "zero_centered": st.booleans()}
)
changes = st.sampled_from(
    [{}, {"attention": {"kind": "none"}}, {"feedforward": {"kind": "none"}}, {"attention": GQA}]
).map(lambda change: [{"layers": 1, **change}])


@st.composite
def sections(draw: Any) -> Model:
    """Models of every kind of part, mixed."""
    return section(
        **draw(attention_layers | recurrent_layers),
        feedforward=draw(dense | experts),
        norm=draw(norms),
        tie_embeddings=draw(st.booleans()),
        multi_token=draw(st.sampled_from([None, {"depth": 2}])),
        per_layer=draw(changes),
    )


@given(config=sections())
@settings(max_examples=120)
def test_parameters_are_those_of_the_module_part_by_part(config: Model) -> None:
    """ARCH-20, ARCH-27."""
    with torch.device("meta"):
        model = Decoder(config, VOCAB)
    counted = dict.fromkeys(("embedding", "head", "attention", "feedforward", "norm", "multi_token"), 0)
    for name, parameter in model.named_parameters():
        counted[_part(name)] += parameter.numel()
    stated = parameters(config, VOCAB)
    idle = sum(
        (layer.feedforward.experts - layer.feedforward.top_k) * parameter[0].numel()
        for index, layer in enumerate(config.each_layer)
        if isinstance(layer.feedforward, MixtureOfExperts)
        for name, parameter in model.layers[index].feedforward.named_parameters()
        if name.startswith("experts.")
    )
    assert {name: stated[name] for name in counted} == counted
    assert stated["total"] == sum(counted.values())
    assert stated["active"] == sum(counted.values()) - idle - counted["multi_token"]


def _part(name: str) -> str:
    first, *rest = name.split(".")
    if first in ("embedding", "positions"):
        return "embedding"
    if first != "layers":
        return first
    return rest[1] if rest[1] in ("attention", "feedforward") else "norm"


@pytest.mark.parametrize("path", ARCHITECTURES, ids=lambda path: path.stem)
def test_published_architectures_build_with_as_many_parameters_as_their_recipes_say(path: Path) -> None:
    """ARCH-27."""
    config = load_recipe(path).section("model")
    with torch.device("meta"):
        model = Decoder(config, 1024)
    assert sum(each.numel() for each in model.parameters()) == parameters(config, 1024)["total"]


@given(config=sections(), tokens=st.integers(1, 40))
@settings(max_examples=60)
def test_cache_bytes_are_those_of_the_real_cache(config: Model, tokens: int) -> None:
    """ARCH-02."""
    with torch.device("meta"):
        model = Decoder(config, VOCAB)
    assert Cache(model, 3, tokens).bytes == 3 * cache_bytes(config, tokens, value_bytes=4)


def test_every_kind_was_drawn() -> None:
    drawn = {part["kind"] for part in (GQA, MLA, MAMBA2, DELTANET, LINEAR, SIDE_BY_SIDE, MOE)}
    drawn |= {"none", "swiglu", "geglu", "relu2"}
    assert drawn == {*KINDS["attention"], *KINDS["feedforward"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": GQA},
        {"attention": {**GQA, "gate": "channel", "bias": "all", "qk_norm": "full"}},
        {"attention": {**GQA, "gate": "head"}},
        {"attention": MLA},
        {"attention": {**MLA, "q_rank": None}},
        {"feedforward": {"kind": "geglu", "width": 96}},
        {"feedforward": {"kind": "relu2", "width": 96}},
        {"feedforward": MOE},
        {"feedforward": {**MOE, "shared_gate": False, "activation": "relu2"}},
        {"feedforward": {"kind": "moe", "experts": 4, "top_k": 3, "width": 20, "activation": "clamped_swiglu"}},
    ],
    ids=str,
)
def test_flops_of_weights_are_the_products_that_pytorch_counts(changes: dict[str, Any]) -> None:
    """SCALE-01: exactly; attention's own, which grow with the row, are stated at half for causality and left out."""
    config = section(hidden=64, layers=2, **changes)
    weights = 2 * forward_flops(config, VOCAB, 64) - forward_flops(config, VOCAB, 128)
    assert counted_flops(config, 64, products=("mm", "addmm", "_grouped_mm")) == weights * 64


@pytest.mark.parametrize(
    "attention",
    [
        {**MAMBA2, "heads": 8, "state": 16, "chunk": 16},
        {**DELTANET, "key_dim": 16, "value_dim": 16, "chunk": 16},
        *({**LINEAR, "key_dim": 16, "value_dim": 16, "chunk": 16, "gate": gate} for gate in GATES),
    ],
    ids=lambda attention: attention.get("gate", attention["kind"]),
)
def test_flops_of_recurrent_layers_are_within_a_tenth_of_what_pytorch_counts(attention: dict[str, Any]) -> None:
    """Products within a chunk are computed whole and stated at half; state updates that are no products, and so
    uncounted there, are stated."""
    config = section(hidden=64, layers=2, attention=attention)
    counted = counted_flops(config, 64, products=("mm", "addmm", "bmm"))
    assert counted == pytest.approx(64 * forward_flops(config, VOCAB, 64), rel=0.1)


def counted_flops(config: Model, sequence: int, products: tuple[str, ...]) -> int:
    """FLOPs of one row's forward pass in the operators `products`."""
    model = Decoder(config, VOCAB)
    initialise(model, 0)
    grouped = {
        torch.ops.aten._grouped_mm: lambda a, b, *rest, out_shape=None, **more: 2 * a[0] * a[1] * b[-1],
        torch.ops.smelt.grouped_linear: lambda x, weight, *rest, out_shape=None: 2 * x[0] * x[1] * weight[1],
    }
    with FlopCounterMode(display=False, custom_mapping=grouped) as counter, torch.no_grad():
        model.eval()(torch.arange(sequence)[None] % VOCAB)
    counts = {str(operator).split(".")[-1]: flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    counts["_grouped_mm"] = counts.get("_grouped_mm", 0) + counts.pop("grouped_linear", 0)
    return sum(counts.get(product, 0) for product in products)
