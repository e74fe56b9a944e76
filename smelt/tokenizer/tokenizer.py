"""Text <-> ids: one class over any `tokenizer.json`, ours or foreign, that knows how texts and turns end."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from smelt.errors import InputError
from smelt.files import read_json, write_json, write_text

SPECIAL = (
    "<|endoftext|>",
    "<|pad|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    *(f"<|reserved_{index}|>" for index in range(8)),
)
_MULTIPLE = 128
_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
_ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|return|>", "[EOS]")
_ENDS_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|eot|>", "<|end|>", "<|END_OF_TURN_TOKEN|>")
_PADS = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|padding|>")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Tokenizer:
    """A `tokenizers` tokenizer with `config`, the content of its `tokenizer_config.json`.

    `declared` are further ids that end a generation, as a model's `generation_config.json` lists them. `name` is the
    place that errors name. Raises InputError when no token ends a text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        declared: Sequence[int] = (),
        name: str = "tokenizer",
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._json: str = backend.to_str()
        self._plain = backend
        self._plain.encode_special_tokens = True
        self._chat = tokenizers.Tokenizer.from_str(self._json)
        self._length = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.config = config
        ends = [_content(config.get("eos_token")), *map(backend.id_to_token, declared)]
        self.eos, self.eot, self.pad = _roles(
            backend, [end for end in ends if end], _content(config.get("pad_token")), name
        )

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a special token in it is text like any other."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts at once, on all cores."""
        return [each.ids for each in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_chat(self, text: str) -> list[int]:
        """Ids of text that a chat template rendered: its markers become their special ids."""
        return self._chat.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids, special tokens left out or spelt; bytes that are not UTF-8 become U+FFFD."""
        return self._chat.decode(list(ids), skip_special_tokens=skip_special)

    def vocabulary(self, special: bool = True) -> dict[str, int]:
        """The id of every token as it is spelt in `tokenizer.json`, with or without the special ones."""
        spelt: dict[str, int] = self._chat.get_vocab(with_added_tokens=special)
        return spelt

    def __len__(self) -> int:
        """How many ids there are, special ones included."""
        return self._length

    @property
    def padded(self) -> int:
        """`len` rounded up to a multiple of 128: the vocabulary of a model that uses this tokenizer."""
        return padded(self._length)

    @property
    def json(self) -> str:
        """The content of its `tokenizer.json`."""
        return self._json

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of the tokenizer's JSON with sorted keys."""
        canonical = json.dumps(json.loads(self._json), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and its configuration; `transformers.AutoTokenizer` and `load_tokenizer` read them."""
        roles = {f"{role}_token": self._chat.id_to_token(getattr(self, role)) for role in ("eos", "pad", "eot")}
        config = {**self.config, **roles}
        write_text(folder / "tokenizer.json", self._json)
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", roles)


def padded(length: int) -> int:
    """The vocabulary of a model for a tokenizer of `length` ids: rounded up to a multiple of 128."""
    return -(-length // _MULTIPLE) * _MULTIPLE


def load_tokenizer(path_or_id: str | Path) -> Tokenizer:
    """The tokenizer in a folder with `tokenizer.json`, in such a file, or of a repository on the hub."""
    place = Path(path_or_id).expanduser()
    files = local_files(place) if place.exists() else _download(str(path_or_id))
    if "tokenizer.json" not in files:
        raise InputError(
            f"{path_or_id}: has no tokenizer.json; convert it with transformers' AutoTokenizer and its save_pretrained"
        )
    config = read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    generation = read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    if "chat_template.jinja" in files:
        config["chat_template"] = files["chat_template.jinja"].read_text(encoding="utf-8")
    ends = generation.get("eos_token_id") or []
    return Tokenizer(
        _backend(files["tokenizer.json"]), config, ends if isinstance(ends, list) else [ends], str(path_or_id)
    )


def local_files(place: Path) -> dict[str, Path]:
    """What `load_tokenizer` reads of a folder or a file, by name; {} where there is neither."""
    if place.is_file():
        return {"tokenizer.json": place}
    return {name: place / name for name in _FILES if (place / name).is_file()}


def _backend(file: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{file}: not a tokenizer that `tokenizers` reads ({reason}); save or download it again"
        ) from None


def _download(name: str) -> dict[str, Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not _HUB_ID.fullmatch(name):
        raise InputError(f"{name}: no such folder or file, nor a hub id such as 'owner/name'; check the path")
    files: dict[str, Path] = {}
    for file in _FILES:
        try:
            files[file] = Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError as error:
            raise InputError(
                f"{name}: no such folder, and the hub cannot be reached; check the path or the connection"
            ) from error
        except EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{name}: cannot be loaded from the hub ({reason}); check the id and your access"
            ) from error
    return files


def _content(token: Any) -> str | None:
    """The text of a special token in a configuration, where it may be a mapping."""
    return token.get("content") if isinstance(token, dict) else token


def _roles(backend: tokenizers.Tokenizer, ends: list[str], pad: str | None, name: str) -> tuple[int, int, int]:
    """Ids that end a text, end a turn and pad: as declared, or else by the names that are known for the role."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}

    def first(*groups: Sequence[str]) -> str | None:
        return next((token for group in groups for token in group if backend.token_to_id(token) is not None), None)

    turns = [token for token in ends if token in _ENDS_OF_TURN]
    texts = [token for token in ends if token not in _ENDS_OF_TURN]
    eos = first(texts, [token for token in _ENDS_OF_TEXT if token in added], turns)
    if eos is None:
        raise InputError(f"{name}: no token ends a text; set eos_token in its tokenizer_config.json")
    eot = first(turns, [token for token in _ENDS_OF_TURN if token in added]) or eos
    padding = first([pad] if pad else [], [token for token in _PADS if token in added]) or eos
    return tuple(backend.token_to_id(token) for token in (eos, eot, padding))  # type: ignore[return-value]
