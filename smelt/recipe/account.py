"""Parameters and FLOPs of a model, from its recipe alone."""

from smelt.recipe.sections.model import Model


def parameters(model: Model, vocab: int) -> dict[str, int]:
    """Parameter counts by part: embedding, head (0 when tied), attention, feedforward, norm, and their total."""
    attention = feedforward = 0
    for index in range(model.layers):
        layer, head_dim = model.layer(index), model.head_dim(index)
        attention += 2 * model.hidden * head_dim * (layer.attention.heads + layer.attention.kv_heads)
        feedforward += 3 * model.hidden * layer.feedforward.width
    parts = {
        "embedding": vocab * model.hidden,
        "head": 0 if model.tie_embeddings else vocab * model.hidden,
        "attention": attention,
        "feedforward": feedforward,
        "norm": (2 * model.layers + 1) * model.hidden,
    }
    return {**parts, "total": sum(parts.values())}


def flops_per_token(model: Model, vocab: int, sequence: int) -> int:
    """Training FLOPs a token, forward and backward: 6 a weight that multiplies, and causal attention at half.

    Attention scores and values cost 12 * heads * head_dim * sequence / 2 a layer (Chowdhery et al. 2022, appendix B,
    halved for causality).
    """
    parts = parameters(model, vocab)
    weights = parts["attention"] + parts["feedforward"] + vocab * model.hidden
    scores = sum(model.layer(i).attention.heads * model.head_dim(i) for i in range(model.layers))
    return 6 * weights + 6 * scores * sequence
