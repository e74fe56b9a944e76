"""Draws of every kind of attention and position that go together, as recipes write them; hidden is 32."""

from typing import Any

from hypothesis import strategies as st

YARN = {"kind": "yarn", "factor": 4.0, "original": 16}
LLAMA3 = {"kind": "llama3", "factor": 4.0, "original": 32}
DUAL_CHUNK = {"kind": "dual_chunk", "chunk": 4, "local": 3, "original": 8}
SCALINGS: list[Any] = [None, {"kind": "linear", "factor": 3.0}, YARN, LLAMA3]
LENGTH = 64  # of the learned table

rope = st.fixed_dictionaries(
    {
        "kind": st.just("rope"),
        "theta": st.sampled_from([100.0, 10_000.0]),
        "fraction": st.sampled_from([1.0, 0.5]),
        "scaling": st.sampled_from(SCALINGS),
    }
)
unturned = st.sampled_from([{"kind": "none"}, {"kind": "learned", "length": LENGTH}])
positions = rope | unturned | st.just({"kind": "alibi"})
dual_chunk = st.just({"kind": "rope", "theta": 100.0, "scaling": DUAL_CHUNK})
scopes = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"window": st.integers(1, 9), "sink_tokens": st.integers(0, 3)}),
    st.fixed_dictionaries({"chunk": st.integers(1, 9)}),
)
weighing = st.fixed_dictionaries(
    {
        "kv_heads": st.sampled_from([1, 2, 4]),
        "head_dim": st.sampled_from([None, 4, 12]),
        "bias": st.sampled_from(["none", "qkv", "all"]),
        "qk_norm": st.sampled_from([None, "head", "full"]),
        "gate": st.sampled_from([None, "head", "channel"]),
        "sinks": st.booleans(),
        "softcap": st.sampled_from([None, 2.0]),
        "scale": st.sampled_from([None, 0.7]),
    }
)
grouped = st.builds(lambda weighing, scope: {"kind": "gqa", "heads": 4, **weighing, **scope}, weighing, scopes)
latent = st.fixed_dictionaries(
    {
        "kind": st.just("mla"),
        "heads": st.sampled_from([1, 4]),
        "kv_rank": st.sampled_from([8, 12]),
        "q_rank": st.sampled_from([None, 10]),
        "nope_dim": st.sampled_from([4, 6]),
        "rope_dim": st.sampled_from([2, 4]),
        "value_dim": st.sampled_from([4, 10]),
        "scale": st.sampled_from([None, 0.7]),
    }
)


def _together(attention: st.SearchStrategy[Any], position: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"attention": attention, "position": position})


def _whole(attention: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attention.items() if name not in ("window", "sink_tokens", "chunk")}


grouped_layers = _together(grouped, positions)
dual_chunk_layers = _together(grouped.map(_whole), dual_chunk)
latent_layers = _together(latent, rope.map(lambda part: {**part, "fraction": 1.0}) | unturned)
attention_layers = grouped_layers | latent_layers | dual_chunk_layers

GATES = ["none", "lightning", "mamba", "mamba2", "mlstm", "retention", "dfw", "gateloop", "hgrn2", "rwkv6", "gla"]
MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "groups": 2, "conv": 4, "chunk": 4}
DELTANET = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 8, "chunk": 4}
LINEAR = {"kind": "linear", "heads": 4, "key_dim": 6, "value_dim": 8, "chunk": 4}
SIDE_BY_SIDE = {
    "kind": "parallel",
    "branches": [{"mixer": MAMBA2}, {"mixer": {"heads": 4, "kv_heads": 2, "window": 5}, "output_scale": 0.5}],
}
recurrent = st.sampled_from(
    [MAMBA2, {**MAMBA2, "norm": False}, DELTANET, SIDE_BY_SIDE]
    + [{**LINEAR, "gate": gate, "activation": "silu", "output_gate": gate == "gla"} for gate in GATES]
)
recurrent_layers = _together(recurrent, st.just({"kind": "rope", "theta": 100.0}))
