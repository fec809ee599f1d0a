"""`sidecaml bench`: client processes that keep a served model under load (docs/load.md)."""
