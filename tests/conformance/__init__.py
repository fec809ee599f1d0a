"""ONNX's own conformance suite, `onnx.backend.test`, through sidecaml: `make conformance`."""
