"""What every family must pass: the model that transformers makes of a config, against ours from the same files."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small_models import generator, tokens
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from smelt.model.decoder import Decoder
from smelt.model.families import import_model
from smelt.model.families.export import export_weights
from smelt.model.families.family import HARMLESS, NEVER, Family
from smelt.model.families.importer import import_weights
from smelt.model.generate import continue_ids

logging.disable_progress_bar()
logging.set_verbosity_error()
LENGTH = 13


def check_family(config: PreTrainedConfig, seed: int = 0, new_tokens: int = 6) -> Decoder:
    """Random weights for `config`, saved by transformers, imported and exported again; returns our model.

    Logits within 1e-4, gradients of the loss within 1e-3 of their size, all in float32; import -> export keeps every
    tensor's name, dtype and bytes, and a config with which transformers computes the same logits; greedy
    decoding gives the same tokens.
    """
    with TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may be left out
        folder = Path(place)
        theirs = random_peer(config, seed)
        theirs.save_pretrained(folder / "theirs")
        ours = import_model(folder / "theirs")
        x = tokens(2, LENGTH, vocab=config.vocab_size, seed=seed)
        logits = theirs(x).logits
        torch.testing.assert_close(ours(x), logits, rtol=0, atol=1e-4)
        check_round_trip(folder, logits, x)
        if new_tokens:
            check_generation(ours, theirs, x, new_tokens)
        check_gradients(ours, theirs, logits, x, folder / "gradients")
    return ours


def random_peer(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """transformers' model in evaluation mode, with every weight, norm, bias and stored buffer random."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    kept = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in kept.items():
            noise = torch.randn(tensor.shape, generator=generator(f"{seed}{name}"))
            if tensor.ndim > 1:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
            elif tensor.is_floating_point():
                tensor.add_(0.3 * noise)
    model.tie_weights()
    return model


def check_round_trip(folder: Path, logits: Tensor, x: Tensor) -> None:
    """`folder/theirs` through our layout and back: the same tensors, and transformers computes the same logits."""
    import_weights(folder / "theirs", folder / "ours")
    export_weights(folder / "ours", folder / "back")
    before, after = stored(folder / "theirs"), stored(folder / "back")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    again, info = AutoModelForCausalLM.from_pretrained(
        folder / "back", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    # Not equal to the bit: the same numbers at other addresses may be summed in another order.
    torch.testing.assert_close(again.eval()(x).logits, logits, rtol=0, atol=1e-5)


def check_generation(ours: Decoder, theirs: PreTrainedModel, x: Tensor, new_tokens: int) -> None:
    """Greedy decoding with a cache, from prompts of one length."""
    how = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    wanted = theirs.generate(x, attention_mask=torch.ones_like(x), **how)
    never = torch.zeros(ours.vocab, dtype=torch.bool)
    assert continue_ids(ours, x.tolist(), set(), never, new_tokens) == wanted[:, LENGTH:].tolist()


def check_gradients(ours: Decoder, theirs: PreTrainedModel, logits: Tensor, x: Tensor, folder: Path) -> None:
    """Their gradients, stored as if they were weights and imported, against ours."""
    F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    theirs.save_pretrained(folder)
    wanted: dict[str, Any] = dict(import_model(folder).named_parameters())
    ours(x[:, :-1], targets=x[:, 1:]).mean().backward()
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            error = (parameter.grad - wanted[name]).norm()
            assert error <= 1e-3 * wanted[name].norm() + 1e-6, (name, float(error), float(wanted[name].norm()))


def known_fields(family: Family) -> set[str]:
    """Fields of config.json that the family reads, or knows to change nothing, or takes with some values only."""
    return {*HARMLESS, *NEVER, "vocab_size", "hidden_size", *family.needed, *family.defaults, *family.supported}


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor in the safetensors files of a folder."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
