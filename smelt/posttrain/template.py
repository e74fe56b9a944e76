"""The chat template: conversations as one text, the same here and in every tool that reads `chat_template.jinja`."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from smelt.errors import InputError
from smelt.tokenizer.tokenizer import Tokenizer

FILE = "chat_template.jinja"
MARKERS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = files("smelt.posttrain").joinpath(FILE).read_text(encoding="utf-8").rstrip("\n")
Message = Mapping[str, str]
_MARK = re.compile(r"\{%[-+]?\s*generation\b")


def render(messages: Sequence[Message], add_generation_prompt: bool = False, template: str = TEMPLATE) -> str:
    """The text of a conversation; with `add_generation_prompt` it ends where the assistant is to go on.

    A message is {"role", "content"}. InputError when the template refuses the conversation.
    """
    try:
        return _compiled(template).render(messages=messages, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise InputError(f"{FILE}: cannot render this conversation ({error}); mend the template or the roles") from None


def asking(tokenizer: Tokenizer) -> Callable[[str], str]:
    """Turns a user's message into the prompt of a conversation that it opens, by the tokenizer's own template."""
    template = template_of(tokenizer)
    return lambda message: render([{"role": "user", "content": message}], add_generation_prompt=True, template=template)


def template_of(tokenizer: Tokenizer) -> str:
    """The tokenizer's own chat template, or ours where it has none. InputError when ours lacks its markers there."""
    own = tokenizer.config.get("chat_template")
    if isinstance(own, str):
        return own
    check_markers(tokenizer)
    return TEMPLATE


def check_markers(tokenizer: Tokenizer) -> None:
    """InputError unless each of the template's markers is one token."""
    for marker in MARKERS:
        if len(tokenizer.encode_chat(marker)) != 1:
            raise InputError(
                f"tokenizer: has no token {marker}, which the chat template needs; add it to the vocabulary, or use "
                "a tokenizer that reserves it"
            )


def learnable(template: str | None) -> bool:
    """Whether a template marks what the assistant says, so that training can tell it from the rest."""
    return template is not None and _MARK.search(template) is not None


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` renders its content; only training needs to know where it was."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@cache
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _refuse(message: str) -> Any:
    raise TemplateError(message)
