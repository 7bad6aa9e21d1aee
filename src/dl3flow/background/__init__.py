"""Background methods: one line here makes a method known."""

from dl3flow.background import (
    acceptance,
    adaptive_ring,
    fov,
    off_runs,
    phase,
    reflected,
    ring,
    wobble,
)
from dl3flow.background.registry import BACKGROUNDS

__all__ = [
    "BACKGROUNDS",
    "acceptance",
    "adaptive_ring",
    "fov",
    "off_runs",
    "phase",
    "reflected",
    "ring",
    "wobble",
]
