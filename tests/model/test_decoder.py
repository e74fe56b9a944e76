"""The decoder as a whole: parameters, initial values, precision, saving and loading our own checkpoints."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import VOCAB, decoder, section, starts_of, tokens

from smelt.errors import InputError
from smelt.model.decoder import Decoder
from smelt.model.load import load_model
from smelt.model.weights import save_weights
from smelt.recipe.sections.model import Model

SMOLLM3 = {
    "hidden": 2048,
    "layers": 36,
    "attention": {"heads": 16, "kv_heads": 4},
    "position": {"kind": "rope", "theta": 50_000},
    "feedforward": {"width": 11008},
    "per_layer": [{"layers": "3::4", "position": {"kind": "none"}}],
}


def test_smollm3_has_exactly_its_parameters() -> None:
    """ARCH-27"""
    with torch.device("meta"):
        model = Decoder(Model.model_validate(SMOLLM3), 128_256)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_075_098_624


def test_tied_embeddings_share_storage_and_save_one_matrix() -> None:
    """ARCH-08: 262.7M parameters at 128,256 x 2048."""
    tied, untied = decoder(), decoder(section(tie_embeddings=False))
    assert tied.head_weight.data_ptr() == tied.embedding.weight.data_ptr()
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == VOCAB * 32
    with torch.device("meta"):
        head = Decoder(Model.model_validate({**SMOLLM3, "layers": 4, "tie_embeddings": False}), 128_256).head
    assert head is not None and head.weight.numel() == 262_668_288


def test_parameters_carry_the_names_that_checkpoints_use() -> None:
    layer = ["attention_norm.before", "attention.q", "attention.k", "attention.v", "attention.o"]
    layer += ["feedforward_norm.before", "feedforward.gate", "feedforward.up", "feedforward.down"]
    expected = ["embedding.weight", *(f"layers.0.{part}.weight" for part in layer), "norm.weight"]
    assert [name for name, _ in decoder(section(layers=1)).named_parameters()] == expected
    untied = decoder(section(layers=1, tie_embeddings=False))
    assert [name for name, _ in untied.named_parameters()] == [*expected, "head.weight"]


def test_a_decoder_that_nobody_filled_is_all_nan() -> None:
    """Forgetting to initialise or load shows at the first step."""
    assert Decoder(section(), VOCAB)(tokens(1, 3)).isnan().all()


def test_losses_are_the_cross_entropy_of_the_logits() -> None:
    model, x, y, starts = decoder(), tokens(2, 9), tokens(2, 9, seed=1), starts_of([[4, 5], [9]])
    y[0, 3] = -100
    expected = F.cross_entropy(model(x, starts).flatten(0, 1), y.flatten(), reduction="none").view(2, 9)
    torch.testing.assert_close(model(x, starts=starts, targets=y), expected)


def test_bfloat16_activations_keep_float32_parameters_and_gradients() -> None:
    half, full = decoder(dtype=torch.bfloat16), decoder()
    x, y, starts = tokens(2, 8), tokens(2, 8, seed=1), starts_of([[3, 5], [8]])
    loss = half(x, starts, targets=y)
    loss.mean().backward()
    assert half.states(x).dtype == torch.bfloat16 and half(x).dtype == loss.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in half.parameters())
    assert (loss - full(x, starts, targets=y)).abs().mean() < 0.1


def test_our_checkpoint_loads_as_it_was_saved(tmp_path: Path) -> None:
    config = section(per_layer=[{"layers": "1::2", "position": {"kind": "none"}}], tie_embeddings=False)
    model = decoder(config, dtype=torch.bfloat16)
    save_weights(model, tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.config, loaded.vocab, loaded.dtype, loaded.training) == (config, VOCAB, torch.bfloat16, False)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name]) and parameter.requires_grad
    assert load_model(tmp_path, torch.float32).dtype == torch.float32


def test_a_damaged_or_foreign_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a model folder .*give a checkpoint"):
        load_model(tmp_path)
    save_weights(decoder(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors; copy the checkpoint again"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path: Path) -> None:
    save_weights(decoder(), tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "vocab": 5}))
    with pytest.raises(InputError, match=r"'embedding\.weight' is float32 \[61, 32\] .* \[5, 32\]"):
        load_model(tmp_path)
    path.write_text(json.dumps({**description, "model": {**description["model"], "layers": 4}}))
    with pytest.raises(InputError, match=r"'layers\.3\.attention_norm\.before\.weight' is missing"):
        load_model(tmp_path)
    path.write_text(json.dumps({**description, "model": {**description["model"], "layers": 2}}))
    with pytest.raises(InputError, match=r"'layers\.2\..*' is in the weights but not in the model"):
        load_model(tmp_path)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"model\.json: not a model description"):
        load_model(tmp_path)
