module Tensor = struct
  type t = {
    view : View.t;
    signature : Model.tensor;
    (* Of each slot. *)
    dims : int array array;
    known : bool array;
    state : Model.carried option; (* what it is a part of *)
  }

  let signature t = t.signature
  let is_output t = View.is_output t.view
  let is_dynamic t = View.is_dynamic t.view
  let max_dims t = View.max_dims t.view
  let dims t ~slot = t.dims.(slot)
  let is_known t ~slot = t.known.(slot)

  let fits_axis t axis size =
    match t.signature.shape.(axis) with
    | Model.Fixed fixed -> size = fixed
    | Dynamic _ -> size >= 0 && size <= (max_dims t).(axis)

  let rec fits_from t dims axis =
    axis = Array.length dims || (fits_axis t axis dims.(axis) && fits_from t dims (axis + 1))

  let fits t dims = Array.length dims = Array.length (max_dims t) && fits_from t dims 0

  let set_dims t ~slot dims =
    if not (fits t dims) then
      invalid_arg
        (Printf.sprintf "Sidecaml: %s cannot be [%s]" (View.to_string t.view)
           (String.concat "," (List.map string_of_int (Array.to_list dims))));
    Array.blit dims 0 t.dims.(slot) 0 (Array.length dims)

  type any = View.any = Array : ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> any

  let array t ~slot = View.array t.view ~slot ~dims:t.dims.(slot)
  let text_bytes t = View.text_bytes t.view
  let strings t ~slot = View.strings t.view ~slot ~dims:t.dims.(slot)

  let make ~slots ~is_output (signature : Model.tensor) dtype max_dims text_bytes =
    let view = View.allocate ~slots ~is_output signature dtype ~max_dims ~text_bytes in
    { view; signature; dims = Array.init slots (fun _ -> Array.copy max_dims); known = Array.make slots true; state = None }

  (* The same tensor where a slot is several of the engine's, one for each way that state may lie: those have its memory and
     its dims. *)
  let in_ways t ~ways =
    let slots = ways * Array.length t.dims in
    let slot_of = Array.init slots (fun i -> i / ways) in
    {
      t with
      view = View.remap t.view ~is_output:(is_output t) t.signature slot_of;
      dims = Array.map (fun slot -> t.dims.(slot)) slot_of;
      known = Array.make slots true;
    }

  (* Reads or writes one of the two places of [state], whose dims are those of the request that runs. *)
  let over_state kept carried ~is_output (signature : Model.tensor) places =
    {
      view = View.remap kept.view ~is_output signature places;
      signature;
      dims = Array.map (fun _ -> kept.dims.(0)) places;
      known = Array.make (Array.length places) true;
      state = Some carried;
    }

  let dims_text dims = Printf.sprintf "[%s]" (String.concat "," (List.map string_of_int (Array.to_list dims)))

  let refusal t ~slot dims =
    match t.state with
    | Some carried when dims <> t.dims.(slot) ->
        let message =
          Printf.sprintf
            "output %s came out as %s and input %s, whose state it is, went in as %s: state must keep its size"
            (Nearest.quoted carried.output) (dims_text dims) (Nearest.quoted carried.input.name)
            (dims_text t.dims.(slot))
        in
        Some (Error.Rejected { code = Engine; message })
    | _ -> None
end

type carried = Carried.t

module type Engine = sig
  val models : unit -> (Model.t list, Error.t) result
  val describe : string -> (Model.t, Error.t) result

  type t

  val open_model : lock:Backend.lock -> string -> (t * carried, Error.t) result
  val attach : t -> slots:int -> Tensor.t array -> (unit, Error.t) result
  val run : t -> slot:int -> deadline_ns:int -> bool
  val failure : t -> slot:int -> Error.t
  val close : t -> unit
end

(* --- For engines --------------------------------------------------------------------------------------------------- *)

(* Not the daemon's, which is a SHA-256: only equality counts. *)
let fingerprint inputs outputs =
  let text tensors = String.concat "\n" (List.map Model.tensor_to_string tensors) in
  String.get_int64_le (Digest.string (text inputs ^ "\n\n" ^ text outputs)) 0

let model ?(max_slots = Abi.max_slots) name ~engine ~inputs ~outputs : Model.t =
  { name; engine; state = Ready; fingerprint = fingerprint inputs outputs; max_slots; inputs; outputs; carried = []; batching = None }

let failed_model name ~engine problem : Model.t =
  {
    name;
    engine;
    state = Failed problem;
    fingerprint = 0L;
    max_slots = Abi.max_slots;
    inputs = [];
    outputs = [];
    carried = [];
    batching = None;
  }

let carry ~state model =
  let carried = Carried.carry model state in
  (* Only what is seen takes part, as with the daemon. *)
  let seen (carried : Carried.t) =
    { carried with visible = { carried.visible with fingerprint = fingerprint carried.visible.inputs carried.visible.outputs } }
  in
  Result.map seen carried

let visible (model : Carried.t) = model.visible

let not_loaded name problem =
  let message = Printf.sprintf "model %s could not be loaded: %s" (Nearest.quoted name) problem in
  Error.Rejected { code = Model_failed; message }

module Names = struct
  module Map = Map.Make (String)

  type 'a t = 'a Map.t Atomic.t

  let create () = Atomic.make Map.empty

  let rec change t how =
    let before = Atomic.get t in
    if not (Atomic.compare_and_set t before (how before)) then change t how

  let add t name what = change t (Map.add name what)
  let remove t name = change t (Map.remove name)
  let all t = Map.bindings (Atomic.get t)

  let find t name =
    match Map.find_opt name (Atomic.get t) with
    | Some found -> Ok found
    | None ->
        let sentence = Nearest.sentence name (List.map fst (all t)) in
        let message = Printf.sprintf "no model is called %s: %s" (Nearest.quoted name) sentence in
        Error (Error.Rejected { code = Unknown_model; message })
end

let ( let* ) = Result.bind

(* What the dimensions of a request's inputs make of its outputs. *)
module Shapes = struct
  type t = {
    signature : Core.signature;
    inputs : int;
    is_fixed : bool; (* nothing ever changes *)
    rows : int array array array; (* of each slot and tensor: the dims of the request *)
    known : bool array; (* of each tensor *)
    stale : bool array; (* of each slot: its inputs' dims were set since the last look *)
    failures : Error.t option array;
    ways : int; (* slots of the engine for each of the channel's *)
  }

  let described (tensor : Tensor.t) =
    let size = function Model.Fixed size -> size | Dynamic _ -> -1 in
    let name = function Model.Fixed _ -> "" | Dynamic name -> name in
    let shape = tensor.signature.shape in
    (tensor.signature.name, Array.map size shape, Array.map name shape)

  (* The size of an output that is state follows from its input's, whatever its names tell. *)
  let row slot (tensor : Tensor.t) =
    let dims = tensor.dims.(slot) in
    if Option.is_some tensor.state && Tensor.is_output tensor then Array.copy dims else dims

  let make ~slots ~ways tensors =
    {
      ways;
      signature = Array.map described tensors;
      inputs = List.length (List.filter (fun tensor -> not (Tensor.is_output tensor)) (Array.to_list tensors));
      is_fixed = not (List.exists Tensor.is_dynamic (Array.to_list tensors));
      rows = Array.init slots (fun slot -> Array.map (row (slot * ways)) tensors);
      known = Array.make (Array.length tensors) true;
      stale = Array.make slots true;
      failures = Array.make slots None;
    }

  let look t tensors slot =
    (match Core.request_dims t.inputs t.signature t.rows.(slot) t.known with
    | None -> t.failures.(slot) <- None
    | Some message -> t.failures.(slot) <- Some (Rejected { code = Bad_dims; message }));
    for i = 0 to Array.length tensors - 1 do
      let tensor : Tensor.t = tensors.(i) in
      if Option.is_none tensor.state then Array.fill tensor.known (slot * t.ways) t.ways t.known.(i)
    done;
    t.stale.(slot) <- false

  (* None when the request's dims are as they must be. *)
  let failure t tensors slot =
    if t.is_fixed then None
    else begin
      if t.stale.(slot) then look t tensors slot;
      t.failures.(slot)
    end
end

(* What goes from a channel's request to the next one, in two places: one is read while the other is written, and they
   change their parts after a run that succeeded. *)
module State = struct
  type size = Always of int | Of_input of Tensor.t * int (* axis *)

  type t = {
    carried : Model.carried array;
    kept : Tensor.t array; (* of each pair, both places *)
    sizes : size array array;
    had : int array array; (* dims of what is in the place to read *)
    mutable is_zero : bool; (* which may have any dims *)
    mutable place : int; (* to read *)
    mutable resets : bool;
  }

  let size_of inputs dims = function
    | Model.Fixed size -> Always size
    | Dynamic name ->
        let find found (input : Tensor.t) =
          let axes = List.init (Array.length input.signature.shape) Fun.id in
          let has axis = input.signature.shape.(axis) = Model.Dynamic name in
          List.fold_left (fun found axis -> if has axis then Of_input (input, axis) else found) found axes
        in
        List.fold_left find (Always (List.assoc name dims)) inputs

  let keep dims (carried : Model.carried) =
    let max_dims = Array.map (Maxima.maximum dims) carried.input.shape in
    let text = Maxima.text_bytes carried.input max_dims None in
    Tensor.make ~slots:2 ~is_output:false carried.input (Option.get (Dtype.of_name carried.input.dtype)) max_dims text

  let make (model : Carried.t) ~inputs ~dims =
    let carried = Array.of_list model.visible.carried in
    let kept = Array.map (keep dims) carried in
    {
      carried;
      kept;
      sizes = Array.map (fun (pair : Model.carried) -> Array.map (size_of inputs dims) pair.input.shape) carried;
      had = Array.map (fun tensor -> Array.copy (Tensor.max_dims tensor)) kept;
      is_zero = true;
      place = 0;
      resets = false;
    }

  let places = Maxima.places_of_state

  (* The tensor of that number, when it is a part of the state: the engine's slot for each way round has it elsewhere. *)
  let part t (model : Carried.t) ~slots number signature =
    let tensor pair ~is_output =
      let place slot = if is_output then 1 - (slot mod places) else slot mod places in
      Tensor.over_state t.kept.(pair) t.carried.(pair) ~is_output signature (Array.init (places * slots) place)
    in
    let rec find pair =
      if pair = Array.length model.pairs then None
      else
        let input, output = model.pairs.(pair) in
        if number = input then Some (tensor pair ~is_output:false)
        else if number = output then Some (tensor pair ~is_output:true)
        else find (pair + 1)
    in
    find 0

  let clear t = Array.iter (fun (tensor : Tensor.t) -> View.clear tensor.view) t.kept

  let start t =
    if t.resets then begin
      clear t;
      t.is_zero <- true;
      t.resets <- false
    end

  let size ~slot = function Always size -> size | Of_input (input, axis) -> input.Tensor.dims.(slot).(axis)

  (* Gives the state the dims that the slot's request makes of it; whether it has them, or can get them. *)
  let fit t ~slot =
    let fits = ref true in
    for pair = 0 to Array.length t.kept - 1 do
      let dims = t.kept.(pair).dims.(0) in
      for axis = 0 to Array.length dims - 1 do
        dims.(axis) <- size ~slot t.sizes.(pair).(axis);
        if (not t.is_zero) && dims.(axis) <> t.had.(pair).(axis) then fits := false
      done
    done;
    !fits

  let advance t =
    for pair = 0 to Array.length t.kept - 1 do
      let dims = t.kept.(pair).dims.(0) in
      Array.blit dims 0 t.had.(pair) 0 (Array.length dims)
    done;
    t.is_zero <- false;
    t.place <- 1 - t.place

  let other_dims t =
    let rec first pair = if t.kept.(pair).dims.(0) <> t.had.(pair) then pair else first (pair + 1) in
    let pair = first 0 in
    let message =
      Printf.sprintf "the state of input %s is %s and this request's dims make it %s: reset the channel before its dims change"
        (Nearest.quoted t.carried.(pair).input.name)
        (Tensor.dims_text t.had.(pair))
        (Tensor.dims_text t.kept.(pair).dims.(0))
    in
    Some (Error.Rejected { code = Bad_dims; message })
end

(* Places of the stamps. *)
let submitted = 0
let seen = 1
let started = 2
let finished = 3

(* The ring of tickets without a second process: slots are used in turn, and hold an answer from submit to release. *)
module Requests (E : Engine) = struct
  type state = Free | Answered | Failed

  type t = {
    engine : E.t;
    model : Carried.t;
    tensors : Tensor.t array;
    state : State.t option;
    whole : Tensor.t array; (* as the engine sees them: with the state, and two of its slots for each when there is one *)
    shapes : Shapes.t;
    refused : Error.t option array; (* of each slot, before its last request ran *)
    ran : int array; (* of each slot, the engine's where its last request ran *)
    slots : int;
    states : state array;
    told : bool array; (* of each slot: how its request ended *)
    mutable next : int;
    mutable is_open : bool;
    mutable takes_stamps : bool;
    stamps : int array array; (* of each slot: submitted, seen, started, finished *)
    taken : bool Atomic.t; (* some thread is in a call *)
    attached : Tensor.t array ref; (* what the engine has: [whole], or that of another channel with the same engine *)
  }

  (* --- Open and close ---------------------------------------------------------------------------------------------- *)

  let models ~socket:_ ~timeout_ns:_ = E.models ()
  let describe ~socket:_ ~timeout_ns:_ name = E.describe name

  let unsupported (tensor : Model.tensor) =
    let message = Printf.sprintf "tensor %s has an element type that no Bigarray carries: %s" (Nearest.quoted tensor.name) tensor.dtype in
    Error (Error.Rejected { code = Unsupported; message })

  let rec make_tensors ~slots ~text_bytes made = function
    | [] -> Ok (Array.of_list (List.rev made))
    | (is_output, (signature : Model.tensor), max_dims) :: rest -> (
        match Dtype.of_name signature.dtype with
        | None -> unsupported signature
        | Some dtype ->
            let text = Maxima.text_bytes signature max_dims text_bytes in
            make_tensors ~slots ~text_bytes (Tensor.make ~slots ~is_output signature dtype max_dims text :: made) rest)

  (* The engine's tensors, of those that programs see and the state. *)
  let with_state (model : Carried.t) ~slots ~dims tensors =
    let inputs = List.filter (fun tensor -> not (Tensor.is_output tensor)) (Array.to_list tensors) in
    let state = State.make model ~inputs ~dims in
    let seen = ref (Array.to_list tensors) in
    let next () =
      let tensor = List.hd !seen in
      seen := List.tl !seen;
      Tensor.in_ways tensor ~ways:State.places
    in
    let tensor number signature =
      match State.part state model ~slots number signature with Some tensor -> tensor | None -> next ()
    in
    (Some state, Array.mapi tensor (Array.of_list (model.whole.inputs @ model.whole.outputs)))

  let tensors_of (carried : Carried.t) ~slots ~dims ~text_bytes =
    let model = carried.visible in
    let* max_dims = Maxima.bind model dims in
    let* bytes = Maxima.bytes ~slots ~dims ~text_bytes model max_dims in
    let inputs = List.map (fun tensor -> (false, tensor)) model.inputs in
    let outputs = List.map (fun tensor -> (true, tensor)) model.outputs in
    let described = List.map2 (fun (is_output, tensor) dims -> (is_output, tensor, dims)) (inputs @ outputs) max_dims in
    try
      let* tensors = make_tensors ~slots ~text_bytes [] described in
      let state, whole = if model.carried = [] then (None, tensors) else with_state carried ~slots ~dims tensors in
      Ok (tensors, state, whole)
    with Out_of_memory ->
      let message = Printf.sprintf "model %s needs %d bytes for its tensors, which the machine has not" (Nearest.quoted model.name) bytes in
      Error (Error.Rejected { code = No_memory; message })

  let make engine attached (model : Carried.t) ~slots ~dims ~text_bytes =
    let* tensors, state, whole = tensors_of model ~slots ~dims ~text_bytes in
    let ways = if Option.is_none state then 1 else State.places in
    let requests =
      {
        engine;
        model;
        tensors;
        state;
        whole;
        shapes = Shapes.make ~slots ~ways whole;
        refused = Array.make slots None;
        ran = Array.make slots 0;
        slots;
        states = Array.make slots Free;
        told = Array.make slots false;
        next = 0;
        is_open = true;
        takes_stamps = false;
        stamps = Array.init slots (fun _ -> Array.make 4 0);
        taken = Atomic.make false;
        attached;
      }
    in
    let views = Array.map (fun (t : Tensor.t) -> t.view) tensors in
    Ok ({ requests; model = model.visible; views; slots } : t Transport.opened)

  (* A signal's handler may raise here, or anywhere between a switch and the first run after it: whichever channel goes on,
     its next run attaches what it needs. *)
  let attach t =
    if !(t.attached) == t.whole then Ok ()
    else begin
      t.attached := [||];
      let result = E.attach t.engine ~slots:(t.shapes.ways * t.slots) t.whole in
      if Result.is_ok result then t.attached := t.whole;
      result
    end

  let too_many (model : Model.t) slots =
    let message =
      Printf.sprintf "model %s allows %d slots a channel and %d were asked for: ask for fewer, or raise its max_slots"
        (Nearest.quoted model.name) model.max_slots slots
    in
    Error (Error.Rejected { code = Too_many_slots; message })

  let open_model ~socket:_ ~timeout_ns:_ ~slots ~dims ~text_bytes ~policy:_ ~lock ~priority:_ name =
    let* engine, model = E.open_model ~lock name in
    let opened =
      if slots > model.visible.max_slots then too_many model.visible slots
      else
        let* opened = make engine (ref [||]) model ~slots ~dims ~text_bytes in
        Result.map (fun () -> opened) (attach opened.requests)
    in
    if Result.is_error opened then E.close engine;
    opened

  (* --- One call at a time ------------------------------------------------------------------------------------------ *)

  let leave_and_raise t exn =
    let backtrace = Printexc.get_raw_backtrace () in
    Atomic.set t.taken false;
    Printexc.raise_with_backtrace exn backtrace

  (* [step t slot number dims], unless another thread is in a call or the channel is closed. A signal's handler may raise
     wherever OCaml code allocates, loops, or calls a function that ends in a call: the channel is left all the same. Steps
     are no closures: those would be allocated. *)
  let guarded t step slot number dims =
    if Atomic.exchange t.taken true then Transport.taken
    else
      match if t.is_open then step t slot number dims else Transport.closed with
      | result ->
          Atomic.set t.taken false;
          result
      | exception exn -> leave_and_raise t exn

  let no_dims = [||]

  let give_memory_back t =
    t.is_open <- false;
    Array.iter (fun (tensor : Tensor.t) -> View.clear tensor.view) t.tensors;
    Option.iter State.clear t.state

  let close_now t _ _ _ =
    E.close t.engine;
    give_memory_back t;
    0

  (* The successor has the same engine, which goes on with the tensors of [t] until it is switched. *)
  let grow t ~dims ~text_bytes = make t.engine t.attached t.model ~slots:t.slots ~dims ~text_bytes

  let switch t ~by =
    let attached = ref (Ok ()) in
    let attach_now _ _ _ _ =
      attached := attach by;
      0
    in
    let code = guarded t attach_now 0 0 no_dims in
    match !attached with Error e -> Error e | Ok () -> if code = 0 then Ok 0 else Ok code

  let begin_anew_now t _ _ _ =
    Array.fill t.states 0 t.slots Free;
    t.next <- 0;
    (match t.state with Some state -> state.State.resets <- true | None -> ());
    0

  let begin_anew t = guarded t begin_anew_now 0 0 no_dims

  (* There is nothing here that could have gone. *)
  let reopen _ ~slots:_ ~dims:_ ~text_bytes:_ ~timeout_ns:_ = Error Error.Server_gone
  let show _ _ = -Abi.error_server_gone
  let drop = give_memory_back

  let close t =
    let result = guarded t close_now 0 0 no_dims in
    if result = Transport.closed then 0 else result

  let is_open t = t.is_open

  (* --- Running ----------------------------------------------------------------------------------------------------- *)

  let stamp t slot stage = t.stamps.(slot).(stage) <- (if t.takes_stamps then Core.now_ns () else 0)

  let refusal t slot =
    match (attach t, t.state) with
    | Error error, _ -> Some error
    | _, Some state when not (State.fit state ~slot) -> State.other_dims state
    | _ -> Shapes.failure t.shapes t.whole slot

  let engine_slot t slot =
    match t.state with Some state -> (State.places * slot) + state.State.place | None -> slot

  let runs t slot deadline =
    (match t.state with Some state -> State.start state | None -> ());
    t.refused.(slot) <- refusal t slot;
    let place = engine_slot t slot in
    t.ran.(slot) <- place;
    let succeeded = t.refused.(slot) = None && E.run t.engine ~slot:place ~deadline_ns:deadline in
    (match t.state with Some state when succeeded -> State.advance state | _ -> ());
    succeeded

  let run_slot t slot deadline =
    stamp t slot submitted;
    stamp t slot seen;
    t.states.(slot) <- Free;
    stamp t slot started;
    let succeeded = runs t slot deadline in
    t.told.(slot) <- false;
    stamp t slot finished;
    t.states.(slot) <- (if succeeded then Answered else Failed)

  let after t slot = if slot + 1 = t.slots then 0 else slot + 1

  let run_in_turn t deadline =
    let slot = t.next in
    if t.states.(slot) <> Free then -Abi.error_full
    else begin
      run_slot t slot deadline;
      t.next <- after t slot;
      slot
    end

  (* A failure is told once, and leaves the slot free. *)
  let outcome t slot =
    t.told.(slot) <- true;
    match t.states.(slot) with
    | Answered -> 0
    | Free -> -Abi.error_invalid
    | Failed ->
        t.states.(slot) <- Free;
        Transport.failed

  let failure t slot _result =
    match t.refused.(slot) with Some error -> error | None -> E.failure t.engine ~slot:t.ran.(slot)

  (* Failures are told whole. *)
  let needed _ _ _ _ = -Abi.error_invalid
  let text_needed _ _ = 0

  let run_now t slot deadline _ =
    t.states.(slot) <- Free;
    let result = run_in_turn t deadline in
    if result = slot then outcome t slot else result

  let submit_now t _ deadline _ = run_in_turn t deadline
  let claim_now t _ _ _ = if t.states.(t.next) = Free then t.next else -Abi.error_full
  let await_now t slot _ _ = outcome t slot

  (* From the oldest on: the slot whose turn comes next was used longest ago. *)
  let rec untold t slot left =
    if left = 0 then -Abi.error_invalid
    else if t.states.(slot) <> Free && not t.told.(slot) then begin
      t.told.(slot) <- true;
      slot
    end
    else untold t (after t slot) (left - 1)

  let await_any_now t _ _ _ = untold t t.next t.slots

  let rec count t slot most wanted = if most > 0 && t.states.(slot) = wanted then 1 + count t (after t slot) (most - 1) wanted else 0

  let claim_run_now t most _ _ =
    let free = count t t.next (min most t.slots) Free in
    if free = 0 then -Abi.error_full else free

  (* The first one's slot, and no request beyond those that may be run. *)
  let rec submit_run_now t wanted deadline _ =
    let slot = run_in_turn t deadline in
    if slot >= 0 && wanted > 1 then ignore (submit_run_now t (wanted - 1) deadline no_dims);
    slot

  let rec answered_now t slot most _ =
    if most > 0 && t.states.(slot) = Answered then begin
      t.told.(slot) <- true;
      let next = after t slot in
      (* After the newest comes the oldest. *)
      if next = t.next then 1 else 1 + answered_now t next (most - 1) no_dims
    end
    else 0

  let release_now t slot _ _ =
    if t.states.(slot) <> Answered then -Abi.error_invalid
    else begin
      t.states.(slot) <- Free;
      0
    end

  let rec release_run_now t slot left _ =
    if left = 0 then 0
    else
      let result = release_now t slot 0 no_dims in
      if result < 0 then result else release_run_now t (after t slot) (left - 1) no_dims

  let abandon_now t slot _ _ =
    if t.states.(slot) = Free then -Abi.error_invalid
    else begin
      t.states.(slot) <- Free;
      0
    end

  let run t deadline = guarded t run_now 0 deadline no_dims
  let submit t deadline = guarded t submit_now 0 deadline no_dims
  let claim t = guarded t claim_now 0 0 no_dims
  let await t slot deadline = guarded t await_now slot deadline no_dims
  let await_any t deadline = guarded t await_any_now 0 deadline no_dims
  let claim_wait t _ = claim t
  let await_end _ _ _ = ()
  let claim_run t most = guarded t claim_run_now most 0 no_dims
  let submit_run t wanted deadline = guarded t submit_run_now wanted deadline no_dims
  let ended _ _ most = most
  let answered t slot most = guarded t answered_now slot (min most t.slots) no_dims
  let release_run t slot left = guarded t release_run_now slot left no_dims
  let poll = await
  let release t slot = guarded t release_now slot 0 no_dims
  let abandon t slot = guarded t abandon_now slot 0 no_dims

  (* --- Beside them ------------------------------------------------------------------------------------------------- *)

  let set_now t slot tensor dims =
    let tensor = t.tensors.(tensor) in
    if not (Tensor.fits tensor dims) then -Abi.error_bad_dims
    else begin
      Tensor.set_dims tensor ~slot dims;
      t.shapes.stale.(slot) <- true;
      0
    end

  let set_dims t slot tensor dims = guarded t set_now slot tensor dims

  (* Also from within a run: an engine may be OCaml code that looks its tensors up by name. *)
  let get_dims t slot tensor dims =
    if not t.is_open then Transport.closed
    else begin
      let current = Tensor.dims t.tensors.(tensor) ~slot in
      Array.blit current 0 dims 0 (Array.length current);
      Array.length current
    end

  let reset_now t _ _ _ =
    (match t.state with Some state -> state.State.resets <- true | None -> ());
    0

  let reset t = guarded t reset_now 0 0 no_dims

  let set_stamps t wanted =
    if t.is_open then begin
      t.takes_stamps <- wanted;
      0
    end
    else Transport.closed

  let stamps t slot four =
    if t.is_open then begin
      Array.blit t.stamps.(slot) 0 four 0 4;
      0
    end
    else Transport.closed

  let gone _ = None
  let gone_error _ = None
  let is_intact t = t.is_open
end

module Make (E : Engine) = struct
  module Requests = Requests (E)
  include Channel.Make (Requests)

  let engine t = t.requests.Requests.engine

  let inside t =
    match t.requests.Requests.state with
    | None -> t
    | Some _ ->
        let requests = { t.requests with Requests.tensors = t.requests.Requests.whole } in
        let views = Array.map (fun (tensor : Tensor.t) -> tensor.view) requests.tensors in
        of_opened ~dims:t.dims ~text_bytes:t.text_bytes { requests; model = t.model; views; slots = State.places * t.slots }
end
