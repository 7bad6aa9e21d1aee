"""The shapes of the package ``regions``, loaded when one is first used.

With its drawing library it takes a quarter of the time in which a job starts, and many jobs use none.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    import regions

    return getattr(regions, name)
