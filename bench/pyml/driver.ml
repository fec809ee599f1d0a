open Bench_loop

let () =
  Program.main (fun () ->
      let arguments = Arguments.driver () in
      Choice.find "path" [ ("pyml", Serve.pyml) ] arguments.choice arguments)
