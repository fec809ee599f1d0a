module type S = sig
  include Sidecaml.Backend.S

  val label : string
  val socket : unit -> string
  val computes : string -> bool
  val too_large : Sidecaml.Error.code
end

module Daemon = struct
  include Sidecaml

  let label = "daemon"
  let socket = Support.Daemon.shared
  let computes _ = true
  let too_large = Sidecaml.Error.Limit
end

module In_process = struct
  include Sidecaml_ffi

  let label = "in process"

  (* The library, too, is the one that the daemon opens. *)
  let name_library () =
    if Option.value (Sys.getenv_opt "VIRTUAL_ENV") ~default:"" = "" then
      Unix.putenv "VIRTUAL_ENV" (Filename.dirname (Filename.dirname (Support.Daemon.python ())))

  (* The files are those that the daemon serves. *)
  let registered =
    lazy
      (name_library ();
       let folder = Filename.dirname (Support.Daemon.shared ()) in
       let register file =
         if Filename.check_suffix file ".onnx" then
           let name = Filename.chop_suffix file ".onnx" in
           let state = if name = "carried" || name = "carried_rows" then [ ("next", "state") ] else [] in
           register name ~state ~path:(Filename.concat folder file)
       in
       Array.iter register (Sys.readdir folder))

  let socket () =
    Lazy.force registered;
    "no socket"


  (* It has no engine of Python's. *)
  let computes name = name <> "through_numpy"
  let too_large = Sidecaml.Error.No_memory
end

module Mock = struct
  include Sidecaml.Mock

  let label = "mock"
  let served = lazy (Mock_models.serve ())

  let socket () =
    Lazy.force served;
    "no socket"

  (* How long a matrix product takes is nothing to imitate, nor is a model that does not keep to its shapes. *)
  let computes name = name <> "slow" && name <> "positives"
  let too_large = Sidecaml.Error.No_memory
end

module Resilient = struct
  include Sidecaml.Resilient.With_fallback (Sidecaml.Resilient.Default) (Sidecaml) (Sidecaml_ffi)

  let label = "resilient"
  let socket = Support.Daemon.shared
  let computes _ = true
  let too_large = Sidecaml.Error.Limit
end

let all = [ (module Daemon : S); (module In_process); (module Mock); (module Resilient) ]
