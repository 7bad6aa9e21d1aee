"""Registry of background methods."""

from dl3flow.registry import Registry

BACKGROUNDS = Registry("background method")
