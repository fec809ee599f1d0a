(* A program that outlives its daemon: it asks model "digits" so many times, and says who answered.

     resilient.exe [CALLS] [PAUSE_S]

   Kill the daemon as it runs, and start it again. Without one, the file digits.onnx answers in this process. *)

open Bigarray

module Settings = struct
  (* Wait 20 ms for the daemon; then fall back, and look for it again every second. *)
  let settings =
    {
      Sidecaml.Resilient.default with
      patience_ns = 20_000_000;
      wait = true;
      breaker = (fun () -> Sidecaml.Breaker.make ~failures:1 ~cool_down_ns:1_000_000_000 ());
    }
end

module Backend = Sidecaml.Resilient.With_fallback (Settings) (Sidecaml) (Sidecaml_ffi)

let who m = match Backend.answered_by m with `Primary -> "the daemon" | `Fallback -> "this process"

let breaker m = Sidecaml.Breaker.(state_to_string (state (Backend.breaker m) ~now_ns:(Backend.now_ns ())))

let argument n default = if Array.length Sys.argv > n then Sys.argv.(n) else default

let () =
  Sidecaml_ffi.register "digits" ~path:"digits.onnx";
  Backend.with_model_exn "digits" @@ fun m ->
  let x = Backend.input2 m "image" Float32 and y = Backend.output2 m "scores" Float32 in
  for call = 1 to int_of_string (argument 1 "100") do
    Array2.fill x (float_of_int call);
    (match Backend.run m with
    | Ok () -> Printf.printf "%d: %g, from %s; breaker %s, reopened %d\n%!" call y.{0, 0} (who m) (breaker m) (Backend.reopened m)
    | Error e -> Printf.printf "%d: %s\n%!" call (Sidecaml.Error.to_string e));
    Unix.sleepf (float_of_string (argument 2 "0.1"))
  done
