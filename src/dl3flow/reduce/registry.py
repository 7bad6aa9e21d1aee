"""Registries of the reduction: recipes that bin an observation, and safe masks."""

from dl3flow.registry import Registry

RECIPES = Registry("recipe")
SAFE_MASKS = Registry("safe mask")
