type code =
  | Engine
  | Bad_dims
  | Bad_strings
  | Deadline
  | Unknown_model
  | Model_failed
  | Too_many_slots
  | No_space
  | Unsupported
  | Limit
  | Shutting_down
  | Abi_mismatch
  | Protocol
  | Connect
  | Corrupt
  | Denied
  | Invalid
  | System
  | No_memory
  | Other of int

type t =
  | Timeout
  | Full
  | Busy
  | Server_gone
  | Worker_crashed
  | Output_too_large of { outputs : (string * int array) list; text_bytes : int; message : string }
  | Circuit_open of { since_ns : int; until_ns : int; failures : int; last : t }
  | Rejected of { code : code; message : string }

exception Error of t

let numbers =
  [
    (Engine, Abi.error_engine);
    (Bad_dims, Abi.error_bad_dims);
    (Bad_strings, Abi.error_bad_strings);
    (Deadline, Abi.error_deadline);
    (Unknown_model, Abi.error_unknown_model);
    (Model_failed, Abi.error_model_failed);
    (Too_many_slots, Abi.error_too_many_slots);
    (No_space, Abi.error_no_space);
    (Unsupported, Abi.error_unsupported);
    (Limit, Abi.error_limit);
    (Shutting_down, Abi.error_shutting_down);
    (Abi_mismatch, Abi.error_abi_mismatch);
    (Protocol, Abi.error_protocol);
    (Connect, Abi.error_connect);
    (Corrupt, Abi.error_corrupt);
    (Denied, Abi.error_denied);
    (Invalid, Abi.error_invalid);
    (System, Abi.error_system);
    (No_memory, Abi.error_no_memory);
  ]

let all_codes = List.map fst numbers
let number = function Other n -> n | code -> List.assoc code numbers

let code_of_number n =
  match List.find_opt (fun (_, number) -> number = n) numbers with Some (code, _) -> code | None -> Other n

let entry n = List.find_opt (fun (number, _, _) -> number = n) Abi.errors
let name_of_number n = match entry n with Some (_, name, _) -> name | None -> Printf.sprintf "code %d" n

let text_of_number n =
  match entry n with Some (_, _, text) -> text | None -> "an error code that this version does not know"

let code_name code = name_of_number (number code)

(* The errors that have no message of their own. *)
let plain =
  [
    (Abi.error_timeout, Timeout);
    (Abi.error_full, Full);
    (Abi.error_busy, Busy);
    (Abi.error_server_gone, Server_gone);
    (Abi.error_worker_crashed, Worker_crashed);
  ]

let of_number n ~message =
  let message = if message = "" then text_of_number n else message in
  match List.assoc_opt n plain with
  | Some error -> error
  | None when n = Abi.error_output_too_large -> Output_too_large { outputs = []; text_bytes = 0; message }
  | None -> Rejected { code = code_of_number n; message }

let describe_plain error =
  let n, _ = List.find (fun (_, e) -> e = error) plain in
  Printf.sprintf "%s: %s" (name_of_number n) (text_of_number n)

let named n message = Printf.sprintf "%s: %s" (name_of_number n) message
let seconds ns = float_of_int ns /. 1e9

let rec to_string = function
  | Rejected { code; message } -> named (number code) message
  | Output_too_large { message; _ } -> named Abi.error_output_too_large message
  | Circuit_open { since_ns; until_ns; failures; last } ->
      named Abi.error_circuit_open (refused ~since_ns ~until_ns ~failures last)
  | error -> describe_plain error

and refused ~since_ns ~until_ns ~failures last =
  Printf.sprintf "%d calls in a row failed, so none is tried from %.3f s to %.3f s of CLOCK_MONOTONIC; the last failure: %s"
    failures (seconds since_ns) (seconds until_ns) (to_string last)

let to_number = function
  | Rejected { code; message } -> (number code, message)
  | Output_too_large { message; _ } -> (Abi.error_output_too_large, message)
  | Circuit_open { since_ns; until_ns; failures; last } ->
      (Abi.error_circuit_open, refused ~since_ns ~until_ns ~failures last)
  | error -> (fst (List.find (fun (_, e) -> e = error) plain), "")

let pp ppf error = Format.pp_print_string ppf (to_string error)
let equal (a : t) b = a = b
let get_exn = function Ok x -> x | Error e -> raise (Error e)

let () =
  Printexc.register_printer (function
    | Error e -> Some (Printf.sprintf "Sidecaml.Error.Error(%s)" (to_string e))
    | _ -> None)
