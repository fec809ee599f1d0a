"""`sidecaml export`: a PyTorch module as an ONNX file, and the proof that it computes the same."""

from __future__ import annotations


class ExportError(Exception):
    """A model that is not exported: says what, where, what was expected, what came, and what to do."""
