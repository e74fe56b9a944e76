"""What a model costs, from its recipe alone: parameters, FLOPs a token, and the bytes that decoding keeps."""

from collections.abc import Iterator
from typing import Any

from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.parts.part import Counts, Kept
from smelt.recipe.parts.position import Learned
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model


def parameters(model: Model, vocab: int) -> dict[str, int]:
    """Parameter counts by part: embedding, head (0 when tied), attention (every mixer), feedforward, norm, multi_token;
    their total and `active`.

    `active` leaves out the experts that a token is not sent to and the multi-token layers, which only training uses.
    It holds the embedding, of which a token meets one row: some publications count it (Qwen3), some do not (gpt-oss).
    """
    attention, feedforward, norms = Counts(0, 0), Counts(0, 0), 1
    for index in range(model.layers):
        mixer, network, own = _layer(model, index)
        attention, feedforward, norms = attention + mixer, feedforward + network, norms + own
    learned = model.position.length * model.hidden if isinstance(model.position, Learned) else 0
    parts = {
        "embedding": vocab * model.hidden + learned,
        "head": 0 if model.tie_embeddings else vocab * model.hidden,
        "attention": attention.total,
        "feedforward": feedforward.total,
        "norm": norms * model.hidden,
        "multi_token": _multi_token(model),
    }
    total = sum(parts.values())
    idle = feedforward.total - feedforward.active + attention.total - attention.active
    return {**parts, "total": total, "active": total - idle - parts["multi_token"]}


def flops_per_token(model: Model, vocab: int, sequence: int) -> int:
    """Training FLOPs a token: forward, and twice that for the backward pass; causal attention at half.

    A weight that multiplies costs 2 forward; scores and values 4 * heads * head_dim * sequence / 2 a layer (Chowdhery
    et al. 2022, appendix B, halved for causality). Multi-token prediction adds its layers and a head for each.
    """
    forward = forward_flops(model, vocab, sequence)
    if model.multi_token is not None:
        joining = 4 * model.hidden * model.hidden
        last = layer_flops(model, model.layers - 1, sequence)
        forward += model.multi_token.depth * (joining + last + 2 * vocab * model.hidden)
    return 3 * forward


def forward_flops(model: Model, vocab: int, sequence: int) -> int:
    """FLOPs a token of the forward pass to the logits, over a row of `sequence` tokens."""
    layers = sum(layer_flops(model, index, sequence) for index in range(model.layers))
    return layers + 2 * vocab * model.hidden


def cache_bytes(model: Model, tokens: int, value_bytes: int = 2) -> int:
    """Bytes that decoding keeps for one row of `tokens` tokens; recurrent states are float32."""
    kept = sum((layer.attention.kept(model.around(i), tokens) for i, layer in enumerate(model.each_layer)), Kept(0))
    return kept.values * value_bytes + 4 * kept.states


def sparsity(part: MixtureOfExperts) -> float:
    """All experts over those that a token meets, shared ones included in both: 28.6 for DeepSeek-V3."""
    shared = (part.shared_width or 0) / part.width
    return (part.experts + shared) / (part.top_k + shared)


def granularity(part: MixtureOfExperts, hidden: int) -> float:
    """2 * hidden / width of an expert: 7.0 for DeepSeek-V3. gpt-oss, 2880 wide in both, has 2.0, where the playbook's
    table prints 0.5."""
    return 2 * hidden / part.width


def training_flops(recipe: Recipe, vocab: int) -> int:
    """FLOPs of all of a run's own training, each segment at its own sequence and with what it sets; a trunk's are not
    counted."""
    plan = Plan(recipe)
    return sum(
        (segment.end - segment.first)
        * segment.batch_tokens
        * flops_per_token(segment.model or recipe.section("model"), vocab, segment.sequence)
        for segment in plan.segments
        if segment.first >= plan.first
    )


def cost(recipe: Recipe, vocab: int, sequence: int) -> dict[str, Any]:
    """What a recipe's model costs: parameters by part, FLOPs a token and cache bytes of a row (2 bytes a value) at
    `sequence` tokens; sparsity and granularity where there are experts; FLOPs of training where it says how long."""
    model: Model = recipe.section("model")
    facts: dict[str, Any] = {
        "name": recipe.name,
        "vocabulary": vocab,
        "sequence": sequence,
        "parameters": parameters(model, vocab),
        "forward_flops_per_token": forward_flops(model, vocab, sequence),
        "training_flops_per_token": flops_per_token(model, vocab, sequence),
        "cache_bytes": cache_bytes(model, sequence),
    }
    experts = [
        {"experts": part.experts, "sparsity": sparsity(part), "granularity": granularity(part, model.hidden)}
        for part in dict.fromkeys(_experts(model))
    ]
    if experts:
        facts["experts"] = experts
    if recipe.train is not None:
        facts["training_flops"] = training_flops(recipe, vocab)
    return facts


def _layer(model: Model, index: int) -> tuple[Counts, Counts, int]:
    """Mixer, feed-forward and norms of a layer."""
    layer, around = model.each_layer[index], model.around(index)
    norms = layer.norm.count * ((layer.attention.kind != "none") + (layer.feedforward.kind != "none"))
    return layer.attention.count(around), layer.feedforward.count(around), norms


def layer_flops(model: Model, index: int, sequence: int) -> int:
    """FLOPs a token of the forward pass through one layer."""
    layer, around = model.each_layer[index], model.around(index)
    flops: int = layer.attention.flops(around, sequence) + layer.feedforward.flops(around, sequence)
    return flops


def _multi_token(model: Model) -> int:
    """A further layer, three norms and the matrix that joins state and embedding, `depth` times."""
    if model.multi_token is None:
        return 0
    mixer, network, norms = _layer(model, model.layers - 1)
    own = mixer.total + network.total + (norms + 3) * model.hidden + 2 * model.hidden * model.hidden
    return model.multi_token.depth * own


def _experts(model: Model) -> Iterator[MixtureOfExperts]:
    for layer in model.each_layer:
        if isinstance(layer.feedforward, MixtureOfExperts):
            yield layer.feedforward
