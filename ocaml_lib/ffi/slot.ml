module Tensor = Sidecaml.In_process.Tensor
module Error = Sidecaml.Error

(* Kept of a slot, one for each set of dimensions that requests came with. *)
let most_bindings = 32

(* Where an output goes. *)
type place = In_place | Copied

type binding = {
  io : Core.binding;
  dims : int array list; (* of the dynamic inputs *)
  (* Nothing here refers to them otherwise, and ONNX Runtime writes there. *)
  arrays : Tensor.any array;
  places : place array; (* of each output *)
  mutable run : direct; (* how, now that it is known what has to be copied *)
}

and direct =
  | Watched (* a first run shows whether every output went where it was told *)
  | Direct
  | Direct_or_unbound (* an output's size rests on a declared name: any request may show that it is not kept to *)
  | With_copies
  | With_copies_or_unbound

type t = {
  session : Core.session;
  slot : int;
  holds_lock : bool;
  tensors : Tensor.t array;
  inputs : int;
  dynamic : Tensor.t list; (* inputs *)
  mutable current : binding option;
  mutable others : binding list; (* the latest first *)
  mutable failure : Error.t;
}

let make session ~slot ~holds_lock tensors =
  let inputs = List.filter (fun tensor -> not (Tensor.is_output tensor)) (Array.to_list tensors) in
  {
    session;
    slot;
    holds_lock;
    tensors;
    inputs = List.length inputs;
    dynamic = List.filter Tensor.is_dynamic inputs;
    current = None;
    others = [];
    failure = Error.Timeout;
  }

let failure t = t.failure

(* The collector finds the bindings. *)
let forget t =
  t.current <- None;
  t.others <- []

let error (number, message) = Error.of_number number ~message

(* --- Failures: code and sentence are the binding's ------------------------------------------------------------------ *)

let succeeded t binding code =
  if code < 0 then t.failure <- error (Core.failure binding.io);
  code >= 0

let is_engine_failure t = match t.failure with Rejected { code = Engine; _ } -> true | _ -> false

(* --- Binding -------------------------------------------------------------------------------------------------------- *)

let rec all_of check i n = i = n || (check i && all_of check (i + 1) n)
let outputs t = Array.length t.tensors - t.inputs
let output t number = t.tensors.(t.inputs + number)

(* The largest number of strings: it says where their text starts. *)
let most_strings tensor = Array.fold_left ( * ) 1 (Tensor.max_dims tensor)
let is_strings tensor = (Tensor.signature tensor).dtype = "string"

let bind_tensor t binding index =
  let tensor = t.tensors.(index) in
  let (Array array) = binding.arrays.(index) in
  let dims = Tensor.dims tensor ~slot:t.slot in
  if is_strings tensor then Core.bind_strings binding.io index dims ~most:(most_strings tensor) array
  else Core.bind binding.io index dims array

let bind_output t binding number =
  let index = t.inputs + number in
  succeeded t binding
    (match binding.places.(number) with
    | In_place -> bind_tensor t binding index
    | Copied -> Core.bind_anywhere binding.io index)

let bind_outputs t binding = all_of (bind_output t binding) 0 (outputs t)
let bind_inputs t binding = all_of (fun index -> succeeded t binding (bind_tensor t binding index)) 0 t.inputs
let place_of t number =
  let tensor = output t number in
  if Tensor.is_known tensor ~slot:t.slot && not (is_strings tensor) then In_place else Copied

let dims_now t = List.map (fun tensor -> Array.copy (Tensor.dims tensor ~slot:t.slot)) t.dynamic

let bind t =
  match Core.bind_nothing t.session with
  | Error failure ->
      t.failure <- error failure;
      None
  | Ok io ->
      let arrays = Array.map (fun tensor -> Tensor.array tensor ~slot:t.slot) t.tensors in
      let binding = { io; dims = dims_now t; arrays; places = Array.init (outputs t) (place_of t); run = Watched } in
      if bind_inputs t binding && bind_outputs t binding then Some binding else None

(* --- Running, when there is something to watch or to copy ------------------------------------------------------------ *)

let run_io t binding deadline_ns =
  let run = if t.holds_lock then Core.run_holding else Core.run_releasing in
  succeeded t binding (run binding.io deadline_ns)

let is_carried_as_it_must t binding number tensor =
  match Tensor.refusal tensor ~slot:t.slot (Core.output_dims binding.io number) with
  | Some error ->
      t.failure <- error;
      false
  | None -> true

(* Of those that the run placed: the others had room. *)
let too_large t binding number =
  let tensor = output t number and dims = Core.output_dims binding.io number in
  let most = Tensor.max_dims tensor in
  let is_larger = binding.places.(number) = Copied && Array.length dims = Array.length most && Array.exists2 ( > ) dims most in
  if is_larger then [ ((Tensor.signature tensor).name, dims) ] else []

let text_too_large t binding number =
  let tensor = output t number in
  let bytes = if is_strings tensor then Core.text_bytes binding.io number else 0 in
  if bytes > Tensor.text_bytes tensor then bytes else 0

let tell_what_is_needed t binding =
  match t.failure with
  | Output_too_large { message; _ } ->
      let of_all what = List.init (outputs t) (what t binding) in
      let text_bytes = List.fold_left max 0 (of_all text_too_large) in
      t.failure <- Output_too_large { outputs = List.concat (of_all too_large); text_bytes; message }
  | _ -> ()

let check_text t binding number tensor =
  if is_strings tensor then Core.check_text binding.io number (t.inputs + number) ~room:(Tensor.text_bytes tensor) else 0

let checked t binding number =
  let tensor = output t number in
  (succeeded t binding (Core.check_output binding.io number (t.inputs + number) (Tensor.max_dims tensor))
  && succeeded t binding (check_text t binding number tensor))
  || begin
       tell_what_is_needed t binding;
       false
     end

let copy_contents t binding number tensor =
  let (Array array) = Tensor.array tensor ~slot:t.slot in
  if is_strings tensor then Core.copy_strings binding.io number (t.inputs + number) ~most:(most_strings tensor) array
  else begin
    Core.copy_output binding.io number array;
    0
  end

let copy t binding number =
  let tensor = output t number in
  is_carried_as_it_must t binding number tensor
  && checked t binding number
  && begin
       Tensor.set_dims tensor ~slot:t.slot (Core.output_dims binding.io number);
       succeeded t binding (copy_contents t binding number tensor)
     end

let copy_if_placed_elsewhere t binding number = binding.places.(number) = In_place || copy t binding number

(* Anew each time: what the last run allocated would be taken for a place of that size. *)
let bind_anywhere_again t binding number = binding.places.(number) = In_place || bind_output t binding number

(* ONNX Runtime has strings of its own, made of those that lie in the slot now. *)
let bind_strings_again t binding index =
  (not (is_strings t.tensors.(index))) || succeeded t binding (bind_tensor t binding index)

let run_and_copy t binding deadline_ns =
  all_of (bind_strings_again t binding) 0 t.inputs
  && all_of (bind_anywhere_again t binding) 0 (outputs t)
  && run_io t binding deadline_ns
  && succeeded t binding (Core.look binding.io)
  && all_of (copy_if_placed_elsewhere t binding) 0 (outputs t)

let settle t binding =
  let is_in_place number = binding.places.(number) = In_place in
  let numbers = List.init (outputs t) Fun.id in
  let named = List.exists (fun number -> is_in_place number && Tensor.is_dynamic (output t number)) numbers in
  let copied = List.exists (fun number -> not (is_in_place number)) numbers || Array.exists is_strings t.tensors in
  binding.run <-
    (match (copied, named) with
    | false, false -> Direct
    | false, true -> Direct_or_unbound
    | true, false -> With_copies
    | true, true -> With_copies_or_unbound)

(* Once more with no output bound: the model may not keep to the shapes that it declares. *)
let run_unbound t binding deadline_ns =
  let before = Array.copy binding.places in
  Array.fill binding.places 0 (outputs t) Copied;
  if run_and_copy t binding deadline_ns then begin
    settle t binding;
    true
  end
  else begin
    Array.blit before 0 binding.places 0 (outputs t);
    let failure = t.failure in
    if not (bind_outputs t binding) then forget t;
    t.failure <- failure;
    false
  end

let or_unbound t binding deadline_ns ran = ran || (is_engine_failure t && run_unbound t binding deadline_ns)

(* An input that is at once an output is handed back where it is: the bound place is left as it was. *)
let copy_what_lies_elsewhere t binding number =
  let (Array array) = binding.arrays.(t.inputs + number) in
  binding.places.(number) = Copied
  || Core.lies_at binding.io number array
  || begin
       binding.places.(number) <- Copied;
       copy t binding number
     end

let first_run t binding deadline_ns =
  or_unbound t binding deadline_ns (run_and_copy t binding deadline_ns)
  && all_of (copy_what_lies_elsewhere t binding) 0 (outputs t)
  && begin
       settle t binding;
       true
     end

(* --- Requests -------------------------------------------------------------------------------------------------------- *)

let rec same_dims slot tensors dims =
  match (tensors, dims) with
  | tensor :: tensors, dims :: rest -> Tensor.dims tensor ~slot = dims && same_dims slot tensors rest
  | _ -> true

let fits t binding = same_dims t.slot t.dynamic binding.dims

let rec split n = function
  | binding :: rest when n > 0 ->
      let kept, dropped = split (n - 1) rest in
      (binding :: kept, dropped)
  | rest -> ([], rest)

(* Whatever raises does so before the two fields change, or after: then the collector finds what was dropped. *)
let make_current t binding =
  let earlier = List.filter (fun other -> other != binding) (Option.to_list t.current @ t.others) in
  let kept, dropped = split (most_bindings - 1) earlier in
  let current = Some binding in
  t.current <- current;
  t.others <- kept;
  List.iter (fun binding -> Core.unbind binding.io) dropped

(* The binding for the request's dimensions: the current one without a search or an allocation. *)
let find t =
  match t.current with
  | Some binding as found when fits t binding -> found
  | _ ->
      let found = match List.find_opt (fits t) t.others with Some _ as found -> found | None -> bind t in
      Option.iter (make_current t) found;
      found

let run_binding t binding deadline_ns =
  match binding.run with
  | Direct -> run_io t binding deadline_ns
  | Direct_or_unbound -> or_unbound t binding deadline_ns (run_io t binding deadline_ns)
  | With_copies -> run_and_copy t binding deadline_ns
  | With_copies_or_unbound -> or_unbound t binding deadline_ns (run_and_copy t binding deadline_ns)
  | Watched -> first_run t binding deadline_ns

let run t ~deadline_ns =
  match match find t with Some binding -> run_binding t binding deadline_ns | None -> false with
  | succeeded -> succeeded
  | exception exn ->
      (* Of a signal's handler, in the middle of anything: no binding can be relied on. *)
      let backtrace = Printexc.get_raw_backtrace () in
      forget t;
      Printexc.raise_with_backtrace exn backtrace

let close t =
  let bindings = Option.to_list t.current @ t.others in
  forget t;
  List.iter (fun binding -> Core.unbind binding.io) bindings
