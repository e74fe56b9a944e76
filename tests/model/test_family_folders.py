"""What Hugging Face folders hold besides maths: fields, files, shards, dtypes; what is refused; nothing is lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from family_checks import stored
from safetensors.torch import load_file, save_file
from small_models import decoder, section
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig

from smelt.errors import InputError
from smelt.lifecycle.export import export_checkpoint, import_folder
from smelt.model.families import export_model, import_model
from smelt.model.families.compare import compare
from smelt.model.families.export import export_weights
from smelt.model.families.importer import import_weights
from smelt.model.load import load_model
from smelt.model.weights import save_weights


def exported(out: Path, family: str | None = None, **changes: Any) -> Path:
    export_model(decoder(section(**changes)), out, context=64, family=family)
    return out


def edited(folder: Path, **fields: Any) -> Path:
    """The folder with these fields of config.json changed; `...` drops one."""
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != ...}))
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A Llama as transformers saves it in bfloat16 and several files, tied, one norm in float32."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.model.norm.float()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    return tmp_path / "theirs"


# Dtypes, shards, memory


def test_dtypes_and_shards_survive_both_ways(sharded: Path, tmp_path: Path) -> None:
    """Imported weights keep each its dtype, and load as float32 with the activations in the embedding's."""
    parameters = import_weights(sharded, tmp_path / "ours")
    export_weights(tmp_path / "ours", tmp_path / "back", shard_bytes=20_000)
    before, after = stored(sharded), stored(tmp_path / "back")
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    assert before.keys() == after.keys() and parameters == sum(tensor.numel() for tensor in before.values())
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "back").dtype == torch.bfloat16
    for folder in (sharded, tmp_path / "ours", tmp_path / "back"):
        model = load_model(folder)
        assert model.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert torch.equal(model.embedding.weight, before["model.embed_tokens.weight"].float())


def test_masters_are_exported_in_the_dtype_of_the_activations(tmp_path: Path) -> None:
    model = decoder(dtype=torch.bfloat16)
    save_weights(model, tmp_path / "ours")
    assert {tensor.dtype for tensor in stored(tmp_path / "ours").values()} == {torch.float32}
    export_weights(tmp_path / "ours", tmp_path / "back", context=64, check=True)
    assert {tensor.dtype for tensor in stored(tmp_path / "back").values()} == {torch.bfloat16}


def test_what_the_config_says_beside_the_maths_comes_back(sharded: Path, tmp_path: Path) -> None:
    edited(sharded, eos_token_id=[5, 7], pad_token_id=3, max_position_embeddings=77)
    import_folder(sharded, tmp_path / "ours")
    assert export_checkpoint(tmp_path / "ours", tmp_path / "back") == "llama"
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"], config["max_position_embeddings"]) == ([5, 7], 3, 77)


SHARD = 13_200_000
STREAMED = f"""
import sys
from pathlib import Path
from smelt.model.families.export import export_weights
from smelt.model.families.importer import import_weights

def status(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

theirs, ours, back = map(Path, sys.argv[1:])
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
import_weights(theirs, ours)
print((status("VmHWM") - before) / {SHARD})
export_weights(ours, back, shard_bytes={SHARD})
print((status("VmHWM") - before) / {SHARD})
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process from /proc")
def test_memory_stays_below_one_and_a_half_shards(tmp_path: Path) -> None:
    """80 MB in shards of 13 MB, each stack of experts as large as a shard, there and back in a process of its own."""
    config = Qwen3MoeConfig(
        vocab_size=4000,
        hidden_size=256,
        moe_intermediate_size=512,
        num_experts=48,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        dtype="bfloat16",
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "theirs", max_shard_size=SHARD)
    shards = [path.stat().st_size for path in (tmp_path / "theirs").glob("*.safetensors")]
    assert len(shards) > 5 and max(shards) > 0.9 * SHARD
    folders = [tmp_path / name for name in ("theirs", "ours", "back")]
    done = subprocess.run([sys.executable, "-c", STREAMED, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peaks = [float(line) for line in done.stdout.split()]
    assert len(peaks) == 2 and max(peaks) < 1.5, peaks
    after = stored(tmp_path / "back")
    assert all(torch.equal(tensor, after.pop(name)) for name, tensor in stored(tmp_path / "theirs").items())
    assert not after


def test_a_full_disk_is_one_line_and_leaves_nothing(sharded: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        with pytest.raises(InputError, match="the disk is full; free some space"):
            import_folder(sharded, small / "ours")
        with pytest.raises(InputError, match="the disk is full; free some space"):
            exported(small / "model", layers=4)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


# Which family


def test_the_family_follows_from_the_model(tmp_path: Path) -> None:
    """SmolLM3's no_rope_layers says 1 where the layer has rotary positions."""
    for number, (family, changes) in enumerate(
        [
            ("llama", {}),
            ("smollm3", {"layers": 4, "per_layer": [{"layers": "3::4", "position": {"kind": "none"}}]}),
            ("mistral", {"attention": {"heads": 4, "kv_heads": 2, "window": 8}}),
            ("qwen2", {"attention": {"heads": 4, "kv_heads": 2, "bias": "qkv"}}),
            ("qwen3", {"attention": {"heads": 4, "kv_heads": 2, "qk_norm": "head"}}),
            ("olmo2", {"attention": {"heads": 4, "kv_heads": 2, "qk_norm": "full"}, "norm": {"placement": "post"}}),
        ]
    ):
        config = json.loads((exported(tmp_path / str(number), **changes) / "config.json").read_text())
        assert config["model_type"] == family
        if family == "smollm3":
            assert config["no_rope_layers"] == [1, 1, 1, 0]
    plain = exported(tmp_path / "plain", family="mistral")
    assert json.loads((plain / "config.json").read_text())["model_type"] == "mistral"
    import_folder(plain, tmp_path / "ours")
    assert export_checkpoint(tmp_path / "ours", tmp_path / "again") == "mistral"
    assert export_checkpoint(tmp_path / "ours", tmp_path / "again", family="llama") == "llama"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"per_layer": [{"layers": 1, "feedforward": {"width": 20}}]}, "layer 1: feedforward.width is 20, and it has"),
        ({"per_layer": [{"layers": 1, "position": {"theta": 5.0}}]}, r"layer 1: position.theta is 5.0, and it has"),
        ({"position": {"kind": "none"}}, "llama: layer 0: position.kind is 'none', and it has only 'rope'"),
        ({"position": {"kind": "alibi"}}, "smollm3: its position is 'alibi'"),
        ({"position": {"kind": "rope", "fraction": 0.5}}, "llama: 'partial_rotary_factor' is 0.5"),
        (
            {"position": {"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 8, "local": 2}}},
            "llama: position.scaling is 'dual_chunk', which transformers does not have",
        ),
        ({"init": {"kind": "mup", "base_hidden": 16}}, "llama: logit_multiplier is 0.5, and it has only 1.0"),
        ({"logit_softcap": 30.0}, "llama: logit_softcap is 30.0, and it has only None"),
        ({"embedding_scale": 2.0}, "llama: embedding_scale is 2.0, and it has only 1.0"),
        ({"attention": {"heads": 4, "kv_heads": 2, "scale": 0.7}}, "llama: layer 0: attention.scale is 0.7"),
        ({"attention": {"heads": 4, "kv_heads": 2, "gate": "head"}}, "llama: layer 0: attention.gate is 'head'"),
        ({"norm": {"eps": 1e-3}, "per_layer": [{"layers": 0, "norm": {"eps": 1e-6}}]}, "layer 0: norm.eps is 1e-06"),
    ],
)
def test_what_a_family_cannot_express_it_does_not_write(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """Whatever a family's own code leaves out, reading its fields back shows: nothing is lost in silence."""
    family = reason.split(":")[0] if reason.split(":")[0] in ("llama", "smollm3") else "llama"
    with pytest.raises(InputError, match=reason) as error:
        exported(tmp_path / "out", family=family, **changes)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_where_no_family_fits_the_reasons_are_told_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"be exported \(llama, mistral, .*: layer 0: attention\.gate is 'head'"):
        exported(tmp_path / "out", attention={"heads": 4, "kv_heads": 2, "gate": "head"})


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'gpt5' is not one we export; choose from llama,"):
        exported(tmp_path / "out", family="gpt5")


# config.json


@pytest.mark.parametrize(
    ("fields", "position"),
    [
        ({"rope_theta": 123.0}, {"theta": 123.0}),
        ({}, {"theta": 10_000.0}),
        ({"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, {"theta": 5.0, "factor": 2.0}),
        (
            {"rope_theta": 5.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 32},
            {"theta": 5.0, "kind": "yarn", "original": 32, "beta_fast": 32.0},
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 2.0,
                    "original_max_position_embeddings": 16,
                }
            },
            {"kind": "llama3", "original": 16, "high_frequency": 2.0},
        ),
    ],
)
def test_the_older_spelling_of_rotary_positions_is_read(
    tmp_path: Path, fields: dict[str, Any], position: dict[str, Any]
) -> None:
    """As transformers 4 wrote them, `rope_theta` beside `rope_scaling`; transformers of today agrees on the logits."""
    folder = edited(exported(tmp_path / "model"), rope_parameters=..., **fields)
    model = import_model(folder)
    read = model.config.position.model_dump()
    assert {**(read["scaling"] or {}), "theta": read["theta"]}.items() >= position.items()
    assert compare(model, folder) < 1e-4


GEMMA = {
    "attention": {"heads": 4, "kv_heads": 2, "head_dim": 16, "qk_norm": "head"},
    "feedforward": {"kind": "geglu", "width": 48},
    "norm": {"placement": "sandwich", "zero_centered": True},
    "embedding_scale": 32**0.5,
    "per_layer": [{"layers": "::2", "attention": {"window": 8}, "position": {"theta": 100.0}}],
}


def test_the_older_spelling_of_gemma_is_read(tmp_path: Path) -> None:
    """Bases of local and global layers in two fields, scaling for the global ones, the pattern of layers a number."""
    folder = exported(tmp_path / "model", **GEMMA)
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["query_pre_attn_scalar"]) == ("gemma3_text", 16)
    older = {"rope_theta": 50.0, "rope_local_base_freq": 7.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    edited(folder, rope_parameters=..., layer_types=..., sliding_window_pattern=2, **older)
    model = import_model(folder)
    assert [layer.position.theta for layer in model.config.each_layer] == [7.0, 50.0, 7.0]  # type: ignore[union-attr]
    assert compare(model, folder) < 1e-4


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "'rope_parameters' .* 'longrope'"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, "'rope_parameters' has 'mrope_section'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'rope_scaling' .* 'dynamic'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"sliding_window": 8}, "'sliding_window' is 8, a field that is not known here and may change the maths"),
        ({"residual_multiplier": 0.2}, "residual_multiplier"),
        ({"per_layer_config": {"1": {"head_dim": 4}}}, "per_layer_config"),
        ({"auto_map": {"AutoModel": "model.Other"}}, "auto_map"),
        ({"hidden_size": None}, "hidden_size"),
        ({"intermediate_size": ...}, "intermediate_size"),
        ({"rms_norm_eps": -1.0}, "config"),
        ({"model_type": "smollm3", "use_sliding_window": False, "layer_types": ["sliding_attention"] * 3}, "slid"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers"),
        ({"model_type": "smollm3", "layer_types": ["chunked_attention"] * 3}, "'layer_types' has 'chunked_attention'"),
        ({"model_type": "smollm3", "layer_types": ["full_attention"]}, "'layer_types' has 1 entries for 3 layers"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 3}, "'sliding_window' is off"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {
                    "full_attention": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "truncate": False}
                },
            },
            "truncate",
        ),
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported are llama,"),
    ],
)
def test_a_field_that_would_change_the_maths_is_refused_by_name(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    folder = edited(exported(tmp_path / "model"), **fields)
    for read in (import_model, lambda folder: import_folder(folder, tmp_path / "out")):
        with pytest.raises(InputError, match=named) as error:
            read(folder)
        assert "config.json" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_fields_that_say_nothing_about_the_maths_are_passed_over(tmp_path: Path) -> None:
    import_model(edited(exported(tmp_path / "model"), temperature=0.6, id2label={"0": "x"}, some_switch=False))


# Tensors


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
    for wrong, named in ((torch.zeros(3, 4), r"float32 \[3, 4\]"), (tensors[up].to(torch.int8), r"int8 \[48, 32\]")):
        save_file({**tensors, up: wrong}, path)
        with pytest.raises(InputError, match=f"'{up}' is {named}"):
            import_model(folder)
    save_file({**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}, path)
    import_model(folder)


def test_a_model_saved_without_its_head_is_read(tmp_path: Path) -> None:
    """Its tensors have no `model.` before their names."""
    folder = exported(tmp_path / "model")
    wanted = import_model(folder)
    AutoModelForCausalLM.from_pretrained(folder).model.save_pretrained(tmp_path / "bare")
    assert "embed_tokens.weight" in stored(tmp_path / "bare")
    found = import_model(tmp_path / "bare")
    assert all(torch.equal(parameter, wanted.get_parameter(name)) for name, parameter in found.named_parameters())


def test_a_tied_head_stored_twice_is_read_once_and_a_different_one_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    path, tensors = folder / "model.safetensors", load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    assert import_model(folder).head is None
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, path)
    with pytest.raises(InputError, match=r"lm_head\.weight' differs .*tie_word_embeddings"):
        import_model(folder)


def test_heads_of_multi_token_prediction_are_left_out_with_a_word(tmp_path: Path) -> None:
    model, said = decoder(section(multi_token={"depth": 1})), []
    export_model(model, tmp_path / "model", context=64, warn=said.append)
    assert len(said) == 1 and "parameters of multi-token prediction are left out" in said[0]
    back = import_model(tmp_path / "model")
    assert all(torch.equal(parameter, model.get_parameter(name)) for name, parameter in back.named_parameters())


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
    part = folder / "part.safetensors"
    part.write_bytes(part.read_bytes()[:-4])
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": part.name}}))
    with pytest.raises(InputError, match=r"part\.safetensors: damaged safetensors file"):
        import_model(folder)


def test_nothing_is_overwritten_that_was_not_written_so(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is no exported model"):
        export_model(decoder(), tmp_path / "mine", context=64)
    out = exported(exported(tmp_path / "model"), layers=1)
    assert import_model(out).config.layers == 1
    for taken in (tmp_path / "mine", out):
        with pytest.raises(InputError, match="exists and is no imported model"):
            import_folder(out, taken)
    import_folder(out, tmp_path / "ours")
    import_folder(out, tmp_path / "ours")


# The check


@pytest.mark.parametrize(
    ("damaged", "named"),
    [
        ("embedding.weight", "the embedding is the first"),
        ("layers.1.feedforward.up.weight", "layer 1 is the first"),
        ("layers.2.attention.q.weight", "layer 2 is the first"),
        ("norm.weight", "the head is the first"),
    ],
)
def test_a_mismatch_names_the_first_block_and_by_how_much(tmp_path: Path, damaged: str, named: str) -> None:
    model = decoder(section(tie_embeddings=False))
    export_model(model, tmp_path / "model", context=64)
    assert compare(model, tmp_path / "model") < 1e-4
    with torch.no_grad():
        model.get_parameter(damaged).flatten()[5:7] += 1
    with pytest.raises(InputError, match=rf"{named} block whose activations differ .* by \d\S* where they reach \d"):
        compare(model, tmp_path / "model")


def test_a_failed_check_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` on both ways: as it is, and with the maths of one family changed under it."""
    folder = exported(tmp_path / "model")
    import_folder(folder, tmp_path / "ours", check=True)
    export_checkpoint(tmp_path / "ours", tmp_path / "back", check=True)
    monkeypatch.setattr("smelt.model.feedforward.SwiGLU.act", lambda self, x: torch.relu(x))
    with pytest.raises(InputError, match="layer 0 is the first block"):
        import_folder(folder, tmp_path / "other", check=True)
    with pytest.raises(InputError, match="layer 0 is the first block"):
        export_checkpoint(tmp_path / "ours", tmp_path / "other", check=True)
    assert not (tmp_path / "other").exists()
