"""Hugging Face folders both ways, with transformers itself as the judge."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import VOCAB, decoder, section, tokens
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from smelt.errors import InputError
from smelt.model.families import export_model, import_model
from smelt.model.generate import continue_ids
from smelt.model.load import load_model
from smelt.recipe.sections.model import Model


def theirs(folder: Path) -> PreTrainedModel:
    """The model as transformers loads it, after checking that every tensor fits."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def exported(out: Path, **changes: Any) -> Path:
    export_model(decoder(section(**changes)), out, context=64)
    return out


def edited(folder: Path, **fields: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


@st.composite
def sections(draw: st.DrawFn) -> Model:
    kv_heads, group, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    without = draw(st.sets(st.integers(0, layers - 1)))
    return section(
        hidden=draw(st.sampled_from([36, 40])),
        layers=layers,
        attention={"heads": kv_heads * group, "kv_heads": kv_heads, "head_dim": 2 * draw(st.integers(1, 6))},
        position={"kind": "rope", "theta": draw(st.sampled_from([100.0, 1e4, 2e6]))},
        norm={"eps": draw(st.sampled_from([1e-6, 1e-3]))},
        tie_embeddings=draw(st.booleans()),
        per_layer=[{"layers": index, "position": {"kind": "none"}} for index in sorted(without)],
    )


@settings(max_examples=12)
@given(config=sections(), seed=st.integers(0, 99))
def test_transformers_computes_the_same_logits_and_gradients(config: Model, seed: int) -> None:
    """ARCH-27: logits within 1e-4; loss gradients within 1e-3 of their size; back again, all bytes the same."""
    model, x = decoder(config, seed=seed), tokens(2, 13, seed=seed)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        export_model(model, out, context=64)
        other = theirs(out)
        back = import_model(out)
    logits = other(x).logits
    torch.testing.assert_close(model(x), logits, rtol=0, atol=1e-4)
    model(x[:, :-1], targets=x[:, 1:]).mean().backward()
    F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in other.named_parameters()}
    for (name, ours), again in zip(model.named_parameters(), back.parameters(), strict=True):
        assert torch.equal(ours, again), name
        wanted = gradients[_their_name(name)]
        assert (ours.grad - wanted).norm() <= 1e-3 * wanted.norm() + 1e-7, name
    assert [back.config.layer(i) for i in range(config.layers)] == [config.layer(i) for i in range(config.layers)]


def _their_name(name: str) -> str:
    from smelt.model.families.table import FAMILIES

    return FAMILIES["llama"].theirs(name)


@pytest.mark.parametrize("changes", [{}, {"per_layer": [{"layers": "1::2", "position": {"kind": "none"}}]}])
def test_greedy_generation_equals_that_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    """ARCH-04"""
    model = decoder(section(**changes))
    export_model(model, tmp_path / "model", context=64)
    prompts = tokens(3, 7)
    other = theirs(tmp_path / "model").generate(prompts, max_new_tokens=20, do_sample=False, pad_token_id=0)
    ours = continue_ids(model, prompts.tolist(), set(), torch.zeros(VOCAB, dtype=torch.bool), 20)
    assert ours == other[:, 7:].tolist()


def test_a_model_that_transformers_saved_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """In shards, in bfloat16: import, export, the same tensors."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    model = load_model(tmp_path / "theirs")
    assert model.dtype == torch.bfloat16 and model.embedding.weight.dtype == torch.float32
    export_model(model, tmp_path / "ours", context=64)
    before = {
        name: tensor for path in (tmp_path / "theirs").glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name


def test_the_family_follows_from_the_layers(tmp_path: Path) -> None:
    """SmolLM3's no_rope_layers says 1 where the layer has rotary positions."""
    plain = exported(tmp_path / "plain")
    mixed = exported(tmp_path / "mixed", layers=4, per_layer=[{"layers": "3::4", "position": {"kind": "none"}}])
    assert json.loads((plain / "config.json").read_text())["model_type"] == "llama"
    config = json.loads((mixed / "config.json").read_text())
    assert (config["model_type"], config["no_rope_layers"]) == ("smollm3", [1, 1, 1, 0])


def test_the_older_spelling_of_theta_is_read(tmp_path: Path) -> None:
    folder = edited(exported(tmp_path / "model"), rope_parameters=None, rope_theta=123.0, rope_scaling=None)
    assert import_model(folder).config.position.theta == 123.0  # type: ignore[union-attr]
    without = edited(folder, rope_theta=None)
    config = json.loads((without / "config.json").read_text())
    del config["rope_theta"]
    (without / "config.json").write_text(json.dumps(config))
    assert import_model(without).config.position.theta == 10_000.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_parameters"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "hidden_size"),
        ({"rms_norm_eps": -1.0}, "config"),
        ({"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers"),
        ({"model_type": "smollm3", "layer_types": ["sliding_attention"] * 3}, "layer_types"),
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported are llama, smollm3"),
    ],
)
def test_a_field_that_would_change_the_maths_is_refused_by_name(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    folder = edited(exported(tmp_path / "model"), **fields)
    with pytest.raises(InputError, match=named) as error:
        import_model(folder)
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


def test_tensors_missing_extra_or_mis_shaped_are_named(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    path, tensors = folder / "model.safetensors", load_file(folder / "model.safetensors")
    up = "model.layers.1.mlp.up_proj.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != up}, path)
    with pytest.raises(InputError, match=f"'{up}' is missing"):
        import_model(folder)
    save_file({**tensors, "model.layers.1.mlp.up_proj.bias": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"up_proj\.bias' is in the weights but not in the model"):
        import_model(folder)
    save_file({**tensors, up: torch.zeros(3, 4)}, path)
    with pytest.raises(InputError, match=rf"'{up}' is float32 \[3, 4\]"):
        import_model(folder)
    save_file({**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}, path)
    import_model(folder)


def test_a_tied_head_stored_twice_is_read_once_and_a_different_one_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    path, tensors = folder / "model.safetensors", load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    assert import_model(folder).head is None
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, path)
    with pytest.raises(InputError, match=r"lm_head\.weight' differs .*tie_word_embeddings"):
        import_model(folder)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        import_model(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(InputError, match=r"only pickled weights .*safetensors"):
        import_model(folder)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        import_model(tmp_path)
    folder = exported(tmp_path / "model")
    shutil.move(folder / "model.safetensors", folder / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    for content, message in (
        ({"weight_map": {"model.norm.weight": "gone.safetensors"}}, r"gone\.safetensors: no such file"),
        ({"weight_map": {"model.norm.weight": "../part.safetensors"}}, "no weight_map of tensor to file name"),
        ({}, "no weight_map"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            import_model(folder)


def test_what_no_family_expresses_is_not_exported(tmp_path: Path) -> None:
    uneven = decoder(section(per_layer=[{"layers": 1, "feedforward": {"width": 20}}]))
    with pytest.raises(InputError, match="llama: layer 1 has another feedforward"):
        export_model(uneven, tmp_path / "a", context=64)
    bases = decoder(section(per_layer=[{"layers": 1, "position": {"theta": 5.0}}]))
    with pytest.raises(InputError, match=r"several position\.theta \(5\.0, 1000\.0\)"):
        export_model(bases, tmp_path / "a", context=64)
    with pytest.raises(InputError, match="'gpt5' is not one we export; choose from llama, smollm3"):
        export_model(decoder(), tmp_path / "a", context=64, family="gpt5")
    without = decoder(section(position={"kind": "none"}))
    with pytest.raises(InputError, match="llama: some of its layers have no rotary positions"):
        export_model(without, tmp_path / "a", context=64, family="llama")
    assert not (tmp_path / "a").exists()


def test_export_never_overwrites_what_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is no exported model"):
        export_model(decoder(), tmp_path, context=64)
    out = exported(exported(tmp_path / "model"), layers=1)
    assert import_model(out).config.layers == 1
