"""Background methods: one line here makes a method known."""

from dl3flow.background import fov
from dl3flow.background.registry import BACKGROUNDS

__all__ = ["BACKGROUNDS", "fov"]
