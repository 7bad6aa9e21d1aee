"""Background methods: one line here makes a method known."""

from dl3flow.background import adaptive_ring, fov, phase, reflected, ring, wobble
from dl3flow.background.registry import BACKGROUNDS

__all__ = ["BACKGROUNDS", "adaptive_ring", "fov", "phase", "reflected", "ring", "wobble"]
