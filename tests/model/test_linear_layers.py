"""What every layer with a state owes: documents stay apart, the cache changes nothing, and the accounting is true."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_layers import AROUND, DELTANET, HIDDEN, LAYERS, MAMBA2, context, in_pieces, inputs, layer, linear
from pydantic import ValidationError
from small_models import decoder, section, starts_of, tokens
from torch.utils.flop_counter import FlopCounterMode

from smelt.model.generate import continue_ids
from smelt.model.init import draw
from smelt.recipe.parts.part import Kept
from smelt.recipe.parts.table import MIXER

KINDS = pytest.mark.parametrize("fields", LAYERS.values(), ids=LAYERS.keys())


@KINDS
@settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), chunk=st.integers(1, 12), data=st.data())
def test_a_packed_row_equals_its_documents_one_by_one(
    fields: dict[str, Any], lengths: list[int], chunk: int, data: st.DataObject
) -> None:
    """ARCH-07: states and convolutions reset wherever in a chunk a document begins, in all forms."""
    module = layer(chunked(fields, chunk))
    total = sum(lengths)
    x = inputs(2, total)
    starts = starts_of([lengths, [total]])
    alone = [module(part, context(part), None) for part in x[:1].split(lengths, 1)]
    expected = torch.cat((torch.cat(alone, 1), module(x[1:], context(x[1:]), None)))
    torch.testing.assert_close(module(x, context(x, starts), None), expected, rtol=0, atol=1e-4)
    cut = data.draw(st.integers(0, total))
    for pieces in ([1] * total, [size for size in (cut, total - cut) if size]):
        torch.testing.assert_close(in_pieces(module, x, starts, pieces), expected, rtol=0, atol=1e-4)


@KINDS
def test_no_gradient_crosses_documents(fields: dict[str, Any]) -> None:
    """ARCH-07"""
    module, x = layer(chunked(fields, 8)), inputs(1, 13).requires_grad_()
    module(x, context(x, starts_of([[5, 8]])), None)[:, 5:].square().sum().backward()
    assert bool((x.grad[:, :5] == 0).all()) and bool((x.grad[:, 5:] != 0).any(-1).all())


@KINDS
def test_altering_a_document_changes_no_bit_of_the_others(fields: dict[str, Any]) -> None:
    """ARCH-07"""
    module, x, starts = layer(chunked(fields, 8)), inputs(1, 13), starts_of([[3, 6, 4]])
    other = x.clone()
    other[:, 3:9] = inputs(1, 6, "other")
    out, altered = (module(each, context(each, starts), None) for each in (x, other))
    apart = torch.tensor([0, 1, 2, 9, 10, 11, 12])
    assert torch.equal(out[:, apart], altered[:, apart]) and not torch.equal(out, altered)


@KINDS
def test_parameters_and_cache_are_what_the_recipe_says(fields: dict[str, Any]) -> None:
    """ARCH-02, ARCH-25: the cache is as large after a thousand tokens as after one, attention's branch aside."""
    config, module = MIXER.validate_python(fields), layer(fields)
    assert sum(each.numel() for each in module.parameters()) == config.count(AROUND).total
    for capacity in (1, 1000):
        kept: Kept = config.kept(AROUND, capacity)
        cache = module.new_cache(3, capacity, torch.bfloat16, "cpu")
        assert cache.bytes == 3 * (2 * kept.values + 4 * kept.states)
        assert fields["kind"] == "parallel" or kept == config.kept(AROUND, 1)


@KINDS
def test_a_cache_can_drop_rows(fields: dict[str, Any]) -> None:
    """ARCH-04"""
    module, x = layer(fields), inputs(3, 8)
    cache = module.new_cache(3, 8, x.dtype, x.device)
    module(x[:, :7], context(x[:, :7]), cache)
    rows = torch.tensor([2, 0])
    cache.keep(rows)
    out = module(x[rows, 7:], context(x[rows, 7:], cached=7), cache)
    torch.testing.assert_close(out, module(x, context(x), None)[rows, 7:], rtol=0, atol=1e-4)


@KINDS
def test_prompts_of_different_lengths_decode_together_as_they_do_alone(fields: dict[str, Any]) -> None:
    """ARCH-04: padded on the left, in a decoder with attention beside."""
    model = decoder(section(per_layer=[{"layers": "::2", "attention": fields}]))
    prompts = [tokens(1, length, seed=length)[0].tolist() for length in (2, 9, 5, 1)]
    forbidden = torch.zeros(model.vocab, dtype=torch.bool)
    alone = [continue_ids(model, [prompt], set(), forbidden, 5)[0] for prompt in prompts]
    assert continue_ids(model, prompts, set(), forbidden, 5) == alone
    ids = list(prompts[1])
    for _ in range(5):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert alone[1] == ids[9:]


@KINDS
def test_a_token_costs_the_same_in_a_row_of_any_length(fields: dict[str, Any]) -> None:
    """ARCH-25: operations counted, forward and backward; attention's branch is left out."""
    if fields["kind"] == "parallel":
        fields = {**fields, "branches": [fields["branches"][0], fields["branches"][2]]}
    module = layer(chunked(fields, 8))
    short, middle, long = (counted(module, sequence) for sequence in (32, 64, 128))
    assert long - middle == 2 * (middle - short) > 0


@pytest.mark.parametrize("fields", [{**MAMBA2, "chunk": 8}, linear("none", chunk=8), linear("mlstm", chunk=8)])
def test_flops_are_those_counted_but_for_the_causal_half(fields: dict[str, Any]) -> None:
    """Projections, chunks and states; the counter sees whole squares, and no elementwise work such as convolutions."""
    config = MIXER.validate_python(fields)
    short, long = config.flops(AROUND, 1), config.flops(AROUND, 64)
    within = (long - short) * 8 / 7  # grows with the chunk alone
    convolution = 2 * config.convolved * config.conv if fields["kind"] == "mamba2" else 0
    seen = counted(layer(fields), 64, backward=False) / (64 * 2)
    assert seen == pytest.approx(long + within - convolution)


def counted(module: torch.nn.Module, sequence: int, backward: bool = True) -> int:
    """FLOPs of the products in a forward and backward pass over two rows."""
    x = inputs(2, sequence)
    with FlopCounterMode(display=False) as counter:
        out = module(x, context(x), None)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


def chunked(fields: dict[str, Any], chunk: int) -> dict[str, Any]:
    """`fields` with another chunk, in every branch that has one."""
    if fields["kind"] != "parallel":
        return {**fields, "chunk": chunk}
    branches = [
        {**branch, "mixer": chunked(branch["mixer"], chunk) if "kind" in branch["mixer"] else branch["mixer"]}
        for branch in fields["branches"]
    ]
    return {**fields, "branches": branches}


def test_branches_are_added_with_their_scales() -> None:
    module = layer(LAYERS["parallel"])
    x = inputs(2, 9)
    first, second, third = (
        branch(x * scale, context(x), None) for branch, scale in zip(module.branches, (0.5, 1, 1), strict=True)
    )
    torch.testing.assert_close(module(x, context(x), None), first + 2 * second + third)


@pytest.mark.parametrize("fields", [MAMBA2, DELTANET, linear("gla"), linear("mamba")])
def test_bfloat16_activations_keep_states_in_float32(fields: dict[str, Any]) -> None:
    module, x = layer(fields), inputs(2, 9).bfloat16()
    cache = module.new_cache(2, 9, torch.bfloat16, "cpu")
    out = module(x, context(x), cache)
    assert (out.dtype, cache.state.dtype) == (torch.bfloat16, torch.float32)
    assert cache.tail is None or cache.tail.dtype == torch.bfloat16
    expected = module(x.float(), context(x), None)
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()
    out.float().square().sum().backward()
    assert all(each.grad.dtype == torch.float32 for each in module.parameters())


@pytest.mark.parametrize("fields", [MAMBA2, DELTANET])
def test_strong_decays_stay_finite(fields: dict[str, Any]) -> None:
    module, x = layer({**fields, "chunk": 16}), inputs(2, 32).requires_grad_()
    with torch.no_grad():
        module.a_log += 5
    module(x, context(x), None).square().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in (x, *module.parameters()))


def test_equal_keys_do_not_upset_the_delta_rule() -> None:
    """The triangular system of a chunk is at its worst when all keys are the same and nothing fades."""
    module, x = layer({**DELTANET, "chunk": 64}), inputs(1, 1).expand(1, 64, HIDDEN).contiguous()
    with torch.no_grad():
        module.a_log.fill_(-20)
        module.b.weight *= 20
    torch.testing.assert_close(module(x, context(x), None), in_pieces(module, x, None, [1] * 64), rtol=0, atol=1e-4)


def test_layers_start_with_a_spread_of_time_scales() -> None:
    """ARCH-18: Mamba-2's rates 1, 2, 3...; steps log-uniform from 0.001 to 0.1; skips of 1; DeltaNet's rates to 16."""
    mamba, delta, gate = layer(MAMBA2).fills, layer(DELTANET).fills, layer(linear("mamba")).gate.fills
    rates = draw("x", 0, 0, 4, mamba["a_log"]).exp()
    torch.testing.assert_close(rates, torch.tensor([1.0, 2, 3, 4], dtype=torch.float64))
    steps = torch.nn.functional.softplus(draw("x", 0, 0, 999, mamba["dt_bias"]))
    assert 0.001 <= steps.min() < 0.0011 and 0.09 < steps.max() <= 0.1 and 0.009 < steps.median() < 0.011
    assert draw("x", 0, 0, 3, mamba["d"]).tolist() == [1, 1, 1]
    assert 15 < draw("x", 0, 0, 999, delta["a_log"]).exp().max() <= 16
    decays = draw("x", 0, 0, 2 * 4 * 5, gate["a"]).exp().view(2, 4, 5)
    assert torch.equal(decays[0], decays[1]) and decays[0, 0, 0] == pytest.approx(0.001)
    assert decays[0, 3, 4] == pytest.approx(0.1)
    assert draw("x", 0, 0, 999, layer(MAMBA2).conv.fills["weight"]).abs().max() <= 3**-0.5


@pytest.mark.parametrize("fields", [MAMBA2, DELTANET, linear("mamba")])
def test_a_compiler_takes_the_layer_whole(fields: dict[str, Any]) -> None:
    """Without a graph break."""
    module, x, starts = layer({**fields, "chunk": 4}), inputs(2, 7), starts_of([[7], [3, 4]])

    def run(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(x, context(x, starts), None)
        return out

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**MAMBA2, "heads": 3}, r"heads \(3\) must be divisible by groups \(2\)"),
        ({**MAMBA2, "norm_groups": 3}, r"heads \* head_dim \(20\) must be divisible by norm_groups \(3\)"),
        ({**MAMBA2, "norm": False}, r"norm_groups \(2\) needs norm"),
        ({**MAMBA2, "dt_min": 0.2, "dt_max": 0.1}, r"dt_min \(0\.2\) must be below dt_max \(0\.1\)"),
        ({**MAMBA2, "norm": False, "norm_groups": 1, "gate_first": False}, r"gate_first \(false\) needs norm"),
        ({**DELTANET, "key_heads": 3}, r"value_heads \(4\) must be divisible by key_heads \(3\)"),
        (linear("tanh"), "gate"),
        (linear("mlstm", rank=8), r"rank \(8\) does not go with gate 'mlstm'"),
        (linear("hgrn2", tau=8), r"tau \(8\) does not go with gate 'hgrn2'"),
        (linear("gla", floor=0.5), r"floor \(0\.5\) does not go with gate 'gla'"),
        ({"kind": "parallel", "branches": [{"mixer": MAMBA2}]}, "branches"),
        ({"kind": "parallel", "branches": [{"mixer": {**MAMBA2, "heads": 3}}] * 2}, r"heads \(3\)"),
    ],
)
def test_impossible_combinations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MIXER.validate_python(fields)


@pytest.mark.parametrize(
    ("mixer", "message"),
    [({"kind": "none"}, r"branches\.1 has the mixer 'none'"), ({"heads": 3, "kv_heads": 1}, r"branches\.1: hidden")],
)
def test_branches_that_do_not_fit_are_refused_by_number(mixer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(attention={"kind": "parallel", "branches": [{"mixer": MAMBA2}, {"mixer": mixer}]})
