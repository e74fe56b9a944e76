"""What a recipe's mixtures deserve to have said aloud, without being wrong."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe

_EXACT = 1e-9
_NEAR = 0.05  # weights whose sum is this close to 1, or to 100, were meant as shares


def notices(recipe: "Recipe") -> list[str]:
    """A sentence for each stage whose weights were meant as shares and do not add up to one (or to 100): they are
    normalised, as any weights are."""
    said = []
    for stage in recipe.train.stages if recipe.train is not None else ():
        total = sum(stage.mixture.values())
        meant = next((whole for whole in (1, 100) if _EXACT < abs(total / whole - 1) <= _NEAR), None)
        if meant is not None:
            said.append(
                f"stage '{stage.name}': its mixture's weights sum to {total:.6g}, not to {meant}; they are normalised"
            )
    return said
