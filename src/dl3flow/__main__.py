"""``python -m dl3flow``."""

import sys

from dl3flow.cli import main

if __name__ == "__main__":
    sys.exit(main())
