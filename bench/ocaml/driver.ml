open Bench_loop
open Bench_paths

let paths = Ipc_paths.all @ In_process_paths.all

let () =
  Program.main (fun () ->
      let arguments = Arguments.driver () in
      let (Opened.Opened ((module P), path)) = Choice.find "path" paths arguments.choice arguments in
      let module Commands = Commands.Make (P) in
      Commands.serve path)
