"""Every family by its `model_type`, the first that can express a model being the one it is exported to."""

from smelt.model.families.family import Family
from smelt.model.families.llama import LLAMA
from smelt.model.families.smollm3 import SMOLLM3

FAMILIES: dict[str, Family] = {"llama": LLAMA, "smollm3": SMOLLM3}
