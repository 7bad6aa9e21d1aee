"""dl3flow: from DL3 gamma-ray data to published results, as a Snakemake workflow over a small library."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dl3flow")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+unknown"
