"""Mixtures of experts against the blocks of `transformers`, the dense network, and their own promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import decoder, generator, section
from torch import Tensor

from smelt.model.context import Context
from smelt.model.feedforward import SwiGLU
from smelt.model.grouped import grouped_linear
from smelt.model.moe import MixtureOfExperts
from smelt.recipe.account import parameters
from smelt.recipe.parts import dense
from smelt.recipe.parts.moe import MixtureOfExperts as Config
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings

HIDDEN, WIDTH, EXPERTS = 24, 20, 8
Get = Callable[[str], Tensor]


def mixture(hidden: int = HIDDEN, std: float = 0.3, **fields: Any) -> MixtureOfExperts:
    """A mixture with random weights, biases included."""
    config = Config.model_validate({"kind": "moe", "experts": EXPERTS, "top_k": 2, "width": WIDTH, **fields})
    module = MixtureOfExperts(config, Surroundings(hidden, None, Norm()))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(name)) * std)
    return module


def around(x: Tensor) -> Context:
    return Context(torch.zeros(x.shape[:2], dtype=torch.int64), None)


def inputs(batch: int = 2, sequence: int = 19, hidden: int = HIDDEN, seed: int = 1) -> Tensor:
    return torch.randn(batch, sequence, hidden, generator=generator(seed)).requires_grad_()


def router_and_experts(get: Get, router: str = "gate") -> dict[str, Tensor]:
    gate, up = get("experts.gate_up_proj").chunk(2, dim=1)
    down = get("experts.down_proj")
    return {"router.weight": get(f"{router}.weight"), "experts.gate": gate, "experts.up": up, "experts.down": down}


def network(get: Get, theirs: str) -> dict[str, Tensor]:
    return {f"shared.{name}.weight": get(f"{theirs}.{name}_proj.weight") for name in ("gate", "up", "down")}


def gpt_oss_weights(get: Get) -> dict[str, Tensor]:
    matrices, biases = get("experts.gate_up_proj"), get("experts.gate_up_proj_bias")
    return {
        "router.weight": get("router.weight"),
        "router.bias": get("router.bias"),
        "experts.gate": matrices[..., ::2].mT,
        "experts.up": matrices[..., 1::2].mT,
        "experts.down": get("experts.down_proj").mT,
        "experts.gate_bias": biases[..., ::2],
        "experts.up_bias": biases[..., 1::2],
        "experts.down_bias": get("experts.down_proj_bias"),
    }


def nemotron_weights(get: Get) -> dict[str, Tensor]:
    names = ("experts.up_proj", "experts.down_proj", "shared_experts.up_proj.weight", "shared_experts.down_proj.weight")
    ours = ("experts.up", "experts.down", "shared.up.weight", "shared.down.weight")
    return {"router.weight": get("gate.weight"), **{own: get(name) for own, name in zip(ours, names, strict=True)}}


BIASED = {"score": "sigmoid", "balance": {"kind": "bias"}, "scale": 2.5, "groups": 4, "groups_kept": 2}
SHARED = {"shared_width": 28}
BLOCKS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[[Get], dict[str, Tensor]]]] = {
    "mixtral": (
        "MixtralSparseMoeBlock",
        {"intermediate_size": WIDTH, "num_local_experts": EXPERTS},
        {},
        router_and_experts,
    ),
    "qwen3_moe": (
        "Qwen3MoeSparseMoeBlock",
        {"moe_intermediate_size": WIDTH, "num_experts": EXPERTS, "num_experts_per_tok": 2, "norm_topk_prob": False},
        {"normalize": False},
        router_and_experts,
    ),
    "granitemoe": (
        "GraniteMoeMoE",
        {"intermediate_size": WIDTH, "num_local_experts": EXPERTS, "num_experts_per_tok": 2},
        {},
        lambda get: router_and_experts(get, "router"),
    ),
    "qwen3_next": (
        "Qwen3NextSparseMoeBlock",
        {
            "moe_intermediate_size": WIDTH,
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "shared_expert_intermediate_size": 28,
        },
        {**SHARED, "shared_gate": True},
        lambda get: {
            **router_and_experts(get),
            **network(get, "shared_expert"),
            "shared_gate.weight": get("shared_expert_gate.weight"),
        },
    ),
    "deepseek_v3": (
        "DeepseekV3MoE",
        {
            "moe_intermediate_size": WIDTH,
            "n_routed_experts": EXPERTS,
            "num_experts_per_tok": 3,
            "n_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 2.5,
        },
        {**BIASED, "top_k": 3, "shared_width": 2 * WIDTH},
        lambda get: {**router_and_experts(get), **network(get, "shared_experts")},
    ),
    "nemotron_h": (
        "NemotronHMoE",
        {
            "moe_intermediate_size": WIDTH,
            "n_routed_experts": EXPERTS,
            "num_experts_per_tok": 3,
            "moe_shared_expert_intermediate_size": 28,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 2.5,
        },
        {**BIASED, **SHARED, "top_k": 3, "activation": "relu2"},
        nemotron_weights,
    ),
    "gpt_oss": (
        "GptOssMLP",
        {"intermediate_size": WIDTH, "num_local_experts": EXPERTS, "num_experts_per_tok": 2},
        {"activation": "clamped_swiglu", "bias": True},
        gpt_oss_weights,
    ),
}


def block(family: str, std: float) -> tuple[torch.nn.Module, MixtureOfExperts, Callable[[Get], dict[str, Tensor]]]:
    """The block of `transformers`, ours with the same weights, and what turns its tensors into ours."""
    transformers = pytest.importorskip("transformers")
    name, fields, ours, weights = BLOCKS[family]
    config = transformers.AutoConfig.for_model(family, hidden_size=HIDDEN, **fields)
    modeling = __import__(f"transformers.models.{family}.modeling_{family}", fromlist=[name])
    theirs = getattr(modeling, name)(config)
    with torch.no_grad():
        for path, tensor in [*theirs.named_parameters(), *theirs.named_buffers()]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator(path)) * std)
    mine = mixture(**ours)
    renamed = weights(lambda path: theirs.get_parameter(path).detach())
    if mine.balance.bias is not None:
        renamed["balance.bias"] = theirs.gate.e_score_correction_bias
    mine.load_state_dict(renamed, strict=True)
    return theirs, mine, weights


@pytest.mark.parametrize("family", BLOCKS)
def test_outputs_and_gradients_equal_the_block_of_transformers(family: str) -> None:
    """ARCH-20: routing, groups, shared networks, biases and activations of seven families, in float32."""
    std = 0.9 if family == "gpt_oss" else 0.3  # large enough for gpt-oss to clamp
    theirs, mine, weights = block(family, std)
    x, x2 = inputs(), inputs()
    expected = theirs(x)[0] if family == "gpt_oss" else theirs(x)
    out, extra = mine(x2, around(x2))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    assert extra is None
    pull = torch.randn(out.shape, generator=generator(2))
    (expected * pull).sum().backward()
    (out * pull).sum().backward()
    gradients = {"x": x.grad, **weights(lambda path: theirs.get_parameter(path).grad)}
    own = {"x": x2.grad, **{name: each.grad for name, each in mine.named_parameters() if each.requires_grad}}
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name)


def test_the_clamp_of_gpt_oss_is_reached() -> None:
    """Else the test above would not see it."""
    mine = block("gpt_oss", 0.9)[1]
    gate = torch.einsum("bsh,ewh->bsew", inputs(), mine.experts.gate)
    assert float((gate > 7).float().mean()) > 0.01 and float((gate < -7).float().mean()) > 0.01


def test_one_expert_is_the_dense_network() -> None:
    """ARCH-20: outputs and gradients of a mixture of one and of SwiGLU with its weights."""
    mine = mixture(experts=1, top_k=1)
    plain = SwiGLU(dense.SwiGLU(width=WIDTH), Surroundings(HIDDEN, None, Norm()))
    names = ("gate", "up", "down")
    plain.load_state_dict({f"{name}.weight": mine.experts.get_parameter(name)[0].detach() for name in names})
    x, x2 = inputs(), inputs()
    out, expected = mine(x, around(x))[0], plain(x2, around(x2))[0]
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, x2.grad)
    for name in names:
        torch.testing.assert_close(mine.experts.get_parameter(name).grad[0], plain.get_submodule(name).weight.grad)


@settings(max_examples=25)
@given(
    st.fixed_dictionaries(
        {
            "experts": st.integers(1, 9),
            "width": st.integers(1, 20),
            "shared_width": st.none() | st.integers(1, 20),
            "activation": st.sampled_from(["swiglu", "relu2", "clamped_swiglu"]),
            "bias": st.booleans(),
            "balance": st.sampled_from([None, {"kind": "bias"}, {"kind": "loss"}]),
        }
    ),
    st.data(),
)
def test_counts_equal_the_real_module(fields: dict[str, Any], data: st.DataObject) -> None:
    """ARCH-20: total parameters by formula and by counting; those of experts not chosen are not active."""
    top_k = data.draw(st.integers(1, fields["experts"]))
    gated = fields["shared_width"] is not None and data.draw(st.booleans())
    module = mixture(**fields, top_k=top_k, shared_gate=gated)
    total, active = module.router.config.count(Surroundings(HIDDEN, None, Norm()))
    held = sum(parameter.numel() for parameter in module.parameters())
    idle = sum(parameter.numel() for parameter in module.experts.parameters()) // fields["experts"]
    assert (total, active) == (held, held - (fields["experts"] - top_k) * idle)


def test_accounting_of_a_whole_decoder_counts_active_parameters() -> None:
    """ARCH-20: the model's total is the decoder's own; three of four experts of each layer are idle."""
    config = section(feedforward={"kind": "moe", "experts": 4, "top_k": 1, "width": 16})
    counted = parameters(config, 61)
    assert counted["total"] == sum(parameter.numel() for parameter in decoder(config).parameters())
    assert counted["total"] - counted["active"] == 3 * 3 * (3 * 32 * 16)


def test_no_choice_is_dropped_when_all_fall_on_one_expert() -> None:
    """Dropless: experts without a token, and one with all of them."""
    mine = mixture(top_k=1, bias=True)
    with torch.no_grad():
        mine.router.bias[3] += 1000
    x = inputs()
    out = mine(x, around(x))[0]
    gate, up = (
        x @ mine.experts.get_parameter(name)[3].T + mine.experts.get_parameter(f"{name}_bias")[3]
        for name in ("gate", "up")
    )
    expected = (F.silu(gate) * up) @ mine.experts.down[3].T + mine.experts.down_bias[3]
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    others = mine.experts.up.grad.abs().amax((1, 2))
    assert others[3] > 0 and float(others.sum() - others[3]) == 0


def test_the_product_by_groups_has_the_gradient_of_its_formula() -> None:
    """Against finite differences in float64, with odd sizes, an empty group and one of a single row."""
    ends = torch.tensor([3, 3, 4, 9], dtype=torch.int32)
    x = torch.randn(9, 5, dtype=torch.float64, generator=generator(1)).requires_grad_()
    weight = torch.randn(4, 3, 5, dtype=torch.float64, generator=generator(2)).requires_grad_()
    rows = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3, 3])
    torch.testing.assert_close(grouped_linear(x, weight, ends), torch.einsum("ri,roi->ro", x, weight[rows]))
    assert torch.autograd.gradcheck(lambda x, weight: grouped_linear(x, weight, ends), (x, weight))


@pytest.mark.parametrize("fields", [{"shared_width": 12, "balance": {"kind": "loss"}, "z_loss": 0.1}, BIASED])
def test_the_forward_pass_compiles_whole(fields: dict[str, Any]) -> None:
    """No host synchronisation and no graph break; the same outputs, gradients and counts as without compiling."""
    plain, other = mixture(**fields), mixture(**fields)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for seed in (1, 2):
        x, x2 = inputs(seed=seed), inputs(seed=seed)
        (out, extra), (out2, extra2) = plain(x, around(x)), compiled(x2, around(x2))
        torch.testing.assert_close(out, out2)
        (out.sum() + (0 if extra is None else extra.sum())).backward()
        (out2.sum() + (0 if extra2 is None else extra2.sum())).backward()
        torch.testing.assert_close(x.grad, x2.grad)
        torch.testing.assert_close(plain.router.weight.grad, other.router.weight.grad)
    torch.testing.assert_close(plain.balance.counts, other.balance.counts)


def test_bfloat16_activations_are_routed_in_float32() -> None:
    mine = mixture()
    x = inputs().detach().bfloat16()
    out = mine(x, around(x))[0]
    routing = mine.router(x.flatten(0, 1), None)
    assert out.dtype == torch.bfloat16 and routing.logits.dtype == routing.weights.dtype == torch.float32
    assert torch.equal(routing.chosen, mine.router(x.flatten(0, 1).float(), None).chosen)
    torch.testing.assert_close(out.float(), mine(x.float(), around(x))[0], rtol=0.05, atol=0.05)
