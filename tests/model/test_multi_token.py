"""Multi-token prediction against the draft layers of `transformers`, and where its losses stop."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import VOCAB, decoder, section, settled, starts_of, tokens

from smelt.model.decoder import Decoder
from smelt.model.families import import_model
from smelt.model.init import initialise
from smelt.model.loss import IGNORED
from smelt.model.multi_token import shifted
from smelt.recipe.account import parameters
from smelt.recipe.sections.model import Model

TWO = {"depth": 2, "weight": 0.3}
THEIRS = {
    "enorm": "embedding_norm",
    "hnorm": "state_norm",
    "eh_proj": "join",
    "mtp_block.self_attn.q_proj": "layer.attention.q",
    "mtp_block.self_attn.k_proj": "layer.attention.k",
    "mtp_block.self_attn.v_proj": "layer.attention.v",
    "mtp_block.self_attn.o_proj": "layer.attention.o",
    "mtp_block.mlp.gate_proj": "layer.feedforward.gate",
    "mtp_block.mlp.up_proj": "layer.feedforward.up",
    "mtp_block.mlp.down_proj": "layer.feedforward.down",
    "mtp_block.input_layernorm": "layer.attention_norm.before",
    "mtp_block.post_attention_layernorm": "layer.feedforward_norm.before",
    "post_norm": "norm",
}


def contributions(model: Decoder, x: torch.Tensor, y: torch.Tensor, starts: torch.Tensor | None = None) -> torch.Tensor:
    """What the further layers add to each token's loss."""
    seen = []
    assert model.multi_token is not None
    hook = model.multi_token.register_forward_hook(lambda module, given, out: seen.append(out))
    model.train()(x, starts, targets=y)
    hook.remove()
    return seen[0]


def test_losses_and_gradients_equal_those_of_the_draft_layers_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_layers import MtpModel

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        tie_word_embeddings=True,
        num_mtp_layers=2,
    )
    theirs = transformers.LlamaForCausalLM(config)
    drafts = MtpModel(theirs, 2)
    config.num_mtp_layers = None
    theirs.save_pretrained(tmp_path)
    main = import_model(tmp_path, torch.float32, warn=lambda text: None)
    ours = Decoder(main.config.model_copy(update={"multi_token": section(multi_token=TWO).multi_token}), VOCAB).train()
    own = {
        f"multi_token.{place}.{name}.weight": drafts.state_dict()[f"layers.{place}.{their}.weight"]
        for place in range(2)
        for their, name in THEIRS.items()
    }
    ours.load_state_dict({**main.state_dict(), **own})

    x, following = tokens(2, 11), tokens(2, 11, seed=1)
    y = torch.cat((x[:, 1:], following[:, :1]), 1)
    state = theirs.model(x).last_hidden_state
    expected = F.cross_entropy(theirs.lm_head(state).flatten(0, 1), y.flatten(), reduction="sum")
    for ahead in (1, 2):
        places = torch.arange(ahead, 11)[None].expand(2, -1)
        state = drafts.forward_layer(ahead - 1, state[:, : 11 - ahead], places, None, input_ids=x[:, ahead:])
        logits = theirs.lm_head(state)
        expected = expected + 0.15 * F.cross_entropy(logits.flatten(0, 1), y[:, ahead:].flatten(), reduction="sum")
    losses = ours(x, targets=y)
    assert (losses.sum() + contributions(ours, x, y).sum()).item() == pytest.approx(expected.item(), rel=1e-5)
    losses.sum().backward()
    expected.backward()
    grads = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for place, (their, name) in ((place, pair) for place in range(2) for pair in THEIRS.items()):
        wanted = drafts.get_parameter(f"layers.{place}.{their}.weight").grad
        torch.testing.assert_close(grads[f"multi_token.{place}.{name}.weight"], wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(grads["embedding.weight"], theirs.lm_head.weight.grad, rtol=1e-3, atol=1e-4)


def test_losses_stop_at_the_ends_of_documents_and_rows() -> None:
    """A packed batch adds exactly what its documents add one by one."""
    model, x, lengths = decoder(section(multi_token=TWO)), tokens(2, 12), [[5, 1, 6], [12]]
    y = shifted(x, 1, IGNORED)
    starts = starts_of(lengths)
    y[shifted(starts, 1, -1) != starts] = IGNORED
    packed = contributions(model, x, y, starts)
    for row, sizes in enumerate(lengths):
        bounds = torch.tensor([0, *sizes]).cumsum(0).tolist()
        for first, last in pairwise(bounds):
            alone = contributions(model, x[row : row + 1, first:last], y[row : row + 1, first:last])
            torch.testing.assert_close(packed[row : row + 1, first:last], alone)
            assert not packed[row, max(first, last - 2) : last].any()
    assert packed[1, :10].all()


def test_targets_beyond_an_ignored_one_are_not_predicted() -> None:
    model, x, y = decoder(section(multi_token=TWO)), tokens(1, 8), tokens(1, 8, seed=1)
    y[0, 4] = IGNORED
    assert contributions(model, x, y)[0].gt(0).tolist() == [True, True, True, False, False, True, True, False]


def test_only_training_reads_them_and_the_loss_shown_is_the_models_own() -> None:
    config = section(multi_token=TWO)
    with_them, plain = decoder(config), decoder(section())
    x, y = tokens(2, 9), tokens(2, 9, seed=1)
    for mode in (True, False):
        torch.testing.assert_close(with_them.train(mode)(x, targets=y), plain.train(mode)(x, targets=y))
        torch.testing.assert_close(with_them(x), plain(x))
    for parameter in with_them.multi_token.parameters():
        parameter.data.fill_(torch.nan)
    assert with_them.eval()(x, targets=y).isfinite().all()


def test_their_loss_before_the_weight_is_in_the_metrics() -> None:
    model = decoder(section(multi_token=TWO)).train()
    x, y = tokens(2, 9), tokens(2, 9, seed=1)
    model(x, targets=y), model(x, targets=y)
    counted = 2 * (8 + 7)
    expected = contributions(model, x, y).sum().item() / 0.15 / counted
    assert settled(model)["multi_token_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert "multi_token_loss" not in settled(decoder())


@pytest.mark.parametrize(
    "last",
    [{}, {"norm": {"placement": "sandwich"}}, {"feedforward": {"kind": "moe", "experts": 4, "top_k": 2, "width": 8}}],
)
def test_they_are_copies_in_kind_of_the_last_layer_and_counted(last: dict) -> None:
    config = section(multi_token=TWO, per_layer=[{"layers": -1, **last}])
    model = decoder(config)
    own = sum(parameter.numel() for parameter in model.multi_token.parameters())
    assert own == parameters(config, VOCAB)["multi_token"]
    assert sum(p.numel() for p in model.parameters()) == parameters(config, VOCAB)["total"]
    names = {name for name, _ in model.layers[-1].named_parameters()}
    assert names == {name for name, _ in model.multi_token[1].layer.named_parameters()}


def test_the_further_layers_learn() -> None:
    """Of an alphabet recited in order, the token three places on is as certain as the next."""
    config = Model.model_validate({**section(hidden=16, layers=1).model_dump(), "multi_token": TWO})
    model = Decoder(config, VOCAB)
    initialise(model, 0)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    recited = torch.arange(40) % 20
    losses = []
    for _ in range(60):
        model(recited[None, :-1], targets=recited[None, 1:]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(settled(model)["multi_token_loss"].item())
    assert losses[-1] < 0.2 * losses[0]


def test_bfloat16_activations_stay_bfloat16() -> None:
    model = decoder(section(multi_token=TWO), dtype=torch.bfloat16)
    seen = []
    model.multi_token[0].join.register_forward_hook(lambda module, given, out: seen.append((given[0].dtype, out.dtype)))
    x, y = tokens(2, 9), tokens(2, 9, seed=1)
    exact = contributions(decoder(section(multi_token=TWO)), x, y)
    torch.testing.assert_close(contributions(model, x, y), exact, rtol=0.02, atol=0.02)
    assert seen == [(torch.bfloat16, torch.bfloat16)]
