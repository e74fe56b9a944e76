"""What a model costs, from its recipe alone: parameters, FLOPs a token, and the bytes that decoding keeps."""

from smelt.recipe.parts.part import Counts, Kept
from smelt.recipe.parts.position import Learned
from smelt.recipe.sections.model import Model


def parameters(model: Model, vocab: int) -> dict[str, int]:
    """Parameter counts by part: embedding, head (0 when tied), attention, feedforward, norm; their total and `active`,
    those that one token meets."""
    attention, feedforward, norms = Counts(0, 0), Counts(0, 0), 1
    for index, layer in enumerate(model.each_layer):
        around = model.around(index)
        attention += layer.attention.count(around)
        feedforward += layer.feedforward.count(around)
        norms += layer.norm.count * ((layer.attention.kind != "none") + (layer.feedforward.kind != "none"))
    learned = model.position.length * model.hidden if isinstance(model.position, Learned) else 0
    parts = {
        "embedding": vocab * model.hidden + learned,
        "head": 0 if model.tie_embeddings else vocab * model.hidden,
        "attention": attention.total,
        "feedforward": feedforward.total,
        "norm": norms * model.hidden,
    }
    total = sum(parts.values())
    return {**parts, "total": total, "active": total - feedforward.total + feedforward.active}


def flops_per_token(model: Model, vocab: int, sequence: int) -> int:
    """Training FLOPs a token: forward, and twice that for the backward pass; causal attention at half.

    A weight that multiplies costs 2 forward; scores and values 4 * heads * head_dim * sequence / 2 a layer (Chowdhery
    et al. 2022, appendix B, halved for causality).
    """
    return 3 * forward_flops(model, vocab, sequence)


def forward_flops(model: Model, vocab: int, sequence: int) -> int:
    """FLOPs a token of the forward pass over a row of `sequence` tokens."""
    flops = 2 * vocab * model.hidden
    for index, layer in enumerate(model.each_layer):
        around = model.around(index)
        flops += layer.attention.flops(around, sequence) + layer.feedforward.flops(around, sequence)
    return flops


def cache_bytes(model: Model, tokens: int, value_bytes: int = 2) -> int:
    """Bytes that decoding keeps for one row of `tokens` tokens; recurrent states are float32."""
    kept = sum((layer.attention.kept(model.around(i), tokens) for i, layer in enumerate(model.each_layer)), Kept(0))
    return kept.values * value_bytes + 4 * kept.states
