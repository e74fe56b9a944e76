"""`corpus.sources.NAME.edit`: what changes the text of a document before filters judge it."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section


class C4Lines(Section):
    """C4's line rules (Raffel et al. 2020, section 2.2): lines go that end without punctuation (`punctuation`), have
    fewer than `min_words` words or one of more than `max_word_length` characters, or speak of JavaScript
    (`javascript`), cookies or terms of use (`policy`); marks of citations (`citations`) are cut out.

    A line with "lorem ipsum" or a curly bracket stays, so that `c4-quality` can judge its page.
    """

    kind: Literal["c4-lines"]
    punctuation: bool = True
    min_words: int = Field(default=3, ge=0)
    max_word_length: int | None = Field(default=1000, ge=1)
    citations: bool = True
    javascript: bool = True
    policy: bool = True


class PersonalData(Section):
    """E-mail addresses, public IP addresses and phone numbers, or those of them in `remove`, become placeholders."""

    kind: Literal["pii"]
    remove: tuple[Literal["email", "ip", "phone"], ...] = Field(default=("email", "ip", "phone"), min_length=1)


AnyEdit = Annotated[C4Lines | PersonalData, Field(discriminator="kind")]
