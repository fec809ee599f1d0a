(* What programs see of a channel, over any transport: names, views, dimensions, errors and misuse. *)

open Bigarray

let default_timeout_ns = 30_000_000_000

module Make (T : Transport.S) = struct
  type t = {
    (* Another with more room takes their place when the channel grows. *)
    mutable requests : T.t;
    mutable views : View.t array;
    mutable dims : (string * int) list; (* the largest *)
    mutable text_bytes : int option;
    model : Model.t;
    slots : int;
    lookups : int array array; (* of each tensor: the dims that a lookup reads *)
    mutable takes_stamps : bool;
    claim_results : (int, Error.t) result array; (* made beforehand, so that claim does not allocate *)
    deadlines : int array; (* of the request in each slot; 0 for none *)
    mutable claimed : int; (* the slot that is being filled; -1 for none *)
    mutable corrupt : bool;
  }

  (* --- Models ------------------------------------------------------------------------------------------------------ *)

  let models ?socket ?(timeout_ns = default_timeout_ns) () =
    Arguments.timeout_ns timeout_ns;
    T.models ~socket ~timeout_ns

  let describe ?socket ?(timeout_ns = default_timeout_ns) name =
    Arguments.timeout_ns timeout_ns;
    Arguments.text "model name" name;
    T.describe ~socket ~timeout_ns name

  let models_exn ?socket ?timeout_ns () = Error.get_exn (models ?socket ?timeout_ns ())
  let describe_exn ?socket ?timeout_ns name = Error.get_exn (describe ?socket ?timeout_ns name)

  (* --- Misuse ------------------------------------------------------------------------------------------------------ *)

  let misuse t call format =
    Printf.ksprintf (fun text -> invalid_arg (Printf.sprintf "Sidecaml.%s: model %S: %s" call t.model.name text)) format

  let closed = "the channel is closed"
  let taken = "another thread is in a call on this channel, which belongs to one thread at a time: open one for each"

  (* A stub refused: because of the channel's condition, or else for the reason given. *)
  let refuse t call code otherwise =
    misuse t call "%s" (if code = Transport.closed then closed else if code = Transport.taken then taken else otherwise)

  let check_slot t call slot =
    if slot < 0 || slot >= t.slots then misuse t call "there is no slot %d: the channel has %d" slot t.slots

  (* --- Open and close ---------------------------------------------------------------------------------------------- *)

  let of_opened ~dims ~text_bytes ({ requests; model; views; slots } : T.t Transport.opened) =
    {
      requests;
      views;
      dims;
      text_bytes;
      model;
      slots;
      lookups = Array.map (fun view -> Array.copy (View.max_dims view)) views;
      takes_stamps = false;
      claim_results = Array.init slots Result.ok;
      deadlines = Array.make slots 0;
      claimed = -1;
      corrupt = false;
    }

  let open_model ?socket ?(timeout_ns = default_timeout_ns) ?(slots = 1) ?(dims = []) ?text_bytes
      ?(policy = `Adaptive) ?(lock = `Release) ?(priority = `Normal) name =
    Arguments.text "model name" name;
    List.iter Arguments.dim dims;
    Arguments.timeout_ns timeout_ns;
    Arguments.slots slots;
    Arguments.text_bytes text_bytes;
    let opened = T.open_model ~socket ~timeout_ns ~slots ~dims ~text_bytes ~policy ~lock ~priority name in
    Result.map (of_opened ~dims ~text_bytes) opened

  let close t =
    let code = T.close t.requests in
    if code < 0 then refuse t "close" code closed

  include Opening.Make (struct
    type nonrec t = t

    let open_model = open_model
    let close = close
  end)

  let is_open t = T.is_open t.requests
  let model t = t.model
  let slots t = t.slots

  (* --- Finding tensors --------------------------------------------------------------------------------------------- *)

  let direction output = if output then "output" else "input"

  let names t output =
    List.filter_map
      (fun view -> if View.is_output view = output then Some (View.name view) else None)
      (Array.to_list t.views)

  let rec index_from views output name i =
    if i = Array.length views then -1
    else if View.is_output views.(i) = output && String.equal (View.name views.(i)) name then i
    else index_from views output name (i + 1)

  let index_of t output name = index_from t.views output name 0

  let accessor view =
    let rank = View.rank view in
    direction (View.is_output view)
    ^ if View.is_strings view then "_strings" else if rank <= 3 then string_of_int rank else ""

  let unknown t call output name =
    let index = index_of t (not output) name and other = direction (not output) in
    if index < 0 then misuse t call "it has no %s %S%s" (direction output) name (Nearest.hint name (names t output))
    else
      match call with
      | "set_dims" -> misuse t call "%S is an %s: the model gives its dimensions" name other
      | "input_dims" | "output_dims" -> misuse t call "%S is an %s: use %s_dims" name other other
      | _ -> misuse t call "%S is an %s: use %s" name other (accessor t.views.(index))

  let find t call output name =
    let index = index_of t output name in
    if index < 0 then unknown t call output name else index

  (* --- Dimensions -------------------------------------------------------------------------------------------------- *)

  let dims_to_string dims = Printf.sprintf "[%s]" (String.concat "," (List.map string_of_int (Array.to_list dims)))

  let read_dims t call slot index dims =
    check_slot t call slot;
    let code = T.get_dims t.requests slot index dims in
    (* Of an answer that had no room nothing is left to see: its outputs are as they were at first. *)
    if code = -Abi.error_output_too_large then Array.blit (View.max_dims t.views.(index)) 0 dims 0 (Array.length dims)
    else if code < 0 then
      refuse t call code (Printf.sprintf "slot %d gives %s dimensions beyond its room" slot (View.name t.views.(index)))

  let current_dims t call slot index =
    let dims = Array.copy (View.max_dims t.views.(index)) in
    read_dims t call slot index dims;
    dims

  (* For a lookup, which should not allocate. *)
  let looked_up_dims t call slot index =
    if View.is_dynamic t.views.(index) then begin
      read_dims t call slot index t.lookups.(index);
      t.lookups.(index)
    end
    else View.max_dims t.views.(index)

  let input_dims ?(slot = 0) t name = current_dims t "input_dims" slot (find t "input_dims" false name)
  let output_dims ?(slot = 0) t name = current_dims t "output_dims" slot (find t "output_dims" true name)

  let wrong_dims t code slot view dims =
    let most = View.max_dims view in
    refuse t "set_dims" code
      (if Array.length dims <> Array.length most then
       Printf.sprintf "input %s has %d dimensions, not the %d of %s" (View.to_string view) (Array.length most)
         (Array.length dims) (dims_to_string dims)
      else if Array.exists2 ( < ) most dims then
        Printf.sprintf "input %s was opened with room for %s; %s is larger: open it with larger dims" (View.to_string view)
          (dims_to_string most) (dims_to_string dims)
      else if not (View.is_dynamic view) then
        Printf.sprintf "input %s has no dynamic dimension: it is always %s, never %s" (View.to_string view)
          (dims_to_string most) (dims_to_string dims)
      else Printf.sprintf "a request is under way in slot %d" slot)

  let rec check_fixed_dims t (view : View.t) dims i =
    if i < Array.length dims then begin
      let size = dims.(i) in
      if View.is_fixed view i && (View.max_dims view).(i) <> size then
        misuse t "set_dims" "input %s: dimension %d (counted from 0) is always %d, never %d" (View.to_string view) i
          (View.max_dims view).(i) size;
      if size < 0 then misuse t "set_dims" "dimension %d of input %S cannot be %d" i (View.name view) size;
      check_fixed_dims t view dims (i + 1)
    end

  let set_dims ?(slot = 0) t name dims =
    let index = find t "set_dims" false name in
    check_slot t "set_dims" slot;
    if Array.length dims = Array.length (View.max_dims t.views.(index)) then check_fixed_dims t t.views.(index) dims 0;
    let code = T.set_dims t.requests slot index dims in
    if code < 0 then wrong_dims t code slot t.views.(index) dims

  (* --- Views ------------------------------------------------------------------------------------------------------- *)

  let view t call output slot name dtype =
    let index = find t call output name in
    let view = t.views.(index) in
    if not (is_open t) then misuse t call "%s" closed;
    check_slot t call slot;
    let dims = looked_up_dims t call slot index in
    match View.get view ~slot ~dims dtype with
    | Some array -> array
    | None ->
        misuse t call "%s %s was asked for as %s: use %s" (direction output) (View.to_string view) (Dtype.name dtype)
          (View.constructor view)

  let other_rank t call output name found =
    let view = t.views.(index_of t output name) in
    if Array.length (View.max_dims view) <> found then
      misuse t call "%s %s is seen as the bytes that hold it, a flat array: use %s1" (direction output)
        (View.to_string view) (direction output)
    else
      misuse t call "%s %S has %d dimension%s: use %s" (direction output) name found
        (if found = 1 then "" else "s")
        (accessor view)

  let ranked t call output rank slot name dtype =
    let array = view t call output slot name dtype in
    let found = Genarray.num_dims array in
    if found <> rank then other_rank t call output name found;
    array

  let input0 ?(slot = 0) t name dtype = array0_of_genarray (ranked t "input0" false 0 slot name dtype)
  let input1 ?(slot = 0) t name dtype = array1_of_genarray (ranked t "input1" false 1 slot name dtype)
  let input2 ?(slot = 0) t name dtype = array2_of_genarray (ranked t "input2" false 2 slot name dtype)
  let input3 ?(slot = 0) t name dtype = array3_of_genarray (ranked t "input3" false 3 slot name dtype)
  let input ?(slot = 0) t name dtype = view t "input" false slot name dtype
  let output0 ?(slot = 0) t name dtype = array0_of_genarray (ranked t "output0" true 0 slot name dtype)
  let output1 ?(slot = 0) t name dtype = array1_of_genarray (ranked t "output1" true 1 slot name dtype)
  let output2 ?(slot = 0) t name dtype = array2_of_genarray (ranked t "output2" true 2 slot name dtype)
  let output3 ?(slot = 0) t name dtype = array3_of_genarray (ranked t "output3" true 3 slot name dtype)
  let output ?(slot = 0) t name dtype = view t "output" true slot name dtype

  let strings t call output slot name =
    let index = find t call output name in
    if not (is_open t) then misuse t call "%s" closed;
    check_slot t call slot;
    match View.strings t.views.(index) ~slot ~dims:(looked_up_dims t call slot index) with
    | Some strings -> strings
    | None ->
        let view = t.views.(index) in
        misuse t call "%s %s holds no strings: use %s" (direction output) (View.to_string view) (accessor view)

  let input_strings ?(slot = 0) t name = strings t "input_strings" false slot name
  let output_strings ?(slot = 0) t name = strings t "output_strings" true slot name

  (* --- Errors of requests ------------------------------------------------------------------------------------------ *)

  let corrupt_text = "the shared memory is not as the protocol says: close the channel and open another"
  let corrupt t = Error (Error.Rejected { code = Corrupt; message = Printf.sprintf "model %S: %s" t.model.name corrupt_text })

  (* A step that did not get as far as a request. What a program asks for again and again is a constant: nothing is
     allocated. *)
  let not_begun t call code =
    if code = -Abi.error_full then Error Error.Full
    else if code = -Abi.error_busy then Error Error.Busy
    else if code = -Abi.error_server_gone then Error Error.Server_gone
    else if code = -Abi.error_corrupt then begin
      t.corrupt <- true;
      corrupt t
    end
    else refuse t call code (Printf.sprintf "the request was refused with code %d" code)

  let refusal t call code = Result.get_error (not_begun t call code)

  let needed t slot index =
    let dims = Array.copy (View.max_dims t.views.(index)) in
    let is_told = View.is_output t.views.(index) && T.needed t.requests slot index dims >= 0 in
    if is_told && Array.exists2 ( > ) dims (View.max_dims t.views.(index)) then [ (View.name t.views.(index), dims) ]
    else []

  (* With what only the slot knows, and only until the failure is taken from it. *)
  let too_large t slot code =
    let outputs = List.concat (List.init (Array.length t.views) (needed t slot)) in
    let text_bytes = max 0 (T.text_needed t.requests slot) in
    match T.failure t.requests slot code with
    | Output_too_large { message; _ } -> Error.Output_too_large { outputs; text_bytes; message }
    | other -> other

  (* A request that failed: nothing of it stays in the slot. *)
  let failed t call slot code =
    if code = -Abi.error_timeout then Error Error.Timeout
    else if code = -Abi.error_server_gone then begin
      ignore (T.abandon t.requests slot);
      Error Error.Server_gone
    end
    else if code = -Abi.error_invalid || code = Transport.closed || code = Transport.taken then
      refuse t call code (Printf.sprintf "slot %d holds neither a request nor an answer" slot)
    else if code = -Abi.error_full || code = -Abi.error_busy || code = -Abi.error_corrupt then not_begun t call code
    else if code = -Abi.error_output_too_large then Error (too_large t slot code)
    else Error (T.failure t.requests slot code)

  (* --- Calling ----------------------------------------------------------------------------------------------------- *)

  let deadline_after t call timeout_ns =
    if timeout_ns < 0 then misuse t call "a timeout of %d ns" timeout_ns;
    let now = Core.now_ns () in
    if timeout_ns > max_int - now then max_int else now + timeout_ns

  let run_by t call deadline =
    if t.slots <> 1 then
      misuse t call "the channel has %d slots: use claim, submit, await and release, or open it with one" t.slots;
    if t.corrupt then corrupt t
    else begin
      t.claimed <- -1;
      let result = T.run t.requests deadline in
      if result = 0 then Ok () else failed t call 0 result
    end

  let run t = run_by t "run" 0
  let run_for t ~timeout_ns = run_by t "run_for" (deadline_after t "run_for" timeout_ns)

  let run_until t ~deadline_ns =
    if deadline_ns <= 0 then misuse t "run_until" "a deadline at %d ns" deadline_ns;
    run_by t "run_until" deadline_ns

  let run_exn t = Error.get_exn (run t)
  let run_for_exn t ~timeout_ns = Error.get_exn (run_for t ~timeout_ns)

  (* --- Growing ----------------------------------------------------------------------------------------------------- *)

  let larger now needed = if needed <= now then now else max needed (now + ((now + 1) / 2))

  (* The size that an output of such dims asks of a dimension, by its name. *)
  let asked t dim (output, needed) =
    let index = index_of t true output in
    let shape = if index < 0 then [||] else (View.signature t.views.(index)).shape in
    if Array.length shape <> Array.length needed then 0
    else
      let sizes = Array.map2 (fun axis size -> if axis = Model.Dynamic dim then size else 0) shape needed in
      Array.fold_left max 0 sizes

  let larger_dims t outputs =
    List.map (fun (dim, now) -> (dim, larger now (List.fold_left max 0 (List.map (asked t dim) outputs)))) t.dims

  let larger_text t needed =
    let now = Array.fold_left (fun most view -> max most (View.text_bytes view)) 0 t.views in
    if needed <= now then t.text_bytes else Some (larger now needed)

  let copy_inputs t call (into : T.t Transport.opened) =
    let copy_in slot index view =
      if not (View.is_output view) then begin
        let dims = current_dims t call slot index in
        if View.is_dynamic view then ignore (T.set_dims into.requests slot index dims);
        View.copy view into.views.(index) ~slot ~dims
      end
    in
    for slot = 0 to t.slots - 1 do
      Array.iteri (copy_in slot) t.views
    done

  let another_model t (opened : T.t Transport.opened) =
    T.drop opened.requests;
    let message = Printf.sprintf "model %S has another signature than when the channel was opened: open it again" t.model.name in
    Error (Error.Rejected { code = Invalid; message })

  (* Assignments without a call, a loop or an allocation among them: a signal's handler that raises finds the channel as it
     was, or moved. *)
  let move t (opened : T.t Transport.opened) ~dims ~text_bytes =
    let before = t.requests in
    t.requests <- opened.requests;
    t.views <- opened.views;
    t.dims <- dims;
    t.text_bytes <- text_bytes;
    T.drop before

  let stay_and_raise (opened : T.t Transport.opened) exn =
    let backtrace = Printexc.get_raw_backtrace () in
    T.drop opened.requests;
    Printexc.raise_with_backtrace exn backtrace

  let move_if_it_can t (opened : T.t Transport.opened) ~dims ~text_bytes =
    match
      copy_inputs t "run_growing" opened;
      ignore (T.set_stamps opened.requests t.takes_stamps);
      T.switch t.requests ~by:opened.requests
    with
    | Ok 0 -> Ok (move t opened ~dims ~text_bytes)
    | Ok code ->
        T.drop opened.requests;
        refuse t "run_growing" code closed
    | Error _ as e ->
        T.drop opened.requests;
        e
    | exception exn -> stay_and_raise opened exn

  let grow t ~dims ~text_bytes =
    match T.grow t.requests ~dims ~text_bytes with
    | Error _ as e -> e
    | Ok opened when opened.model.fingerprint <> t.model.fingerprint -> another_model t opened
    | Ok opened -> move_if_it_can t opened ~dims ~text_bytes

  let fitted = Ok `Fitted
  let grown = Ok `Grown

  let rec run_in_room t outcome =
    match run_by t "run_growing" 0 with
    | Ok () -> outcome
    | Error (Output_too_large { outputs; text_bytes; _ }) as e -> run_in_more_room t (larger_dims t outputs) (larger_text t text_bytes) e
    | Error _ as e -> e

  (* Where no maximum helps, the error stands; and where state would start anew with a new channel. *)
  and run_in_more_room t dims text_bytes e =
    if t.model.carried <> [] || (dims = t.dims && text_bytes = t.text_bytes) then e
    else match grow t ~dims ~text_bytes with Ok () -> run_in_room t grown | Error _ as e -> e

  let run_growing t = run_in_room t fitted

  (* --- Reopening --------------------------------------------------------------------------------------------------- *)

  let lies_differently t (opened : T.t Transport.opened) =
    T.drop opened.requests;
    let message =
      Printf.sprintf "model %S lies in memory in another way than when the channel was opened: close it and open another" t.model.name
    in
    Error (Error.Rejected { code = Invalid; message })

  let not_shown t (opened : T.t Transport.opened) =
    T.drop opened.requests;
    let message = Printf.sprintf "model %S: the views could not be moved to the new memory: close it and open another" t.model.name in
    Error (Error.Rejected { code = System; message })

  let inputs_are_lost t (opened : T.t Transport.opened) =
    T.drop opened.requests;
    let message =
      Printf.sprintf "model %S: the daemon has taken the memory of the channel back, and its inputs with it: close it and open another"
        t.model.name
    in
    Error (Error.Rejected { code = Corrupt; message })

  let forget_requests t =
    t.claimed <- -1;
    t.corrupt <- false;
    Array.fill t.deadlines 0 t.slots 0

  (* As [move], but the views stay where they are, and show the other memory there. What a signal's handler raises comes
     before that, or finds the channel moved. *)
  let take_over t (opened : T.t Transport.opened) =
    let before = t.requests in
    match
      ignore (T.set_stamps opened.requests t.takes_stamps);
      T.show opened.requests t.views
    with
    | code when code < 0 -> not_shown t opened
    | _ ->
        t.requests <- opened.requests;
        forget_requests t;
        T.drop before;
        Ok ()
    | exception exn -> stay_and_raise opened exn

  let same_signature (a : Model.t) (b : Model.t) =
    a.fingerprint = b.fingerprint && a.inputs = b.inputs && a.outputs = b.outputs && a.carried = b.carried

  let lies_as_before t views = Array.length views = Array.length t.views && Array.for_all2 View.same_layout t.views views

  let reopen_elsewhere t ~timeout_ns =
    match T.reopen t.requests ~slots:t.slots ~dims:t.dims ~text_bytes:t.text_bytes ~timeout_ns with
    | Error _ as e -> e
    | Ok opened when not (same_signature opened.model t.model) -> another_model t opened
    | Ok opened when not (lies_as_before t opened.views) -> lies_differently t opened
    | Ok opened -> (
        match copy_inputs t "reopen" opened with
        | () -> if T.is_intact t.requests then take_over t opened else inputs_are_lost t opened
        | exception exn -> stay_and_raise opened exn)

  let reopen_within t call ~timeout_ns =
    let code = T.begin_anew t.requests in
    if code = 0 then begin
      forget_requests t;
      Ok ()
    end
    else if code = -Abi.error_server_gone then reopen_elsewhere t ~timeout_ns
    else refuse t call code closed

  let reopen t = reopen_within t "reopen" ~timeout_ns:default_timeout_ns

  let reopen_for t ~timeout_ns =
    if timeout_ns < 0 then misuse t "reopen_for" "a timeout of %d ns" timeout_ns;
    reopen_within t "reopen_for" ~timeout_ns

  let is_busy t =
    let code = T.claim t.requests in
    if code = Transport.closed || code = Transport.taken then refuse t "is_busy" code closed;
    code = -Abi.error_busy

  let is_quiet t =
    let code = T.claim_run t.requests t.slots in
    if code = Transport.closed || code = Transport.taken then refuse t "is_quiet" code closed;
    code = t.slots

  (* --- Several requests at once ------------------------------------------------------------------------------------ *)

  let claimed t call slot =
    if slot < 0 then not_begun t call slot
    else begin
      t.claimed <- slot;
      t.claim_results.(slot)
    end

  let claim t = if t.corrupt then corrupt t else claimed t "claim" (T.claim t.requests)

  let claim_wait_until t call deadline =
    if t.corrupt then corrupt t
    else
      let slot = T.claim_wait t.requests deadline in
      if slot = -Abi.error_timeout then Error Error.Timeout else claimed t call slot

  let claim_wait t = claim_wait_until t "claim_wait" 0
  let claim_wait_for t ~timeout_ns = claim_wait_until t "claim_wait_for" (deadline_after t "claim_wait_for" timeout_ns)

  let submit_until t call slot deadline =
    check_slot t call slot;
    if slot <> t.claimed then
      if t.claimed < 0 then misuse t call "slot %d is not claimed: claim gives the slot to fill and to submit" slot
      else misuse t call "slot %d is not the one that claim gave: that is slot %d" slot t.claimed;
    let submitted = T.submit t.requests deadline in
    if submitted < 0 then not_begun t call submitted
    else begin
      t.claimed <- -1;
      t.deadlines.(slot) <- deadline;
      Ok ()
    end

  let submit t slot = submit_until t "submit" slot 0
  let submit_for t slot ~timeout_ns = submit_until t "submit_for" slot (deadline_after t "submit_for" timeout_ns)

  let await_until t call slot deadline =
    check_slot t call slot;
    let result = T.await t.requests slot deadline in
    if result = 0 then Ok () else failed t call slot result

  let await t slot =
    check_slot t "await" slot;
    await_until t "await" slot t.deadlines.(slot)

  let await_for t slot ~timeout_ns =
    check_slot t "await_for" slot;
    let own = t.deadlines.(slot) and given = deadline_after t "await_for" timeout_ns in
    await_until t "await_for" slot (if own <> 0 && own < given then own else given)

  let await_any_until t call deadline =
    let slot = T.await_any t.requests deadline in
    if slot >= 0 then t.claim_results.(slot)
    else if slot = -Abi.error_timeout then Error Error.Timeout
    else refuse t call slot "no slot holds a request whose end is not known yet: submit one"

  let await_any t = await_any_until t "await_any" 0
  let await_any_for t ~timeout_ns = await_any_until t "await_any_for" (deadline_after t "await_any_for" timeout_ns)

  let poll t slot =
    check_slot t "poll" slot;
    let result = T.poll t.requests slot t.deadlines.(slot) in
    if result = 0 then Ok true
    else if result = -Abi.error_pending || result = -Abi.error_again then Ok false
    else failed t "poll" slot result

  let release t slot =
    check_slot t "release" slot;
    let code = T.release t.requests slot in
    if code < 0 then refuse t "release" code (Printf.sprintf "slot %d holds no answer" slot)

  let abandon t slot =
    check_slot t "abandon" slot;
    let code = T.abandon t.requests slot in
    if code = -Abi.error_corrupt then t.corrupt <- true
    else if code < 0 then refuse t "abandon" code (Printf.sprintf "slot %d holds neither a request nor an answer" slot)

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

  module Requests_of_items = Window.Make (struct
    type nonrec t = t

    let slots t = t.slots
    let misuse = misuse
    let claim t = if t.corrupt then -Abi.error_corrupt else T.claim t.requests
    let claim_wait t = T.claim_wait t.requests 0
    let claim_run t most = T.claim_run t.requests most

    let note_deadlines t first count deadline =
      let before_end = min count (t.slots - first) in
      Array.fill t.deadlines first before_end deadline;
      Array.fill t.deadlines 0 (count - before_end) deadline

    let submit_run t count ~deadline =
      t.claimed <- -1;
      let first = T.submit_run t.requests count deadline in
      if first >= 0 then note_deadlines t first count deadline;
      first

    let refusal = refusal
    let deadline_after = deadline_after
    let await t call slot = await_until t call slot t.deadlines.(slot)
    let await_end t slot = T.await_end t.requests slot t.deadlines.(slot)
    let ended t slot most = T.ended t.requests slot most
    let answered t slot most = T.answered t.requests slot most
    let release_run t slot count = ignore (T.release_run t.requests slot count)
    let give_up t slot = ignore (T.abandon t.requests slot)
  end)

  let begin_items t call =
    if not (is_open t) then misuse t call "%s" closed;
    t.claimed <- -1

  let iter ?window ?burst ?timeout_ns t ~fill ~answer items =
    begin_items t "iter";
    Requests_of_items.iter (Requests_of_items.make t "iter" ~window ~burst ~timeout_ns ~fill items) ~answer

  let map ?window ?burst ?timeout_ns t ~fill ~read items =
    begin_items t "map";
    Requests_of_items.map (Requests_of_items.make t "map" ~window ~burst ~timeout_ns ~fill items) ~read

  (* --- Carried state ----------------------------------------------------------------------------------------------- *)

  let reset t =
    if t.model.carried = [] then misuse t "reset" "it carries no state: there is nothing to reset";
    let code = T.reset t.requests in
    if code < 0 then refuse t "reset" code closed

  (* --- Looking closer ---------------------------------------------------------------------------------------------- *)

  let set_stamps t wanted =
    let code = T.set_stamps t.requests wanted in
    if code < 0 then refuse t "set_stamps" code closed;
    t.takes_stamps <- wanted

  let stamps ?(slot = 0) t : Backend.stamps =
    check_slot t "stamps" slot;
    let four = Array.make 4 0 in
    let code = T.stamps t.requests slot four in
    if code < 0 then refuse t "stamps" code closed;
    { submitted_ns = four.(0); seen_ns = four.(1); started_ns = four.(2); finished_ns = four.(3) }

  let now_ns = Core.now_ns

  let gone t = T.gone t.requests
  let gone_error t = T.gone_error t.requests
  let is_intact t = T.is_intact t.requests
end
