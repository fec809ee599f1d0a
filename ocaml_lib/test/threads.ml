(* Several threads: a channel for each, and a lock that is released while a call waits. *)

open Bigarray
open Check

let in_threads count body =
  let failures = Array.make count None in
  let run i = match body i with () -> () | exception exn -> failures.(i) <- Some exn in
  let threads = List.init count (fun i -> Thread.create run i) in
  List.iter Thread.join threads;
  Array.iter (Option.iter raise) failures

let each_thread_has_its_channel () =
  in_threads 4 (fun i ->
      with_model "digits" @@ fun m ->
      let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
      for call = 1 to 200 do
        let value = float_of_int ((i * 1000) + call) in
        Array2.fill x value;
        Sidecaml.run_exn m;
        if y.{0, 5} <> 2. *. value then failwith "another thread's answer"
      done)

let channels_are_opened_at_once () =
  in_threads 4 (fun _ ->
      for _ = 1 to 10 do
        with_model "every_rank" Sidecaml.run_exn
      done)

(* Of a backend with the model "slow". *)
module Make (B : Backends.S) = struct
  open Over (B)

  let work m n = Bigarray.Array0.set (Sidecaml.input0 m "n" Int64) n

  (* Counts how often this thread got the lock while another was in its call. *)
  let turns_during lock =
    with_model ~policy:`Block ~lock "slow" @@ fun m ->
    work m Calls.much_longer;
    let begun = ref false and finished = ref false and turns = ref 0 in
    let call () =
      begun := true;
      Sidecaml.run_exn m;
      finished := true
    in
    let caller = Thread.create call () in
    until "begun" (fun () -> !begun);
    while not !finished do
      incr turns;
      Thread.yield ()
    done;
    Thread.join caller;
    !turns

  let release_lets_others_run () = Alcotest.(check bool) "turns" true (turns_during `Release > 3)

  let a_channel_in_use_is_refused () =
    with_model ~policy:`Block "slow" @@ fun m ->
    work m Calls.much_longer;
    let finished = ref false in
    let caller =
      Thread.create
        (fun () ->
          Sidecaml.run_exn m;
          finished := true)
        ()
    in
    let refused call =
      match call () with () -> false | exception Invalid_argument text -> contains text "one thread at a time"
    in
    let poll () = ignore (Sidecaml.poll m 0) in
    until "poll is refused" (fun () -> !finished || refused poll);
    Alcotest.(check bool) "close is refused" true (!finished || refused (fun () -> Sidecaml.close m));
    let goes_on = not !finished in
    Thread.join caller;
    Alcotest.(check bool) "the call went on" true goes_on;
    Alcotest.(check bool) "and ends" true !finished;
    ok "and the channel serves on" (work m 0L; Sidecaml.run m)

  let tests =
    [
      group "threads"
        [
          case "release lets others run" (patiently release_lets_others_run);
          case "a channel in use is refused" (patiently a_channel_in_use_is_refused);
        ];
    ]
end

let tests =
  [
    ( "threads",
      [
        case "each thread has its channel" each_thread_has_its_channel;
        case "channels are opened at once" channels_are_opened_at_once;
      ] );
  ]
