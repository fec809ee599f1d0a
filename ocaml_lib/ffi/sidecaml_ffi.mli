(** Models in this process, through ONNX Runtime's C API: the same interface as the daemon's, without a daemon.

    {[
      module Backend = Sidecaml_ffi (* or Sidecaml *)

      let () =
        Backend.with_model_exn "digits.onnx" @@ fun m ->
        let x = Backend.input2 m "image" Float32 and y = Backend.output2 m "scores" Float32 in
        Bigarray.Array2.fill x 0.5;
        Backend.run_exn m;
        Printf.printf "%f\n" y.{0, 0}
    ]}

    A model's name is one that {!register} made known, else the path of its file ([*.onnx], or anything with a [/]).
    Channels of one file share its weights, and may run in several threads or domains at a time. Results have the same
    bits as the daemon's, and errors the same texts.

    What is given up against the daemon: a crash in a kernel ends this process; a model runs on the caller's core and in
    its caches; with {!type-Sidecaml.Backend.lock} [`Hold] no other thread of the domain runs meanwhile, and every other
    domain's minor collection waits for the end of the run; with [`Release] beside a busy thread, the lock comes back
    late. A deadline ends a run between two of its nodes, not within one. Strings are copied, for ONNX Runtime has them in
    memory of its own (the daemon's worker does the same). Beyond that see {!Sidecaml.In_process}.

    The library [libonnxruntime.so] is opened at the first call that needs it: that of {!use_library}, else
    [$SIDECAML_ONNXRUNTIME], else the one inside the Python package [onnxruntime] of [$VIRTUAL_ENV], else the system's.
    ONNX Runtime's telemetry is switched off before ([ORT_DISABLE_TELEMETRY=1]). *)

include Sidecaml.Backend.S

val register : ?threads:int -> ?state:(string * string) list -> string -> path:string -> unit
(** [register name ~path] makes a model's file known by a name, in place of one of that name; it is loaded when the first
    channel opens.

    @param threads of ONNX Runtime for one run; opening the model refuses a number that makes no sense. Default: 1, the
      caller's own.
    @param state outputs that become inputs of a channel's next request, which no program sees: see
      {!Sidecaml.Backend.S.reset}. Each lies in two places, one read and one written, so that nothing is copied. Default:
      none. *)

val forget : string -> unit
(** [forget name] takes the name back; channels that are open stay open. *)

val use_library : string -> (unit, Sidecaml.Error.t) result
(** [use_library path] opens that [libonnxruntime.so]. [Rejected] with [Model_failed] when it cannot be used, and with
    [Invalid] when another is open already: a process has one. *)

val library : unit -> (string * string, Sidecaml.Error.t) result
(** [library ()] is the version and the path of the library in use; opens it. *)
