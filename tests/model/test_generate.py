"""Generation: batches, stopping, sampling, and what is never produced."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB, decoder, generator, section, tokens
from torch import Tensor
from variants import DELTANET, MAMBA2, attention_layers, recurrent_layers

from smelt.errors import InputError
from smelt.model.cache import Cache
from smelt.model.decoder import Decoder
from smelt.model.families import export_model
from smelt.model.generate import continue_ids, generate, generate_ids
from smelt.model.load import load_model
from smelt.model.sampling import choose
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import train_tokenizer

NOTHING = torch.zeros(VOCAB, dtype=torch.bool)
TEXTS = ["the quick brown fox jumps over the lazy dog", "a stitch in time saves nine"] * 3


def greedy(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding with a full forward pass a token."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(300, TEXTS)


def by_cache(model: Decoder, rows: list[list[int]], prompts: list[int], cuts: list[int]) -> list[Tensor]:
    """Logits of each row from its prompt's last token on: prompts padded on the left, then `cuts` tokens at a time."""
    longest, rest = max(prompts), sum(cuts)
    starts = torch.tensor([[longest - prompt] for prompt in prompts], dtype=torch.int32)
    ids = torch.tensor([[7] * (longest - prompt) + row for row, prompt in zip(rows, prompts, strict=True)])
    begins = torch.where(torch.arange(longest + rest) >= starts, starts, 0).to(torch.int32)
    cache, parts, done = Cache(model, len(rows), longest + rest), [], 0
    for length in (longest, *cuts):
        new = slice(done, done + length)
        parts.append(model(ids[:, new], begins[:, new] if starts.any() else None, cache=cache))
        done += length
    return list(torch.cat(parts, 1)[:, longest - 1 :])


def check_cached(layer: dict[str, Any], prompts: list[int], cuts: list[int], tolerance: float) -> None:
    """Decoding with a cache, prompts together, gives each row the logits of a full forward pass alone."""
    model = decoder(section(layers=2, **layer)).eval()
    rows = [tokens(1, prompt + sum(cuts), seed=index)[0].tolist() for index, prompt in enumerate(prompts)]
    with torch.no_grad():
        for row, prompt, logits in zip(rows, prompts, by_cache(model, rows, prompts, cuts), strict=True):
            expected = model(torch.tensor([row]))[0, prompt - 1 :]
            torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)


lengths_of_prompts = st.lists(st.integers(1, 12), min_size=1, max_size=3)
tokens_at_a_time = st.lists(st.sampled_from([1, 1, 1, 2, 5]), max_size=12)


@settings(max_examples=60)
@given(layer=attention_layers, prompts=lengths_of_prompts, cuts=tokens_at_a_time)
def test_cached_decoding_equals_the_full_forward_for_every_attention(
    layer: dict[str, Any], prompts: list[int], cuts: list[int]
) -> None:
    """ARCH-04: every attention, position and scope, token by token and several at a time."""
    check_cached(layer, prompts, cuts, 1e-5)


@settings(max_examples=30)
@given(layer=recurrent_layers, prompts=lengths_of_prompts, cuts=tokens_at_a_time)
def test_cached_decoding_equals_the_full_forward_for_every_recurrent_layer(
    layer: dict[str, Any], prompts: list[int], cuts: list[int]
) -> None:
    """ARCH-04, ARCH-25: to 1e-4, as normalising a small output enlarges the rounding before it."""
    check_cached(layer, prompts, cuts, 1e-4)


MIXED = [
    {"layers": 0, "attention": {"window": 5, "sink_tokens": 2, "sinks": True, "gate": "head"}},
    {"layers": 1, "position": {"kind": "none"}},
    {"layers": 2, "attention": {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 4, "rope_dim": 4, "value_dim": 4}},
    {"layers": 3, "attention": {"chunk": 4, "qk_norm": "head"}, "position": {"kind": "alibi"}},
    {"layers": 4, "attention": MAMBA2},
    {"layers": 5, "attention": {"kind": "none"}},
    {"layers": 6, "attention": DELTANET, "feedforward": {"kind": "none"}},
]


@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4))
def test_a_batch_of_different_lengths_equals_uncached_decoding_one_by_one(lengths: list[int]) -> None:
    """ARCH-04: layers of every kind in one model."""
    model = decoder(section(layers=7, per_layer=MIXED))
    prompts = [tokens(1, length, seed=length)[0].tolist() for length in lengths]
    assert continue_ids(model, prompts, set(), NOTHING, 7) == [greedy(model, prompt, 7) for prompt in prompts]


def test_it_decodes_in_evaluation_mode_and_gives_the_models_mode_back() -> None:
    """Dual chunk attention refuses to train, and generates from a model that trains."""
    position = {"kind": "rope", "theta": 100.0, "scaling": {"kind": "dual_chunk", "chunk": 4, "local": 3}}
    model, prompt = decoder(section(position=position)), tokens(1, 9)[0].tolist()
    ids = continue_ids(model.train(), [prompt], set(), NOTHING, 5)
    assert model.training
    assert ids == [greedy(model.eval(), prompt, 5)]


def test_prompts_beyond_the_learned_positions_are_refused_by_name() -> None:
    model = decoder(section(position={"kind": "learned", "length": 16}))
    prompts = [tokens(1, length)[0].tolist() for length in (4, 12)]
    assert continue_ids(model, prompts, set(), NOTHING, 4) == [greedy(model, prompt, 4) for prompt in prompts]
    with pytest.raises(InputError, match=r"prompt 1 has 12 tokens.*max_tokens \(5\).*model.position.length \(16\)"):
        continue_ids(model, prompts, set(), NOTHING, 5)


def test_many_prompts_come_back_in_their_order() -> None:
    model = decoder(section(layers=1))
    prompts = [tokens(1, 1 + index % 7, seed=index)[0].tolist() for index in range(150)]
    assert continue_ids(model, prompts, set(), NOTHING, 3) == [greedy(model, prompt, 3) for prompt in prompts]
    assert continue_ids(model, [], set(), NOTHING, 3) == []


def test_a_row_that_stopped_stays_stopped_and_the_others_go_on() -> None:
    model = decoder()
    prompts = [tokens(1, 4, seed=index)[0].tolist() for index in range(6)]
    free = [greedy(model, prompt, 12) for prompt in prompts]
    stop = free[2][3]
    expected = [ids[: ids.index(stop)] if stop in ids else ids for ids in free]
    assert continue_ids(model, prompts, {stop}, NOTHING, 12) == expected
    assert len(expected[2]) <= 3


def test_forbidden_ids_are_never_produced() -> None:
    forbidden = torch.arange(VOCAB) >= 5
    prompts = [tokens(1, 4, seed=index)[0].tolist() for index in range(4)]
    for temperature in (0.0, 2.0):
        out = continue_ids(decoder(), prompts, set(), forbidden, 20, temperature)
        assert all(len(ids) == 20 and max(ids) < 5 for ids in out)


def test_ids_past_the_tokenizer_and_padding_are_never_produced(tokenizer: Tokenizer) -> None:
    """The vocabulary of a model is padded; its extra rows mean nothing."""
    model = decoder(section(layers=1, init={"kind": "normal", "std": 0.02}), vocab=tokenizer.padded)
    assert model.vocab > len(tokenizer)
    out = generate_ids(model, tokenizer, ["the fox"] * 8, max_tokens=60, temperature=1.5, stop=[20, 21])
    produced = {id for ids in out for id in ids}
    assert produced and max(produced) < len(tokenizer)
    assert not produced & {tokenizer.pad, tokenizer.eos, tokenizer.eot, 20, 21}


def test_draws_depend_on_the_seed_and_the_row_alone() -> None:
    model = decoder(section(init={"kind": "normal", "std": 0.05}))
    prompts = [tokens(1, 5)[0].tolist()] * 4
    first = continue_ids(model, prompts, set(), NOTHING, 15, temperature=1.0, seed=1)
    assert first == continue_ids(model, prompts, set(), NOTHING, 15, temperature=1.0, seed=1)
    assert first != continue_ids(model, prompts, set(), NOTHING, 15, temperature=1.0, seed=2)
    assert first[:2] == continue_ids(model, prompts[:2], set(), NOTHING, 15, temperature=1.0, seed=1)
    assert len({tuple(ids) for ids in first}) == 4


def test_samples_follow_the_tempered_distribution_within_the_nucleus() -> None:
    logits = torch.randn(12, generator=generator(0))
    count = 20_000
    uniforms = (torch.arange(count) + 0.5).double() / count
    expected = (logits / 0.7).softmax(0)
    drawn = choose(logits.expand(count, -1), 0.7, 1.0, uniforms).bincount(minlength=12) / count
    torch.testing.assert_close(drawn, expected, rtol=0, atol=2e-4)
    ranked, ids = expected.sort(descending=True)
    kept = ids[: int((ranked.cumsum(0) < 0.6).sum()) + 1]
    nucleus = torch.zeros(12).scatter(0, kept, expected[kept] / expected[kept].sum())
    drawn = choose(logits.expand(count, -1), 0.7, 0.6, uniforms).bincount(minlength=12) / count
    torch.testing.assert_close(drawn, nucleus, rtol=0, atol=2e-4)


def test_a_tiny_nucleus_is_greedy() -> None:
    logits = torch.randn(50, 30, generator=generator(0))
    uniforms = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    assert torch.equal(choose(logits, 1.0, 1e-9, uniforms), choose(logits, 0.0, 1.0, uniforms))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 has no tokens"),
        ({"prompts": [[VOCAB]]}, "prompt 0 has an id outside"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"prompts": [[1]], "stops": set(), "forbidden": NOTHING, "max_tokens": 2, **changes}
    with pytest.raises(InputError, match=message):
        continue_ids(decoder(), **arguments)  # type: ignore[arg-type]


def test_text_in_text_out_before_and_after_export(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """An exported folder carries its tokenizer and the ids that end a generation; transformers agrees on the text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = decoder(section(init={"kind": "normal", "std": 0.1}), vocab=tokenizer.padded)
    texts = generate(model, tokenizer, ["the quick", "a stitch in time"], max_tokens=12)
    export_model(model, tmp_path / "model", tokenizer=tokenizer, context=128)
    again = load_model(tmp_path / "model")
    assert generate(again, load_tokenizer(tmp_path / "model"), ["the quick", "a stitch in time"], 12) == texts
    settings = GenerationConfig.from_pretrained(tmp_path / "model")
    assert (settings.eos_token_id, settings.pad_token_id) == ([tokenizer.eos, tokenizer.eot], tokenizer.pad)
    other, words = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    never = [tokenizer.pad, *range(len(tokenizer), model.vocab)]
    prompt = words("the quick", return_tensors="pt")
    ids = other.generate(**prompt, max_new_tokens=12, do_sample=False, suppress_tokens=never)[0]
    assert words.decode(ids, skip_special_tokens=True) == "the quick" + texts[0]
