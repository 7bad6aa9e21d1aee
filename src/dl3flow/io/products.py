"""Products of an analysis (DL5) as files, and `write_product`, the one writer through which every step writes.

The content stamp of a product will be made in `dl3flow.io.files`, where that writer lives below the modules that use it.
"""

from dl3flow.io.files import write_product, write_text
from dl3flow.io.provenance import Provenance, collect_provenance

__all__ = ["Provenance", "collect_provenance", "write_product", "write_text"]
