(* The same program on three backends: the daemon, this process, and a mock.

     backends.exe daemon        the daemon's model "digits"
     backends.exe in-process    the file digits.onnx, run in this process
     backends.exe mock          an OCaml function, for tests *)

open Bigarray

module Program (B : Sidecaml.Backend.S) = struct
  let scores name =
    B.with_model_exn name @@ fun m ->
    let x = B.input2 m "image" Float32 and y = B.output2 m "scores" Float32 in
    Array2.fill x 0.5;
    B.run_exn m;
    Array.init (Array2.dim2 y) (fun i -> y.{0, i})
end

module In_daemon = Program (Sidecaml)
module In_process = Program (Sidecaml_ffi)
module With_mock = Program (Sidecaml.Mock)

let serve_mock () =
  let tensor name columns : Sidecaml.Model.tensor =
    { name; dtype = "float32"; shape = [| Fixed 1; Fixed columns |] }
  in
  Sidecaml.Mock.serve "digits" ~inputs:[ tensor "image" 784 ] ~outputs:[ tensor "scores" 10 ] (fun m ~slot ->
      let x = Sidecaml.Mock.input2 ~slot m "image" Float32 in
      Array2.fill (Sidecaml.Mock.output2 ~slot m "scores" Float32) x.{0, 0};
      Ok ())

let scores = function
  | "daemon" -> In_daemon.scores "digits"
  | "in-process" -> In_process.scores "digits.onnx"
  | "mock" ->
      serve_mock ();
      With_mock.scores "digits"
  | other -> raise (Arg.Bad (Printf.sprintf "no backend is called %S: daemon, in-process or mock" other))

let () =
  match scores (if Array.length Sys.argv > 1 then Sys.argv.(1) else "daemon") with
  | found -> print_endline (String.concat " " (Array.to_list (Array.map (Printf.sprintf "%h") found)))
  | exception Arg.Bad text ->
      prerr_endline text;
      exit 2
  | exception Sidecaml.Error.Error e ->
      prerr_endline (Sidecaml.Error.to_string e);
      exit 1
