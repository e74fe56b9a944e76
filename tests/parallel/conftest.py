"""Lets the tests of this folder import the small models of the tests of `model`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "model"))
