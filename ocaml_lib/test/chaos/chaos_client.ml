(* One client of `make chaos`: runs requests until it is told to stop (SIGTERM) or has had its rounds, checks every answer
   bit for bit, and leaves what it counted in a file that outlives it. Ends with 1 when an answer was wrong or a request
   was lost. *)

type arguments = {
  socket : string;
  job : string;
  policy : Sidecaml.Backend.policy;
  slots : int;
  counters : string;
  slow_calls : string;
  slow_us : int;
  table : string option;
  pause_us : int;
  first : int;
  rounds : int;
}

let policies : (string * Sidecaml.Backend.policy) list =
  [ ("spin", `Spin); ("adaptive", `Adaptive); ("block", `Block) ]

let arguments () =
  let socket = ref "" and job = ref "" and policy = ref "adaptive" and slots = ref 1 in
  let counters = ref "" and slow_calls = ref "" and slow_us = ref 1000 and table = ref "" and pause_us = ref 0 in
  let first = ref 1 and seed = ref 0 and rounds = ref max_int in
  Arg.parse
    [
      ("--socket", Arg.Set_string socket, "PATH  the daemon's socket");
      ("--job", Arg.Symbol (Job.names, ( := ) job), "  what to ask for: the model of that name");
      ("--policy", Arg.Symbol (List.map fst policies, ( := ) policy), "  how to wait");
      ("--slots", Arg.Set_int slots, "N  requests under way at once");
      ("--counters", Arg.Set_string counters, "FILE  where to count");
      ("--slow-calls", Arg.Set_string slow_calls, "FILE  where slow calls have a line");
      ("--slow-us", Arg.Set_int slow_us, "N  from how many microseconds a call is slow");
      ("--table", Arg.Set_string table, "FILE  inputs and answers that were computed beforehand");
      ("--pause-us", Arg.Set_int pause_us, "N  pause after each round of requests");
      ("--first", Arg.Set_int first, "N  the number of the first request");
      ("--rounds", Arg.Set_int rounds, "N  end by itself after so many");
      ("--seed", Arg.Set_int seed, "N  of what is random");
    ]
    (fun word -> raise (Arg.Bad ("what is " ^ word)))
    "chaos_client --socket PATH --job NAME --counters FILE --slow-calls FILE [...]";
  Random.init !seed;
  {
    socket = !socket;
    job = !job;
    policy = List.assoc !policy policies;
    slots = !slots;
    counters = !counters;
    slow_calls = !slow_calls;
    slow_us = !slow_us;
    table = (if !table = "" then None else Some !table);
    pause_us = !pause_us;
    first = !first;
    rounds = !rounds;
  }

let serve a ledger stop channel =
  Ledger.set ledger Opened_ns (Sidecaml.now_ns ());
  let job = Job.find a.job ~table:a.table channel in
  (* What the state must be is computed request by request. *)
  let in_order = (Sidecaml.model channel).carried <> [] in
  match Rounds.run channel job ledger ~first:a.first ~in_order ~pause_us:a.pause_us ~stop with
  | Ok () -> true
  | Error { id; error } ->
      let gone = Option.fold ~none:"" ~some:(Printf.sprintf " (%s)") (Sidecaml.gone channel) in
      Printf.eprintf "request %d: lost: %s%s\n%!" id (Sidecaml.Error.to_string error) gone;
      false

let () =
  let a = arguments () in
  let stopped = ref false and rounds = ref 0 in
  Sys.set_signal Sys.sigterm (Signal_handle (fun _ -> stopped := true));
  let ledger = Ledger.create ~counters:a.counters ~slow_calls:a.slow_calls ~slow_ns:(a.slow_us * 1000) in
  let well =
    match
      Sidecaml.with_model ~socket:a.socket ~slots:a.slots ~policy:a.policy ~dims:(Job.dims a.job) a.job
        (serve a ledger (fun () ->
             incr rounds;
             !stopped || !rounds > a.rounds))
    with
    | Ok well -> well
    | Error e ->
        Ledger.add ledger Failed;
        Printf.eprintf "open: %s\n%!" (Sidecaml.Error.to_string e);
        false
  in
  exit (if well && Ledger.get ledger Wrong = 0 then 0 else 1)
