let pyml _ =
  Bench_loop.Failed.fail "built without pyml: on Debian, install libpyml-ocaml-dev, and build with dune again"
