"""What a family of `transformers` is: names of tensors, fields of `config.json`, and the guards around both."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smelt.errors import InputError
from smelt.model.families.rules import Rule
from smelt.recipe.sections.model import Model

Config = Mapping[str, Any]

# fmt: off
HARMLESS = frozenset([
    "architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "use_cache",
    "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id",
    "decoder_start_token_id", "tokenizer_class", "_name_or_path", "name_or_path", "_commit_hash",
    "_from_model_config", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation",
    "experts_implementation", "output_attentions", "output_hidden_states", "return_dict", "tie_last_hidden_states",
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "torchscript",
    "temperature", "top_k", "top_p", "typical_p", "do_sample", "num_beams", "num_beam_groups", "num_return_sequences",
    "max_length", "min_length", "early_stopping", "length_penalty", "repetition_penalty", "diversity_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "forced_bos_token_id",
    "forced_eos_token_id", "output_scores", "return_dict_in_generate", "remove_invalid_values",
    "cache_implementation", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
])
# fmt: on
"""Fields that say nothing about what one forward pass computes."""

NEVER = {
    "attention_dropout": (0.0, None),
    "chunk_size_feed_forward": (0, None),
    "pretraining_tp": (1, None),
    "is_encoder_decoder": (False, None),
}
"""Fields of every family whose other values mean something that `Decoder` does not do."""


def _never(name: str, config: Model) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of `transformers`.

    `rules` map its tensors; `defaults` are the fields that `read` reads and config.json may leave out, as transformers
    fills them; `needed` those it may not; `supported` fields not read, with the values whose maths we have. A field in
    none of them is refused unless it is None, False or empty. `read` makes the model section from the fields, `write`
    the fields from the model section, as far as the family goes: what it leaves out is found by reading them back.
    `unused` says which stored tensors a forward pass never meets (further layers of multi-token prediction); `full`
    ends the names of our parameters that are stored in float32 whatever the dtype of the others.
    """

    architecture: str
    rules: Sequence[Rule]
    defaults: Config
    read: Callable[[Config], Model]
    write: Callable[[Model], dict[str, Any]]
    needed: tuple[str, ...] = ("num_hidden_layers", "intermediate_size", "num_attention_heads")
    supported: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unused: Callable[[str, Model], bool] = _never
    full: str | None = None

    def model(self, raw: Config) -> Model:
        """The model section that `raw`, the content of config.json, describes; InputError names a field that is missing
        or that `Decoder` cannot honour."""
        needed = ("vocab_size", "hidden_size", *self.needed)
        for name in needed:
            if not isinstance(raw.get(name), int):
                raise InputError(f"config.json: '{name}' is missing or not a whole number; restore it")
        if raw.get("quantization_config"):
            raise InputError(
                "config.json: 'quantization_config' says that the weights are stored in few bits, which are not read "
                "here; load the model dequantized in transformers, save it in bfloat16, and import that"
            )
        supported = {**NEVER, **self.supported}
        for name, value in raw.items():
            if name in HARMLESS or name in self.defaults or name in needed:
                continue
            if name not in supported and not _off(value):
                raise InputError(
                    f"config.json: '{name}' is {value!r}, a field that is not known here and may change the maths; "
                    "remove it if it does not, else use a checkpoint without it"
                )
            if value not in supported.get(name, (value,)):
                allowed = " or ".join(repr(each) for each in supported[name])
                raise InputError(
                    f"config.json: '{name}' is {value!r}, which this decoder does not compute (only {allowed}); "
                    "use a checkpoint without it"
                )
        return self.read({**dict.fromkeys(HARMLESS), **self.defaults, **raw})

    def fields(self, config: Model) -> dict[str, Any]:
        """What config.json says of `config`; ValueError names what the family cannot express."""
        fields = self.write(config)
        try:
            back = _facts(self.read({**dict.fromkeys(HARMLESS), **self.defaults, **fields}))
        except InputError as error:
            raise ValueError(str(error).removeprefix("config.json: ")) from None
        for name, value in _facts(config).items():
            if not _equal(value, back.get(name)):
                raise ValueError(f"{name} is {value!r}, and it has only {back.get(name)!r}")
        return fields


def _off(value: Any) -> bool:
    return value is None or value is False or value == [] or value == {}


_WHOLE_MODEL = (
    "hidden",
    "layers",
    "tie_embeddings",
    "embedding_scale",
    "residual_scale",
    "logit_multiplier",
    "logit_softcap",
)
_WITHOUT_POSITION = ("mamba2", "gated_deltanet", "none")


def _facts(config: Model) -> dict[str, Any]:
    """Everything that decides what a forward pass computes, by name."""
    facts: dict[str, Any] = {name: getattr(config, name) for name in _WHOLE_MODEL}
    facts["norm.eps"], facts["norm.zero_centered"] = config.norm.eps, config.norm.zero_centered
    for index, layer in enumerate(config.each_layer):
        for part in ("attention", "position", "feedforward", "norm"):
            if part == "position" and layer.attention.kind in _WITHOUT_POSITION:
                continue
            values = _plain(getattr(layer, part), config.hidden)
            facts |= {f"layer {index}: {part}.{name}": value for name, value in values.items()}
    return facts


def _plain(part: Any, hidden: int) -> dict[str, Any]:
    """The fields of a part, defaults worked out, without those that only training reads."""
    values: dict[str, Any] = part.model_dump(mode="json")
    kind = values.get("kind")
    if kind == "gqa":
        values["head_dim"] = part.dim(hidden)
        values["scale"] = part.scale or part.dim(hidden) ** -0.5
    elif kind == "mla":
        values["scale"] = part.scale or (part.nope_dim + part.rope_dim) ** -0.5
    elif kind == "moe":
        values["balance"] = bool(part.balance) and part.balance.kind == "bias"
        del values["z_loss"]
    elif kind in ("mamba2", "gated_deltanet", "linear"):
        del values["chunk"]
    elif kind == "parallel":
        values["branches"] = [
            {**branch, "mixer": _plain(own.mixer, hidden)}
            for branch, own in zip(values["branches"], part.branches, strict=True)
        ]
    return values


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float) and isinstance(b, (float, int)):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)
