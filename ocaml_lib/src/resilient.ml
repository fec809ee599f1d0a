type settings = {
  patience_ns : int;
  first_pause_ns : int;
  longest_pause_ns : int;
  after_crash : bool;
  state : [ `Refuse | `Begin_anew ];
  wait : bool;
  breaker : unit -> Breaker.t;
}

let default =
  {
    patience_ns = 30_000_000_000;
    first_pause_ns = 1_000_000;
    longest_pause_ns = 256_000_000;
    after_crash = false;
    state = `Refuse;
    wait = false;
    breaker = (fun () -> Breaker.make ());
  }

module type Settings = sig
  val settings : settings
end

module Default = struct
  let settings = default
end

module type S = sig
  include Backend.S

  val breaker : t -> Breaker.t
  val answered_by : t -> [ `Primary | `Fallback ]
  val reopened : t -> int
end

let after now ns = if ns > max_int - now then max_int else now + ns

let check { patience_ns; first_pause_ns; longest_pause_ns; _ } =
  let positive what ns = if ns < 0 then invalid_arg (Printf.sprintf "Sidecaml.Resilient: %s of %d ns" what ns) in
  positive "patience_ns" patience_ns;
  positive "first_pause_ns" first_pause_ns;
  positive "longest_pause_ns" longest_pause_ns

(* Another attempt to open may find a daemon. *)
let may_pass : Error.t -> bool = function
  | Server_gone | Timeout | Worker_crashed | Rejected { code = Connect | Shutting_down; _ } -> true
  | _ -> false

(* An open channel of the other backend, whichever that is. *)
type opened = Opened : (module Backend.S with type t = 'f) * 'f -> opened

let is_fixed (tensor : Model.tensor) = Array.for_all (function Model.Fixed _ -> true | Dynamic _ -> false) tensor.shape

(* --- Between two backends' channels of one model ------------------------------------------------------------------- *)

module Copy (From : Backend.S) (To : Backend.S) = struct
  let input from into (tensor : Model.tensor) =
    if not (is_fixed tensor) then To.set_dims into tensor.name (From.input_dims from tensor.name);
    match Dtype.of_name tensor.dtype with
    | Some (Any String) -> Strings.copy (From.input_strings from tensor.name) (To.input_strings into tensor.name)
    | Some (Any dtype) -> Bigarray.Genarray.blit (From.input from tensor.name dtype) (To.input into tensor.name dtype)
    | None -> ()

  let output from into (tensor : Model.tensor) =
    match Dtype.of_name tensor.dtype with
    | Some (Any String) -> Strings.copy (From.output_strings from tensor.name) (To.output_strings into tensor.name)
    | Some (Any dtype) -> Bigarray.Genarray.blit (From.output from tensor.name dtype) (To.output into tensor.name dtype)
    | None -> ()
end

module Build
    (P : Settings)
    (B : Backend.S) (C : sig
      val fallback : (module Backend.S) option
    end) =
struct
  let settings =
    check P.settings;
    P.settings

  type t = {
    primary : B.t;
    carries : bool; (* state *)
    breaker : Breaker.t;
    open_fallback : (module Backend.S) -> (opened, Error.t) result;
    mutable fallback : opened option;
    mutable fell_back : bool; (* in the last run that succeeded *)
    mutable reopened : int;
    mutable held : int; (* slots with a request or an answer *)
    mutable told : bool; (* that the channel was given up for what it did *)
  }

  (* --- Models and channels ----------------------------------------------------------------------------------------- *)

  let models = B.models
  let models_exn = B.models_exn
  let describe = B.describe
  let describe_exn = B.describe_exn
  let now_ns = B.now_ns

  let series ~until_ns =
    Backoff.start ~first_ns:settings.first_pause_ns ~longest_ns:settings.longest_pause_ns ~until_ns

  let rec open_primary attempt series =
    match attempt (Backoff.left_ns series) with
    | Error (Error.Rejected { code = Connect | Shutting_down; _ }) when Backoff.sleep series -> open_primary attempt series
    | outcome -> outcome

  let open_channel ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name =
    if not settings.wait then B.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name
    else
      let patience_ns = Option.value timeout_ns ~default:default.patience_ns in
      Arguments.timeout_ns patience_ns;
      let attempt timeout_ns = B.open_model ?socket ~timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name in
      open_primary attempt (series ~until_ns:(after (now_ns ()) patience_ns))

  let another_signature (model : Model.t) =
    let message = Printf.sprintf "model %S has another signature with the fallback: give both the same model" model.name in
    Error (Error.Rejected { code = Invalid; message })

  let checked_fallback (type f) (module F : Backend.S with type t = f) (model : Model.t) (f : f) =
    let found = F.model f in
    if found.inputs = model.inputs && found.outputs = model.outputs then Ok (Opened ((module F), f))
    else begin
      F.close f;
      another_signature model
    end

  let open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name =
    let made primary =
      let model = B.model primary in
      let open_fallback (module F : Backend.S) =
        Result.bind
          (F.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name)
          (checked_fallback (module F) model)
      in
      {
        primary;
        carries = model.carried <> [];
        breaker = settings.breaker ();
        open_fallback;
        fallback = None;
        fell_back = false;
        reopened = 0;
        held = 0;
        told = false;
      }
    in
    Result.map made (open_channel ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name)

  let close t =
    B.close t.primary;
    match t.fallback with None -> () | Some (Opened ((module F), f)) -> F.close f

  include Opening.Make (struct
    type nonrec t = t

    let open_model = open_model
    let close = close
  end)

  let is_open t = B.is_open t.primary
  let model t = B.model t.primary
  let slots t = B.slots t.primary
  let breaker t = t.breaker
  let answered_by t = if t.fell_back then `Fallback else `Primary
  let reopened t = t.reopened

  (* --- Tensors ----------------------------------------------------------------------------------------------------- *)

  (* With all arguments spelt out: a partial application would be allocated. *)

  let input0 ?slot t name dtype = B.input0 ?slot t.primary name dtype
  let input1 ?slot t name dtype = B.input1 ?slot t.primary name dtype
  let input2 ?slot t name dtype = B.input2 ?slot t.primary name dtype
  let input3 ?slot t name dtype = B.input3 ?slot t.primary name dtype
  let input ?slot t name dtype = B.input ?slot t.primary name dtype
  let input_strings ?slot t name = B.input_strings ?slot t.primary name
  let input_dims ?slot t name = B.input_dims ?slot t.primary name
  let set_dims ?slot t name dims = B.set_dims ?slot t.primary name dims

  let rec is_fixed_output name = function
    | [] -> true
    | (tensor : Model.tensor) :: rest -> if String.equal tensor.name name then is_fixed tensor else is_fixed_output name rest

  (* The fallback's channel, when the output is to be seen there. *)
  let elsewhere t name = if t.fell_back && not (is_fixed_output name (B.model t.primary).outputs) then t.fallback else None

  let output0 ?slot t name dtype =
    match elsewhere t name with
    | None -> B.output0 ?slot t.primary name dtype
    | Some (Opened ((module F), f)) -> F.output0 ?slot f name dtype

  let output1 ?slot t name dtype =
    match elsewhere t name with
    | None -> B.output1 ?slot t.primary name dtype
    | Some (Opened ((module F), f)) -> F.output1 ?slot f name dtype

  let output2 ?slot t name dtype =
    match elsewhere t name with
    | None -> B.output2 ?slot t.primary name dtype
    | Some (Opened ((module F), f)) -> F.output2 ?slot f name dtype

  let output3 ?slot t name dtype =
    match elsewhere t name with
    | None -> B.output3 ?slot t.primary name dtype
    | Some (Opened ((module F), f)) -> F.output3 ?slot f name dtype

  let output ?slot t name dtype =
    match elsewhere t name with
    | None -> B.output ?slot t.primary name dtype
    | Some (Opened ((module F), f)) -> F.output ?slot f name dtype

  let output_strings ?slot t name =
    match elsewhere t name with
    | None -> B.output_strings ?slot t.primary name
    | Some (Opened ((module F), f)) -> F.output_strings ?slot f name

  let output_dims ?slot t name =
    match elsewhere t name with
    | None -> B.output_dims ?slot t.primary name
    | Some (Opened ((module F), f)) -> F.output_dims ?slot f name

  (* --- Reopening --------------------------------------------------------------------------------------------------- *)

  let note_reopened t =
    t.reopened <- t.reopened + 1;
    t.held <- 0;
    t.told <- false

  let told t outcome =
    if Result.is_ok outcome then begin
      note_reopened t;
      t.fell_back <- false;
      Breaker.succeeded t.breaker
    end;
    outcome

  let reopen t = told t (B.reopen t.primary)
  let reopen_for t ~timeout_ns = told t (B.reopen_for t.primary ~timeout_ns)

  let may_begin_anew t = settings.state = `Begin_anew || not t.carries

  (* Until the channel is open, or the series is over: the last error then. *)
  let rec reopen_in t series error =
    if not (Backoff.sleep series) then Error error
    else
      match B.reopen_for t.primary ~timeout_ns:(Backoff.left_ns series) with
      | Ok () ->
          note_reopened t;
          Ok ()
      | Error e when may_pass e -> reopen_in t series e
      | Error _ as e -> e

  let patiently t series (error : Error.t) =
    if error = Server_gone then if may_begin_anew t then reopen_in t series error else Error error
    else if Backoff.sleep series then Ok ()
    else Error error

  let series_until deadline = series ~until_ns:(min deadline (after (now_ns ()) settings.patience_ns))

  (* --- Outcomes ---------------------------------------------------------------------------------------------------- *)

  (* [Failed] is one that says something about the daemon, which reconnecting could not change. *)
  type 'a outcome = Ended of ('a, Error.t) result | Failed of Error.t

  let is_failure : Error.t -> bool = function Server_gone -> true | Worker_crashed -> settings.after_crash | _ -> false

  let tell t = function
    | Failed e -> Breaker.failed t.breaker ~now_ns:(now_ns ()) e
    | Ended (Error Timeout) -> Breaker.withdrawn t.breaker ~now_ns:(now_ns ())
    | Ended _ -> Breaker.succeeded t.breaker

  (* For what may raise, as handlers of signals do. *)
  let withdrawing t call =
    match call () with
    | outcome -> outcome
    | exception exn ->
        let backtrace = Printexc.get_raw_backtrace () in
        Breaker.withdrawn t.breaker ~now_ns:(now_ns ());
        Printexc.raise_with_backtrace exn backtrace

  (* --- One call ---------------------------------------------------------------------------------------------------- *)

  (* How a request is run, until a deadline; max_int: none. *)
  type 'a how = {
    run_here : B.t -> int -> ('a, Error.t) result;
    run_there : 'f. (module Backend.S with type t = 'f) -> 'f -> int -> ('a, Error.t) result;
  }

  (* A channel that was given up because its requests crash workers is opened anew, but not for the sake of this request. *)
  let in_truth t (error : Error.t) : Error.t =
    if error = Server_gone && (not t.told) && B.gone_error t.primary = Some Worker_crashed then begin
      t.told <- true;
      Worker_crashed
    end
    else error

  let run_here t how deadline =
    match how.run_here t.primary deadline with Error e -> Error (in_truth t e) | Ok _ as ok -> ok

  let rec run_again t how deadline series error =
    match patiently t series error with
    | Error e -> Failed e
    | Ok () -> (
        match run_here t how deadline with
        | Error e when is_failure e -> run_again t how deadline series e
        | outcome -> Ended outcome)

  let after_error t how deadline error =
    if is_failure error then run_again t how deadline (series_until deadline) error else Ended (Error error)

  let opened_fallback t which =
    match t.fallback with
    | Some opened -> Ok opened
    | None ->
        let opened = t.open_fallback which in
        Result.iter (fun opened -> t.fallback <- Some opened) opened;
        opened

  let run_in_fallback t how deadline error (Opened ((module F), f)) =
    let module There = Copy (B) (F) in
    let module Back = Copy (F) (B) in
    let model = B.model t.primary in
    List.iter (There.input t.primary f) model.inputs;
    (* Asked again after they were copied. *)
    if not (B.is_intact t.primary) then Error error
    else begin
      if t.carries && not t.fell_back then F.reset f;
      let outcome = how.run_there (module F) f deadline in
      if Result.is_ok outcome then begin
        List.iter (fun tensor -> if is_fixed tensor then Back.output f t.primary tensor) model.outputs;
        t.fell_back <- true
      end;
      outcome
    end

  (* What has crashed workers would crash this process. *)
  let is_dangerous : Error.t -> bool = function
    | Worker_crashed | Circuit_open { last = Worker_crashed; _ } -> true
    | _ -> false

  let fall_back t how deadline error =
    match C.fallback with
    | Some which
      when may_begin_anew t && now_ns () < deadline && (not (is_dangerous error)) && B.is_intact t.primary ->
        Result.bind (opened_fallback t which) (run_in_fallback t how deadline error)
    | _ -> Error error

  let answered t = if t.fell_back then t.fell_back <- false

  let finish t how deadline outcome =
    tell t outcome;
    match outcome with
    | Failed e -> fall_back t how deadline e
    | Ended outcome ->
        if Result.is_ok outcome then answered t;
        outcome

  let try_here t how deadline =
    (* The fallback has had requests that this state knows nothing of. *)
    if t.carries && t.fell_back then B.reset t.primary;
    match run_here t how deadline with Ok _ as ok -> Ended ok | Error e -> after_error t how deadline e

  (* When something has failed before. *)
  let call t how deadline =
    match Breaker.admit t.breaker ~now_ns:(now_ns ()) with
    | Error refusal -> fall_back t how deadline refusal
    | Ok () -> finish t how deadline (withdrawing t (fun () -> try_here t how deadline))

  (* When nothing had. *)
  let recover t how deadline error = finish t how deadline (after_error t how deadline (in_truth t error))

  (* --- Calling ----------------------------------------------------------------------------------------------------- *)

  let no_deadline = max_int

  let plainly =
    let run_here channel deadline =
      if deadline = no_deadline then B.run channel else B.run_until channel ~deadline_ns:deadline
    in
    let run_there (type f) (module F : Backend.S with type t = f) (channel : f) deadline =
      if deadline = no_deadline then F.run channel else F.run_until channel ~deadline_ns:deadline
    in
    { run_here; run_there }

  let run t =
    if Breaker.is_calm t.breaker then (
      match B.run t.primary with
      | Ok () as ok ->
          answered t;
          ok
      | Error e -> recover t plainly no_deadline e)
    else call t plainly no_deadline

  let run_until t ~deadline_ns =
    if Breaker.is_calm t.breaker then (
      match B.run_until t.primary ~deadline_ns with
      | Ok () as ok ->
          answered t;
          ok
      | Error e -> recover t plainly deadline_ns e)
    else call t plainly deadline_ns

  let run_for t ~timeout_ns =
    (* Of what makes no sense the backend itself speaks. *)
    if timeout_ns < 0 then B.run_for t.primary ~timeout_ns else run_until t ~deadline_ns:(after (now_ns ()) timeout_ns)

  let run_exn t = Error.get_exn (run t)
  let run_for_exn t ~timeout_ns = Error.get_exn (run_for t ~timeout_ns)

  (* What fails may have grown before, and so moved. *)
  let growing ~failed_before =
    let may_have_moved = ref failed_before in
    let run_here channel _ =
      match B.run_growing channel with
      | Error _ as e ->
          may_have_moved := true;
          e
      | Ok _ when !may_have_moved -> Ok `Grown
      | Ok _ as ok -> ok
    in
    let run_there (type f) (module F : Backend.S with type t = f) (channel : f) _ =
      match F.run_growing channel with Ok _ when !may_have_moved -> Ok `Grown | outcome -> outcome
    in
    { run_here; run_there }

  let run_growing t =
    if Breaker.is_calm t.breaker then (
      match B.run_growing t.primary with
      | Ok _ as ok ->
          answered t;
          ok
      | Error e -> recover t (growing ~failed_before:true) no_deadline e)
    else call t (growing ~failed_before:false) no_deadline

  let is_busy t = B.is_busy t.primary
  let is_quiet t = B.is_quiet t.primary

  (* --- Several requests at once ------------------------------------------------------------------------------------ *)

  let reopen_at_once t error =
    let reopened =
      match patiently t (series_until no_deadline) error with
      | Ok () -> Ended (Ok ())
      | Error e -> Failed e
    in
    tell t reopened;
    match reopened with Failed e -> Error e | Ended outcome -> outcome

  let claim_again t error =
    match Breaker.admit t.breaker ~now_ns:(now_ns ()) with
    | Error _ as refusal -> refusal
    | Ok () -> withdrawing t (fun () -> reopen_at_once t error)

  (* What a claim found, or else [again] on the channel that was opened anew. *)
  let claimed t again = function
    | Error Error.Server_gone when t.held = 0 -> (
        match in_truth t Server_gone with
        | Server_gone -> Result.bind (claim_again t Server_gone) again
        | e -> Error e)
    | outcome -> outcome

  let claim t =
    match B.claim t.primary with
    | Error Server_gone as gone -> claimed t (fun () -> B.claim t.primary) gone
    | outcome -> outcome

  let claim_wait t =
    match B.claim_wait t.primary with
    | Error Server_gone as gone -> claimed t (fun () -> B.claim_wait t.primary) gone
    | outcome -> outcome

  let claim_wait_for t ~timeout_ns =
    match B.claim_wait_for t.primary ~timeout_ns with
    | Error Server_gone as gone -> claimed t (fun () -> B.claim_wait_for t.primary ~timeout_ns) gone
    | outcome -> outcome

  let submitted t outcome =
    if Result.is_ok outcome then t.held <- t.held + 1;
    outcome

  let ended t outcome =
    if Result.is_error outcome then t.held <- t.held - 1;
    outcome

  let submit t slot = submitted t (B.submit t.primary slot)
  let submit_for t slot ~timeout_ns = submitted t (B.submit_for t.primary slot ~timeout_ns)
  let await t slot = ended t (B.await t.primary slot)
  let await_for t slot ~timeout_ns = ended t (B.await_for t.primary slot ~timeout_ns)
  let await_any t = B.await_any t.primary
  let await_any_for t ~timeout_ns = B.await_any_for t.primary ~timeout_ns
  let poll t slot = ended t (B.poll t.primary slot)

  let release t slot =
    B.release t.primary slot;
    t.held <- t.held - 1

  let abandon t slot =
    B.abandon t.primary slot;
    t.held <- t.held - 1

  let claim_exn t = Error.get_exn (claim t)
  let claim_wait_exn t = Error.get_exn (claim_wait t)
  let claim_wait_for_exn t ~timeout_ns = Error.get_exn (claim_wait_for t ~timeout_ns)
  let await_any_exn t = Error.get_exn (await_any t)
  let await_any_for_exn t ~timeout_ns = Error.get_exn (await_any_for t ~timeout_ns)
  let submit_exn t slot = Error.get_exn (submit t slot)
  let submit_for_exn t slot ~timeout_ns = Error.get_exn (submit_for t slot ~timeout_ns)
  let await_exn t slot = Error.get_exn (await t slot)
  let await_for_exn t slot ~timeout_ns = Error.get_exn (await_for t slot ~timeout_ns)

  (* --- Requests of a sequence -------------------------------------------------------------------------------------- *)

  (* What is left of a sequence, to go on with when the channel was opened anew. *)
  type 'a rest = { mutable items : 'a Seq.t; mutable is_over : bool }

  let rec following rest () =
    match rest.items () with
    | Seq.Nil ->
        rest.is_over <- true;
        Seq.Nil
    | Seq.Cons (item, items) ->
        rest.items <- items;
        Seq.Cons (item, following rest)

  (* Whether the requests can go on after they were stopped by this error. *)
  let may_go_on t rest error =
    (not rest.is_over) && t.held = 0 && in_truth t error = Error.Server_gone && Result.is_ok (claim_again t error)

  let iter ?window ?burst ?timeout_ns t ~fill ~answer items =
    let rest = { items; is_over = false } in
    let rec go_on () =
      match B.iter ?window ?burst ?timeout_ns t.primary ~fill ~answer (following rest) with
      | Error (Server_gone as error) when may_go_on t rest error -> go_on ()
      | outcome -> outcome
    in
    go_on ()

  let map ?window ?burst ?timeout_ns t ~fill ~read items =
    let rest = { items; is_over = false } in
    let the_rest () = B.map ?window ?burst ?timeout_ns t.primary ~fill ~read (following rest) in
    (* The error that ends the results before the sequence is over is told only when nothing can be done about it. *)
    let rec from results () =
      match results () with
      | Seq.Nil -> Seq.Nil
      | Seq.Cons ((Error (Error.Server_gone as error) as result), results) -> (
          match results () with
          | Seq.Nil when may_go_on t rest error -> Seq.Cons (result, from (the_rest ()))
          | node -> Seq.Cons (result, from (fun () -> node)))
      | Seq.Cons (result, results) -> Seq.Cons (result, from results)
    in
    from (the_rest ())

  (* --- Beside them ------------------------------------------------------------------------------------------------- *)

  let reset t =
    B.reset t.primary;
    match t.fallback with None -> () | Some (Opened ((module F), f)) -> F.reset f

  let set_stamps t wanted = B.set_stamps t.primary wanted
  let stamps ?slot t = B.stamps ?slot t.primary
  let gone t = B.gone t.primary
  let gone_error t = B.gone_error t.primary
  let is_intact t = B.is_intact t.primary
end

module Make (P : Settings) (B : Backend.S) =
  Build (P) (B)
    (struct
      let fallback = None
    end)

module With_fallback (P : Settings) (B : Backend.S) (F : Backend.S) =
  Build (P) (B)
    (struct
      let fallback = Some (module F : Backend.S)
    end)
