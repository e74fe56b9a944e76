"""Positions: facts of rotary embedding, its scalings as transformers has them, dual chunk attention as its paper."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_models import decoder, generator, section, starts_of, tokens
from torch import Tensor

from smelt.errors import InputError
from smelt.model.context import Context
from smelt.model.decoder import Decoder
from smelt.model.dual_chunk import BLOCK, dual_chunk, places
from smelt.model.masks import Scope
from smelt.model.positions import Rotary, frequencies, rotate, rotation
from smelt.recipe.parts.position import DualChunk, LinearScaling, Llama3Scaling, Rope, Yarn
from smelt.recipe.schema import Recipe

CPU = torch.device("cpu")


def at(*places: int) -> Tensor:
    return torch.tensor([places])


def vectors(*shape: int, seed: object = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def test_pair_0_at_position_3_turns_by_3_radians() -> None:
    """ARCH-09"""
    turned = rotate(torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4), rotation(at(3), Rope(), 4)).flatten()
    torch.testing.assert_close(turned, torch.tensor([math.cos(3), 0, math.sin(3), 0]))


@given(shift=st.integers(0, 5000), near=st.integers(0, 50), far=st.integers(0, 50))
def test_scores_depend_on_position_differences_alone(shift: int, near: int, far: int) -> None:
    """ARCH-09: within 1e-5 of the product of the vectors' lengths."""
    q, k = vectors(1, 1, 1, 16, seed=1), vectors(1, 1, 1, 16, seed=2)
    q, k = q / q.norm(), k / k.norm()

    def score(query: int, key: int) -> float:
        turned = (rotate(x, rotation(at(place), Rope(theta=1e4), 16)) for x, place in ((q, query), (k, key)))
        return float(torch.mul(*turned).sum())

    tolerance = 1e-5 if shift < 100 else 1e-3  # an angle of thousands has fewer float32 digits left
    assert score(near + shift, far + shift) == pytest.approx(score(near, far), abs=tolerance)


def test_pair_0_is_the_fastest_and_a_larger_theta_slows_every_other() -> None:
    """ARCH-09"""
    small, large = (frequencies(Rope(theta=theta), 64, CPU) for theta in (50_000, 2_000_000))
    assert small[0] == large[0] == 1
    assert (small.diff() < 0).all() and (large[1:] < small[1:]).all()


def test_theta_is_changed_by_the_recipe_alone() -> None:
    """ARCH-09: adjusting the base frequency keeps every weight (ABF)."""
    old, new = decoder(), Decoder(section(position={"kind": "rope", "theta": 5_000_000}), 61)
    new.load_state_dict(old.state_dict())
    assert (old(tokens(1, 9)) - new(tokens(1, 9))).abs().max() > 1e-3


def test_a_fraction_turns_the_first_channels_of_each_head_alone() -> None:
    """ARCH-12"""
    x, part, place = vectors(2, 5, 3, 8), Rope(theta=10.0, fraction=0.5), torch.arange(5)[None]
    turned = rotate(x, rotation(place, part, part.rotated(8)))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], rotate(x[..., :4], rotation(place, Rope(theta=10.0), 4)))
    assert (turned[:, 1:, :, :4] - x[:, 1:, :, :4]).abs().amax((0, 2)).min() > 0.1


def test_fraction_1_is_rope_and_a_vanishing_frequency_is_nope() -> None:
    """ARCH-12: a fraction of 0 is written `kind: none`; what its pairs would do if they stood still is the same."""
    x, config = tokens(2, 12), {"kind": "rope", "theta": 1000.0}
    assert torch.equal(decoder(section(position={**config, "fraction": 1.0}))(x), decoder(section(position=config))(x))
    still = {**config, "fraction": 0.25, "scaling": {"kind": "linear", "factor": 1e9}}
    nope = decoder(section(position={"kind": "none"}))(x)
    torch.testing.assert_close(decoder(section(position=still))(x), nope, rtol=0, atol=1e-5)
    assert (decoder(section(position={**config, "fraction": 0.25}))(x) - nope).abs().max() > 1e-3


SCALINGS = [
    (LinearScaling(kind="linear", factor=4), {"rope_type": "linear", "factor": 4.0}),
    (
        Llama3Scaling(kind="llama3", factor=8, original=512),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        },
    ),
]
SCALINGS += [
    (
        Yarn(kind="yarn", factor=factor, original=original, truncate=truncate, beta_fast=fast, temperature=heat),
        {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "truncate": truncate,
            "beta_fast": fast,
            "beta_slow": 1.0,
            "attention_factor": heat,
        },
    )
    for factor, original, truncate, fast, heat in [
        (4.0, 4096, True, 32.0, None),
        (32.0, 4096, False, 32.0, None),
        (2.5, 64, True, 8.0, 1.3),
        (1.0, 4096, True, 32.0, None),
    ]
]


@pytest.mark.parametrize(("scaling", "parameters"), SCALINGS)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("theta", [10_000.0, 150_000.0])
def test_scaled_frequencies_and_temperature_equal_transformers(
    scaling: Any, parameters: dict[str, Any], fraction: float, theta: float
) -> None:
    """ARCH-10, and linear and Llama 3's scaling: to the last digits of float32."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=16_384,
        rope_parameters={**parameters, "rope_theta": theta, "partial_rotary_factor": fraction},
    )
    expected, temperature = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, CPU)
    part = Rope(theta=theta, fraction=fraction, scaling=scaling)
    torch.testing.assert_close(frequencies(part, part.rotated(64), CPU), expected, rtol=3e-7, atol=0)
    cosines, _ = rotation(at(0), part, 64)
    torch.testing.assert_close(cosines, torch.full_like(cosines, temperature), rtol=1e-6, atol=0)


@given(factor=st.floats(1, 64), original=st.integers(16, 100_000), theta=st.floats(100, 1e7), truncate=st.booleans())
def test_yarn_divides_each_pair_by_at_most_its_factor_and_slower_pairs_by_more(
    factor: float, original: int, theta: float, truncate: bool
) -> None:
    """ARCH-10: monotone between 1 and 1 / factor; a factor of 1 changes nothing; temperature 0.1 ln s + 1."""
    scaling = Yarn(kind="yarn", factor=factor, original=original, truncate=truncate)
    ratio = frequencies(Rope(theta=theta, scaling=scaling), 64, CPU) / frequencies(Rope(theta=theta), 64, CPU)
    assert (ratio.diff() <= 1e-6).all()
    assert 1 / factor - 1e-6 <= ratio.min() and ratio.max() <= 1 + 1e-6
    assert scaling.heat == pytest.approx(0.1 * math.log(factor) + 1)
    identity = Rope(theta=theta, scaling=scaling.model_copy(update={"factor": 1.0}))
    for turned, plain in zip(rotation(at(77), identity, 64), rotation(at(77), Rope(theta=theta), 64), strict=True):
        torch.testing.assert_close(turned, plain, rtol=0, atol=1e-5)


def test_yarns_temperature_multiplies_the_logits_twice() -> None:
    """ARCH-10: scores grow by (0.1 ln s + 1)^2 where no frequency changes."""
    x = vectors(1, 1, 1, 8)
    hot = Rope(scaling=Yarn(kind="yarn", factor=1.0, original=4096, temperature=1.2))
    square = rotate(x, rotation(at(5), hot, 8)).square().sum()
    torch.testing.assert_close(square, 1.44 * x.square().sum())


TOY = DualChunk(kind="dual_chunk", chunk=4, local=3, original=8)


def paper_distances(sequence: int, scaling: DualChunk) -> list[list[int]]:
    """Relative positions of section 3.1 to 3.4 of An et al. 2024, query by query, written out."""
    size, width, cap = scaling.chunk, scaling.local, scaling.greatest
    table = []
    for query in range(sequence):
        row = []
        for key in range(query + 1):
            apart, ours, theirs = query // size - key // size, query % size, key % size
            if apart == 0:
                row.append(ours - theirs)
            elif apart == 1 and ours < width:
                row.append(query - key)
            else:
                row.append(cap - theirs)
        table.append(row)
    return table


def test_dual_chunk_positions_of_16_tokens_never_exceed_7() -> None:
    """ARCH-13: trained length 8, chunks of 4, a local window of 3."""
    own, previous, far = places(torch.arange(16)[None], TOY)
    assert own.flatten().tolist() == [0, 1, 2, 3] * 4
    assert previous.flatten().tolist() == [4, 5, 6, 7] * 4
    assert far.flatten().tolist() == [7] * 16
    distances = paper_distances(16, TOY)
    assert max(max(row) for row in distances) == 7
    assert all(distance >= 0 for row in distances for distance in row)


def written_out(q: Tensor, k: Tensor, v: Tensor, part: Rope, lengths: list[int], softcap: float | None) -> Tensor:
    """Dual chunk attention of one row of documents in float64, a pair of tokens at a time."""
    out, first = torch.zeros(q.shape, dtype=torch.float64), 0
    group = q.shape[2] // k.shape[2]
    for length in lengths:
        for query, distances in enumerate(paper_distances(length, part.scaling)):
            turned = rotate(
                q[:, [first + query] * len(distances)].double(),
                tuple(x.double() for x in rotation(at(*distances), part, part.rotated(q.shape[-1]))),
            )
            seen = slice(first, first + query + 1)
            keys, values = (x[:, seen].double().repeat_interleave(group, 2) for x in (k, v))
            scores = (turned * keys).sum(-1) * q.shape[-1] ** -0.5  # [1, keys, heads]
            if softcap is not None:
                scores = softcap * (scores / softcap).tanh()
            out[:, first + query] = (scores.softmax(1)[..., None] * values).sum(1)
        first += length
    return out


@settings(max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    chunk=st.integers(2, 9),
    spare=st.integers(0, 3),
    fraction=st.sampled_from([1.0, 0.5]),
    softcap=st.sampled_from([None, 1.5]),
    data=st.data(),
)
def test_dual_chunk_attention_equals_its_definition_written_out(
    lengths: list[int], chunk: int, spare: int, fraction: float, softcap: float | None, data: st.DataObject
) -> None:
    """ARCH-13"""
    local = data.draw(st.integers(1, chunk))
    scaling = DualChunk(kind="dual_chunk", chunk=chunk, local=local, original=chunk + local + spare)
    part, total = Rope(theta=100.0, fraction=fraction, scaling=scaling), sum(lengths)
    q, k, v = vectors(1, total, 4, 8, seed=1), vectors(1, total, 2, 8, seed=2), vectors(1, total, 2, 8, seed=3)
    starts = starts_of([lengths]) if len(lengths) > 1 else None
    context = Context(tokens(1, total), starts)
    out = dual_chunk(
        q, k, v, context, None, Rotary(part, part.rotated(q.shape[-1])), Scope(8**-0.5, softcap=softcap), None
    )
    expected = written_out(q, k, v, part, lengths, softcap).float()
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-5)


def test_dual_chunk_attention_goes_on_past_a_block_of_queries() -> None:
    part, total = Rope(theta=100.0, scaling=TOY), BLOCK + 9
    q, k, v = vectors(1, total, 1, 4, seed=1), vectors(1, total, 1, 4, seed=2), vectors(1, total, 1, 4, seed=3)
    out = dual_chunk(
        q, k, v, Context(tokens(1, total), None), None, Rotary(part, part.rotated(q.shape[-1])), Scope(0.5), None
    )
    torch.testing.assert_close(out, written_out(q, k, v, part, [total], None).float(), rtol=0, atol=2e-5)


def test_within_the_first_chunk_and_the_local_window_dual_chunk_attention_is_plain_rope() -> None:
    plain, scaled = {"kind": "rope", "theta": 1000.0}, {"kind": "dual_chunk", "chunk": 8, "local": 3}
    base = decoder(section(position=plain)).eval()
    model = Decoder(section(position={**plain, "scaling": scaled}), 61).eval()
    model.load_state_dict(base.state_dict())
    x = tokens(2, 20)
    torch.testing.assert_close(model(x)[:, :11], base(x)[:, :11], rtol=0, atol=1e-5)
    assert (model(x)[:, 11:] - base(x)[:, 11:]).abs().amax(-1).min() > 1e-4


def test_dual_chunk_attention_refuses_to_train() -> None:
    scaled = {"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 8, "local": 3}}
    with pytest.raises(InputError, match="'dual_chunk' is for inference"):
        decoder(section(position=scaled)).train()(tokens(1, 3))


def test_a_document_longer_than_the_learned_table_is_refused_by_name() -> None:
    model = decoder(section(position={"kind": "learned", "length": 8}))
    with pytest.raises(InputError, match=r"document of 9 tokens is longer than model.position.length \(8\)"):
        model(tokens(1, 9))
    assert model(tokens(1, 12), starts=starts_of([[8, 4]])).isfinite().all()
    with pytest.raises(InputError, match="document of 9 tokens"):
        model(tokens(1, 12), starts=starts_of([[3, 9]]))


def test_learned_positions_are_added_to_the_embeddings() -> None:
    model = decoder(section(position={"kind": "learned", "length": 8}))
    context = Context(tokens(1, 6), starts_of([[2, 4]]))
    added = model.embed(tokens(1, 6), context) - model.embedding.weight[tokens(1, 6)]
    torch.testing.assert_close(added[0], model.positions.weight[[0, 1, 0, 1, 2, 3]])


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ({"kind": "learned", "length": 32}, r"model.position.length \(32\) must be at least the sequence .* \(64\)"),
        ({"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 8, "local": 3}}, "'dual_chunk' is for inference"),
    ],
)
def test_positions_that_cannot_train_are_refused_when_the_recipe_is_read(
    position: dict[str, Any], message: str
) -> None:
    stage = {"name": "one", "steps": 1, "mixture": {"docs": 1.0}}
    train = {"sequence": 64, "batch_tokens": 64, "optimizer": {"lr": 1e-3}, "stages": [stage]}
    train["schedule"] = {"kind": "wsd", "warmup_steps": 1}
    shards = {"shards": {"docs": "shards/docs"}}
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "x", "model": section(position=position), "train": train, "dataset": shards})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "none", "theta": 10_000}, "theta"),
    ({"kind": "rope", "fraction": 0.4}, r"head_dim \(8\) times position.fraction \(0.4\) must be even"),
    ({"kind": "rope", "fraction": 0.125}, "must be even"),
    ({"kind": "rope", "fraction": 0}, "fraction"),
    ({"kind": "rope", "scaling": {"kind": "linear", "factor": 0.5}}, "factor"),
    ({"kind": "rope", "scaling": {"kind": "yarn", "factor": 2, "original": 6}}, "original"),
    ({"kind": "rope", "scaling": {"kind": "yarn", "factor": 2, "original": 64, "beta_slow": 40}}, "beta_slow"),
    ({"kind": "rope", "scaling": {"kind": "llama3", "factor": 2, "original": 64, "low_frequency": 4}}, "low_frequency"),
    ({"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 4, "local": 5}}, "local"),
    ({"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 4, "local": 3, "original": 6}}, "original"),
    ({"kind": "learned", "length": 0}, "length"),
    ({"kind": "alibi", "slope": 1}, "slope"),
]


@pytest.mark.parametrize(("position", "message"), REFUSED)
def test_impossible_positions_are_refused_by_name(position: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(position=position)
