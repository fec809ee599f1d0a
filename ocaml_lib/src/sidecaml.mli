(** PyTorch models beside an OCaml process, at in-process speed.

    A daemon runs the models. A program writes its inputs as Bigarrays into memory that it shares with the daemon, and
    reads the outputs in place:

    {[
      let () =
        Sidecaml.with_model_exn "digits" @@ fun m ->
        let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
        Bigarray.Array2.fill x 0.5;
        match Sidecaml.run m with
        | Ok () -> Printf.printf "%f\n" y.{0, 0}
        | Error e -> prerr_endline (Sidecaml.Error.to_string e)
    ]}

    This module is {!Ipc} with its types beside it. {!Backend} explains [policy] and [lock]. *)

module Error = Error
module Dtype = Dtype
module Convert = Convert
module Strings = Strings
module Model = Model
module Backend = Backend
module Ipc = Ipc
module In_process = In_process
module Mock = Mock
module Breaker = Breaker
module Resilient = Resilient

include Backend.S with type t = Ipc.t
(** @inline *)

val default_socket : unit -> string
(** [default_socket ()] is {!Ipc.default_socket}[ ()]. *)
