(* What the tests share. *)

module Error = Sidecaml.Error

let error = Alcotest.testable Error.pp Error.equal
let result value = Alcotest.result value error
let case name test = Alcotest.test_case name `Quick test

(* Generously longer than anything takes; a test that hangs is ended by the time limit on them all. *)
let second_ns = 1_000_000_000

let contains text part =
  let n = String.length part in
  let rec at i = i + n <= String.length text && (String.sub text i n = part || at (i + 1)) in
  at 0

let mentions what text parts =
  let missing = List.filter (fun part -> not (contains text part)) parts in
  if missing <> [] then Alcotest.failf "%s: %S does not mention %s" what text (String.concat ", " missing)

(* The call is a mistake, and the text says what a person needs. *)
let misuse what call parts =
  match call () with
  | _ -> Alcotest.failf "%s: no Invalid_argument" what
  | exception Invalid_argument text -> mentions what text parts

let rejected what (outcome : ('a, Error.t) result) code parts =
  match outcome with
  | Error (Rejected r) when r.code = code -> mentions what r.message parts
  | Error e -> Alcotest.failf "%s: %s" what (Error.to_string e)
  | Ok _ -> Alcotest.failf "%s: not rejected" what

let ok what outcome = Alcotest.check (result Alcotest.unit) what (Ok ()) outcome
let fails what error_wanted outcome = Alcotest.check (result Alcotest.unit) what (Error error_wanted) outcome

(* The client gave up, or the worker knew beforehand. *)
let too_late what = function
  | Error (Error.Timeout | Error.Rejected { code = Deadline; _ }) -> ()
  | Ok () -> Alcotest.failf "%s: it was answered" what
  | Error e -> Alcotest.failf "%s: %s" what (Error.to_string e)

(* What depends on this process, or the worker, being run at some moment, on a machine that may stand still then: a fault
   shows each time. *)
let rec patiently ?(tries = 5) body () = try body () with _ when tries > 1 -> patiently ~tries:(tries - 1) body ()

let with_model ?slots ?dims ?text_bytes ?policy ?lock name f =
  Sidecaml.with_model_exn ~socket:(Support.Daemon.shared ()) ?slots ?dims ?text_bytes ?policy ?lock name f

(* The tests that every backend must pass are functors over it, and see it as they would see the daemon. *)
module Over (B : Backends.S) = struct
  module Sidecaml = struct
    module Error = Sidecaml.Error
    module Dtype = Sidecaml.Dtype
    module Model = Sidecaml.Model
    module Backend = Sidecaml.Backend
    include B
  end

  let socket = B.socket

  let with_model ?slots ?dims ?text_bytes ?policy ?lock name f =
    B.with_model_exn ~socket:(B.socket ()) ?slots ?dims ?text_bytes ?policy ?lock name f

  (* Tests of one backend carry its name. *)
  let group name cases = (Printf.sprintf "%s (%s)" name B.label, cases)
end

let rec until what condition =
  if not (condition ()) then begin
    Unix.sleepf 0.001;
    until what condition
  end

let descriptors () = Array.length (Sys.readdir "/proc/self/fd")

(* QCHECK_SEED=N repeats a failure. *)
let seed =
  let chosen =
    match Option.bind (Sys.getenv_opt "QCHECK_SEED") int_of_string_opt with
    | Some seed -> seed
    | None -> Random.State.bits (Random.State.make_self_init ())
  in
  lazy
    (Printf.eprintf "QCHECK_SEED=%d\n%!" chosen;
     chosen)

let property name ?print ~count gen holds =
  case name (fun () ->
      let rand = Random.State.make [| Lazy.force seed |] in
      QCheck2.Test.check_exn ~rand (QCheck2.Test.make ~name ?print ~count gen holds))
