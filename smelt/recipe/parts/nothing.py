"""A layer without a mixer, or without a feed-forward."""

from typing import Literal

from smelt.recipe.parts.part import Part


class Nothing(Part):
    """This half of the layer, with its norm, is left out."""

    kind: Literal["none"]
