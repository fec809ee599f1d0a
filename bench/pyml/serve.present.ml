module Commands = Bench_loop.Commands.Make (Bench_pyml)

let pyml arguments = Commands.serve (Bench_pyml.open_model (Bench_loop.Arguments.model arguments))
