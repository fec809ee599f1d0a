"""The daemon and the Python side of sidecaml: PyTorch models beside another process."""

__version__ = "0.1.0"
