open Bench_loop
module Ffi = Backend_path.Make (Sidecaml_ffi)

let open_ffi lock arguments = Opened.Opened ((module Ffi), Ffi.open_model ~lock (Arguments.model arguments))

let open_helper arguments =
  let core = Arguments.server_core arguments and model = Arguments.model arguments in
  Opened.Opened ((module Bench_helper), Bench_helper.open_model ~core model)

let all = [ ("ffi-locked", open_ffi `Hold); ("ffi-released", open_ffi `Release); ("ffi-helper-spin", open_helper) ]
