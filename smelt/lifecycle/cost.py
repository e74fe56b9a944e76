"""What a recipe's model will cost, before anything is built."""

from typing import Any

from smelt.errors import InputError
from smelt.recipe.account import cost
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

USUAL_SEQUENCE = 4096


def recipe_cost(recipe: Recipe, vocab: int | None = None, sequence: int | None = None) -> dict[str, Any]:
    """`smelt.recipe.account.cost`; unless given, the vocabulary is the recipe's tokenizer's, the sequence the longest
    trained on. Of a checkpoint that the model starts from, all but the weights is read."""
    if recipe.section("model").load is not None:
        from smelt.model.warm import resolved  # torch, which no other recipe needs

        recipe = resolved(recipe)
    if sequence is None:
        sequence = max(each.sequence for each in Plan(recipe).segments) if recipe.train else USUAL_SEQUENCE
    return cost(recipe, _vocabulary(recipe) if vocab is None else vocab, sequence)


def _vocabulary(recipe: Recipe) -> int:
    """Rows of the embedding that the tokenizer asks for."""
    section = recipe.tokenizer
    if section is None:
        raise InputError(f"recipe '{recipe.name}': has no tokenizer to say how large the vocabulary is; give --vocab N")
    from smelt.tokenizer.tokenizer import load_tokenizer, padded

    return padded(section.train.vocab) if section.train else load_tokenizer(section.load or "").padded
