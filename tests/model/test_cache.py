"""What decoding keeps: its size, as the recipe foretells it, and which tokens it holds."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB, decoder, section, starts_of, tokens
from torch import Tensor
from variants import attention_layers

from smelt.errors import InputError
from smelt.model.cache import Cache, KeyValues, Ring
from smelt.model.context import Context
from smelt.model.decoder import Decoder
from smelt.recipe.account import cache_bytes
from smelt.recipe.sections.model import Model

GIB = 2**30


def dense(layers: int, heads: int, kv_heads: int) -> Model:
    """A model with heads of 128 channels."""
    attention = {"heads": heads, "kv_heads": kv_heads}
    return section(hidden=128 * heads, layers=layers, attention=attention, feedforward={"width": 1})


def real_bytes(config: Model, batch: int, capacity: int) -> int:
    with torch.device("meta"):
        model = Decoder(config, VOCAB, torch.bfloat16)
        return Cache(model, batch, capacity).bytes


def test_cache_figures_of_8b_and_70b_models() -> None:
    """ARCH-02: 8192 tokens in 2 bytes, by the recipe and by the real cache."""
    small, large, single = dense(32, 32, 32), dense(80, 64, 64), dense(80, 64, 1)
    assert cache_bytes(small, 8192) == real_bytes(small, 1, 8192) == 4 * GIB
    assert cache_bytes(large, 8192) == real_bytes(large, 1, 8192) == 20 * GIB
    assert cache_bytes(single, 8192) == real_bytes(single, 1, 8192) == 20 * GIB // 64


@settings(max_examples=60)
@given(layer=attention_layers, capacity=st.integers(1, 40), batch=st.integers(1, 3))
def test_the_recipe_foretells_the_bytes_of_every_cache(layer: dict[str, Any], capacity: int, batch: int) -> None:
    """ARCH-02"""
    config = section(layers=2, **layer)
    assert batch * cache_bytes(config, capacity) == real_bytes(config, batch, capacity)


def feed(cache: KeyValues, lengths: list[int], starts: Tensor, cached: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Append as many tokens at a time as `lengths` says, each token's key its row position; what was seen each time."""
    seen = []
    for length in lengths:
        new = slice(cached, cached + length)
        index = torch.arange(cached, cached + length).float().view(1, -1, 1, 1).expand(len(starts), -1, 1, 1)
        context = Context(index[..., 0, 0], starts[:, new], cached)
        keys, values, places = cache.append(index, -index, context)
        assert torch.equal(keys, -values)
        seen.append((keys[..., 0, 0].clone(), places.clone()))  # a cache may hand out what it goes on writing to
        cached += length
    return seen


def ring(batch: int, window: int, sink_tokens: int) -> Ring:
    keys, values = torch.zeros(2, batch, window + sink_tokens, 1, 1)
    return Ring(keys, values, sink_tokens)


@settings(max_examples=60)
@given(
    documents=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=3),
    window=st.integers(1, 6),
    sink_tokens=st.integers(0, 3),
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=30),
)
def test_a_ring_holds_the_first_tokens_of_each_rows_document_and_the_window(
    documents: list[list[int]], window: int, sink_tokens: int, steps: list[int]
) -> None:
    """ARCH-14: the policy "first k + window"; every visible token is there once, under its own key."""
    total = max(map(sum, documents))
    starts = starts_of([[*row, total - sum(row)] if sum(row) < total else row for row in documents])
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(min(steps[len(lengths) % len(steps)], total - sum(lengths)))
    done = 0
    for length, (keys, places) in zip(
        lengths, feed(ring(len(starts), window, sink_tokens), lengths, starts), strict=True
    ):
        for row, start in enumerate(starts.tolist()):
            held = places.expand(len(starts), -1)[row]
            assert torch.equal(keys[row][held >= 0], held[held >= 0].float())
            for query in range(done, done + length):
                first = start[query]
                visible = {place for place in range(first, query + 1) if query - place < window}
                visible |= set(range(first, min(first + sink_tokens, query + 1)))
                inside = [place for place in held.tolist() if place in visible]
                assert sorted(inside) == sorted(visible), (query, held)
        done += length


def test_a_ring_is_no_larger_than_its_window_however_long_the_text() -> None:
    """ARCH-14"""
    cache = ring(1, window=4, sink_tokens=2)
    _, places = feed(cache, [3, *[1] * 30], torch.zeros(1, 40, dtype=torch.int32))[-1]
    assert cache.keys.shape == (1, 6, 1, 1)
    assert sorted(places[0].tolist()) == [0, 1, 29, 30, 31, 32]


def test_rows_that_are_not_kept_leave_every_kind_of_cache() -> None:
    latent = {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 4, "rope_dim": 4, "value_dim": 4}
    changes = [{"layers": 0, "attention": latent}, {"layers": 1, "attention": {"window": 3, "sink_tokens": 1}}]
    model, x = decoder(section(per_layer=changes)), tokens(3, 12)
    starts = starts_of([[12], [2, 10], [1, 11]])
    cache, rows = Cache(model, 3, 12), torch.tensor([2, 0])
    model(x[:, :7], starts[:, :7], cache=cache)
    cache.keep(rows)
    assert all(
        tensor.shape[0] == 2 for tensor in (cache.layers[0].vectors, cache.layers[1].index, cache.layers[2].keys)
    )
    expected = model(x[rows], starts[rows])[:, 7:]
    torch.testing.assert_close(model(x[rows, 7:], starts[rows, 7:], cache=cache), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "attention", [{}, {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 4, "rope_dim": 4, "value_dim": 4}]
)
def test_more_tokens_than_the_cache_has_room_for_are_refused(attention: dict[str, Any]) -> None:
    model = decoder(section(layers=1, per_layer=[{"layers": 0, "attention": attention}]))
    cache = Cache(model, 1, 5)
    model(tokens(1, 4), cache=cache)
    with pytest.raises(InputError, match="6 tokens do not fit a cache made for 5"):
        model(tokens(1, 2), cache=cache)
