"""Hugging Face checkpoints, both ways: each family is one table of names and one reading of `config.json`."""

from smelt.model.families.export import export_model
from smelt.model.families.importer import import_model

__all__ = ["export_model", "import_model"]
