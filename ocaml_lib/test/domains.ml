(* Several domains: a channel for each, and collections that need not wait for a call. *)

open Bigarray

let with_model ?policy name f = Sidecaml.with_model_exn ~socket:(Support.Daemon.shared ()) ?policy name f
let set_work m n = Array0.set (Sidecaml.input0 m "n" Int64) n

let each_domain_has_its_channel () =
  ignore (Support.Daemon.shared ());
  let body i () =
    with_model "digits" @@ fun m ->
    let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
    for call = 1 to 200 do
      let value = float_of_int ((i * 1000) + call) in
      Array2.fill x value;
      ignore (Sys.opaque_identity (List.init 200 string_of_int));
      Sidecaml.run_exn m;
      if y.{0, 5} <> 2. *. value then failwith "another domain's answer"
    done
  in
  List.iter Domain.join (List.init 3 (fun i -> Domain.spawn (body i)))

module Pool = Sidecaml_pool.Make (Sidecaml)

(* As many channels as domains: none waits. *)
let a_pool_has_one_for_each_domain () =
  let pool = Pool.create_exn ~socket:(Support.Daemon.shared ()) ~slots:8 ~size:3 "digits" in
  let body i () =
    match Pool.try_with_channel pool @@ fun m ->
      let images = Array.init 8 (fun slot -> Sidecaml.input2 ~slot m "image" Float32) in
      let scores = Array.init 8 (fun slot -> Sidecaml.output2 ~slot m "scores" Float32) in
      let fill slot value = Array2.fill images.(slot) value in
      let answer slot value outcome =
        if outcome <> Ok () || scores.(slot).{0, 5} <> 2. *. value then failwith "another domain's answer"
      in
      Sidecaml.iter m ~fill ~answer (Seq.map (fun n -> float_of_int ((1000 * i) + n)) (List.to_seq (List.init 400 Fun.id)))
    with
    | Ok (Ok ()) -> ()
    | Ok (Error e) | Error e -> failwith (Sidecaml.Error.to_string e)
  in
  List.iter Domain.join (List.init 3 (fun i -> Domain.spawn (body i)));
  Alcotest.(check int) "all are back" 3 (Pool.free pool);
  Pool.close pool

(* What depends on this domain being run during a call of another one, on a machine that may stand still then: a fault
   shows each time. *)
let in_some_try body = Alcotest.(check bool) "in some try" true (List.exists (fun _try -> body ()) [ 1; 2; 3; 4; 5 ])

(* A minor collection stops every domain, and a call that holds the lock would make it wait. *)
let collections_go_on_during_a_call policy () =
  in_some_try @@ fun () ->
  with_model ~policy "slow" @@ fun m ->
  set_work m 20_000L;
  let begun = Atomic.make false and finished = Atomic.make false in
  let caller =
    Domain.spawn (fun () ->
        Atomic.set begun true;
        Sidecaml.run_exn m;
        Atomic.set finished true)
  in
  while not (Atomic.get begun) do
    Domain.cpu_relax ()
  done;
  for _ = 1 to 20 do
    ignore (Sys.opaque_identity (List.init 1000 string_of_int));
    Gc.minor ()
  done;
  let goes_on = not (Atomic.get finished) in
  Domain.join caller;
  goes_on

let a_channel_in_use_is_refused () =
  in_some_try @@ fun () ->
  with_model ~policy:`Block "slow" @@ fun m ->
  set_work m 20_000L;
  let finished = Atomic.make false in
  let caller =
    Domain.spawn (fun () ->
        Sidecaml.run_exn m;
        Atomic.set finished true)
  in
  let is_taken call =
    match call () with
    | () -> false
    | exception Invalid_argument text -> String.ends_with ~suffix:"open one for each" text
  in
  let rec poll_is_refused () =
    is_taken (fun () -> ignore (Sidecaml.poll m 0)) || ((not (Atomic.get finished)) && poll_is_refused ())
  in
  let poll = poll_is_refused () in
  let close = Atomic.get finished || is_taken (fun () -> Sidecaml.close m) in
  let went_on = not (Atomic.get finished) in
  Domain.join caller;
  Alcotest.(check bool) "close" true close;
  set_work m 0L;
  Sidecaml.run_exn m;
  poll && went_on

let () =
  ignore (Support.Daemon.python ());
  let case name test = Alcotest.test_case name `Quick test in
  Support.Daemon.stopping_shared @@ fun () ->
  Alcotest.run ~and_exit:false "domains"
    [
      ( "domains",
        [
          case "each domain has its channel" each_domain_has_its_channel;
          case "a pool has one for each domain" a_pool_has_one_for_each_domain;
          case "collections go on during a call that sleeps" (collections_go_on_during_a_call `Block);
          case "collections go on during a call that spins" (collections_go_on_during_a_call `Spin);
          case "a channel in use is refused" a_channel_in_use_is_refused;
        ] );
    ]
