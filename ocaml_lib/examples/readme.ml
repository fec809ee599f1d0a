let () =
  Sidecaml.with_model_exn "digits" @@ fun m ->
  let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
  Bigarray.Array2.fill x 0.5;
  match Sidecaml.run m with
  | Ok () -> Printf.printf "%f\n" y.{0, 0}
  | Error e -> prerr_endline (Sidecaml.Error.to_string e)
