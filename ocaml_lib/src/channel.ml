(* What programs see of a channel, over any transport: names, views, dimensions, errors and misuse. *)

open Bigarray

let default_timeout_ns = 30_000_000_000

module Make (T : Transport.S) = struct
  type t = {
    requests : T.t;
    model : Model.t;
    views : View.t array;
    slots : int;
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

  let of_opened ({ requests; model; views; slots } : T.t Transport.opened) =
    {
      requests;
      model;
      views;
      slots;
      claim_results = Array.init slots Result.ok;
      deadlines = Array.make slots 0;
      claimed = -1;
      corrupt = false;
    }

  let open_model ?socket ?(timeout_ns = default_timeout_ns) ?(slots = 1) ?(dims = []) ?(policy = `Adaptive)
      ?(lock = `Release) name =
    Arguments.text "model name" name;
    List.iter Arguments.dim dims;
    Arguments.timeout_ns timeout_ns;
    Arguments.slots slots;
    Result.map of_opened (T.open_model ~socket ~timeout_ns ~slots ~dims ~policy ~lock name)

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

  let index_of t output name =
    let rec search i =
      if i = Array.length t.views then -1
      else if View.is_output t.views.(i) = output && View.name t.views.(i) = name then i
      else search (i + 1)
    in
    search 0

  let accessor output rank = direction output ^ if rank <= 3 then string_of_int rank else ""

  let unknown t call output name =
    let index = index_of t (not output) name and other = direction (not output) in
    if index < 0 then misuse t call "it has no %s %S%s" (direction output) name (Nearest.hint name (names t output))
    else
      match call with
      | "set_dims" -> misuse t call "%S is an %s: the model gives its dimensions" name other
      | "input_dims" | "output_dims" -> misuse t call "%S is an %s: use %s_dims" name other other
      | _ ->
          let rank = Array.length (View.max_dims t.views.(index)) in
          misuse t call "%S is an %s: use %s" name other (accessor (not output) rank)

  let find t call output name =
    let index = index_of t output name in
    if index < 0 then unknown t call output name else index

  (* --- Dimensions -------------------------------------------------------------------------------------------------- *)

  let dims_to_string dims = Printf.sprintf "[%s]" (String.concat "," (List.map string_of_int (Array.to_list dims)))

  let current_dims t call slot index =
    check_slot t call slot;
    let dims = Array.copy (View.max_dims t.views.(index)) in
    let code = T.get_dims t.requests slot index dims in
    if code < 0 then
      refuse t call code (Printf.sprintf "slot %d gives %s dimensions beyond its room" slot (View.name t.views.(index)));
    dims

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

  let check_fixed_dims t (view : View.t) dims =
    let check i size =
      match View.fixed_dim view i with
      | Some fixed when fixed <> size ->
          misuse t "set_dims" "input %s: dimension %d (counted from 0) is always %d, never %d" (View.to_string view) i
            fixed size
      | _ -> if size < 0 then misuse t "set_dims" "dimension %d of input %S cannot be %d" i (View.name view) size
    in
    if Array.length dims = Array.length (View.max_dims view) then Array.iteri check dims

  let set_dims ?(slot = 0) t name dims =
    let index = find t "set_dims" false name in
    check_slot t "set_dims" slot;
    check_fixed_dims t t.views.(index) dims;
    let code = T.set_dims t.requests slot index dims in
    if code < 0 then wrong_dims t code slot t.views.(index) dims

  (* --- Views ------------------------------------------------------------------------------------------------------- *)

  let view t call output slot name dtype =
    let index = find t call output name in
    let view = t.views.(index) in
    if not (is_open t) then misuse t call "%s" closed;
    check_slot t call slot;
    let dims = if View.is_dynamic view then current_dims t call slot index else View.max_dims view in
    match View.get view ~slot ~dims dtype with
    | Some array -> array
    | None ->
        misuse t call "%s %s was asked for as %s: use %s" (direction output) (View.to_string view) (Dtype.name dtype)
          (View.constructor view)

  let ranked t output rank slot name dtype =
    let call = Printf.sprintf "%s%d" (direction output) rank in
    let array = view t call output slot name dtype in
    let found = Genarray.num_dims array in
    if found <> rank then
      misuse t call "%s %S has %d dimension%s: use %s" (direction output) name found
        (if found = 1 then "" else "s")
        (accessor output found);
    array

  let input0 ?(slot = 0) t name dtype = array0_of_genarray (ranked t false 0 slot name dtype)
  let input1 ?(slot = 0) t name dtype = array1_of_genarray (ranked t false 1 slot name dtype)
  let input2 ?(slot = 0) t name dtype = array2_of_genarray (ranked t false 2 slot name dtype)
  let input3 ?(slot = 0) t name dtype = array3_of_genarray (ranked t false 3 slot name dtype)
  let input ?(slot = 0) t name dtype = view t "input" false slot name dtype
  let output0 ?(slot = 0) t name dtype = array0_of_genarray (ranked t true 0 slot name dtype)
  let output1 ?(slot = 0) t name dtype = array1_of_genarray (ranked t true 1 slot name dtype)
  let output2 ?(slot = 0) t name dtype = array2_of_genarray (ranked t true 2 slot name dtype)
  let output3 ?(slot = 0) t name dtype = array3_of_genarray (ranked t true 3 slot name dtype)
  let output ?(slot = 0) t name dtype = view t "output" true slot name dtype

  (* --- Errors of requests ------------------------------------------------------------------------------------------ *)

  let corrupt_text = "the shared memory is not as the protocol says: close the channel and open another"
  let corrupt t = Error (Error.Rejected { code = Corrupt; message = Printf.sprintf "model %S: %s" t.model.name corrupt_text })

  (* A step that did not get as far as a request. *)
  let not_begun t call code =
    if code = -Abi.error_full then Error Error.Full
    else if code = -Abi.error_busy then Error Error.Busy
    else if code = -Abi.error_server_gone then Error Error.Server_gone
    else if code = -Abi.error_corrupt then begin
      t.corrupt <- true;
      corrupt t
    end
    else refuse t call code (Printf.sprintf "the request was refused with code %d" code)

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
    else Error (T.failure t.requests slot code)

  (* --- Calling ----------------------------------------------------------------------------------------------------- *)

  let deadline_after t call timeout_ns =
    if timeout_ns < 0 then misuse t call "a timeout of %d ns" timeout_ns;
    let now = Core.now_ns () in
    if timeout_ns > max_int - now then max_int else now + timeout_ns

  let run_until t call deadline =
    if t.slots <> 1 then
      misuse t call "the channel has %d slots: use claim, submit, await and release, or open it with one" t.slots;
    if t.corrupt then corrupt t
    else begin
      t.claimed <- -1;
      let result = T.run t.requests deadline in
      if result = 0 then Ok () else failed t call 0 result
    end

  let run t = run_until t "run" 0
  let run_for t ~timeout_ns = run_until t "run_for" (deadline_after t "run_for" timeout_ns)
  let run_exn t = Error.get_exn (run t)
  let run_for_exn t ~timeout_ns = Error.get_exn (run_for t ~timeout_ns)

  let is_busy t =
    let code = T.claim t.requests in
    if code = Transport.closed || code = Transport.taken then refuse t "is_busy" code closed;
    code = -Abi.error_busy

  (* --- Several requests at once ------------------------------------------------------------------------------------ *)

  let claim t =
    if t.corrupt then corrupt t
    else
      let slot = T.claim t.requests in
      if slot < 0 then not_begun t "claim" slot
      else begin
        t.claimed <- slot;
        t.claim_results.(slot)
      end

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
  let submit_exn t slot = Error.get_exn (submit t slot)
  let submit_for_exn t slot ~timeout_ns = Error.get_exn (submit_for t slot ~timeout_ns)
  let await_exn t slot = Error.get_exn (await t slot)
  let await_for_exn t slot ~timeout_ns = Error.get_exn (await_for t slot ~timeout_ns)

  (* --- Carried state ----------------------------------------------------------------------------------------------- *)

  let reset t =
    if t.model.carried = [] then misuse t "reset" "it carries no state: there is nothing to reset";
    let code = T.reset t.requests in
    if code < 0 then refuse t "reset" code closed

  (* --- Looking closer ---------------------------------------------------------------------------------------------- *)

  let set_stamps t wanted =
    let code = T.set_stamps t.requests wanted in
    if code < 0 then refuse t "set_stamps" code closed

  let stamps ?(slot = 0) t : Backend.stamps =
    check_slot t "stamps" slot;
    let four = Array.make 4 0 in
    let code = T.stamps t.requests slot four in
    if code < 0 then refuse t "stamps" code closed;
    { submitted_ns = four.(0); seen_ns = four.(1); started_ns = four.(2); finished_ns = four.(3) }

  let now_ns = Core.now_ns

  let gone t = T.gone t.requests
end
