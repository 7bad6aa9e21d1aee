"""DL3 to DL4: one line here makes a recipe or safe mask known."""

from dl3flow.reduce import cube, safe_mask, spectrum
from dl3flow.reduce.registry import RECIPES, SAFE_MASKS

__all__ = ["RECIPES", "SAFE_MASKS", "cube", "safe_mask", "spectrum"]
