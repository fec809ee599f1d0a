open Bench_loop

type handle

external open_helper : string -> handle = "bench_helper_open"
external tensors : handle -> (bool * string * string * int array) array = "bench_helper_tensors"
external bind : handle -> int -> Tensor.t -> unit = "bench_helper_bind"
external start : handle -> int -> unit = "bench_helper_start"
external wake_helper : handle -> unit = "bench_helper_wake"
external rest_helper : handle -> unit = "bench_helper_rest"
external run_helper : handle -> (int[@untagged]) = "bench_helper_run_byte" "bench_helper_run_native" [@@noalloc]
external problem : handle -> string = "bench_helper_problem"
external close_helper : handle -> unit = "bench_helper_close"

(* The arrays also keep alive what the model is bound to. *)
type t = { handle : handle; inputs : Tensor.t array; outputs : Tensor.t array }

let allocates = false
let inputs t = t.inputs
let outputs t = t.outputs
let wake t = wake_helper t.handle
let rest t = rest_helper t.handle
let run t = if run_helper t.handle < 0 then Failed.fail "the model failed: %s" (problem t.handle)
let close t = close_helper t.handle

let bound handle i (is_output, name, element, dims) =
  let memory = Tensor.allocate ~name ~element dims in
  bind handle i memory;
  (is_output, memory)

let tensors_of all wanted =
  Array.of_list (List.filter_map (fun (is_output, tensor) -> if is_output = wanted then Some tensor else None) all)

let open_model ~core model =
  let handle = open_helper model in
  match
    let all = Array.to_list (Array.mapi (bound handle) (tensors handle)) in
    start handle core;
    { handle; inputs = tensors_of all false; outputs = tensors_of all true }
  with
  | t -> t
  | exception exn -> close_helper handle; raise exn
