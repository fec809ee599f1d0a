"""The benchmark: every way to call a model from OCaml, side by side. See docs/benchmark.md."""
