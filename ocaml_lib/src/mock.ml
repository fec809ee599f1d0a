(* Recursive, because what answers for a model is given the channel that its inputs are read from. *)
module rec Engine : sig
  include In_process.Engine

  val serve : In_process.carried -> (Base.t -> slot:int -> (unit, Error.t) result) -> unit
  val withdraw : string -> unit
  val belongs_to : t -> Base.t -> unit
  val output : t -> string -> In_process.Tensor.t option
end = struct
  module Names = In_process.Names
  module Tensor = In_process.Tensor

  type answer = Base.t -> slot:int -> (unit, Error.t) result

  type t = {
    answer : answer;
    mutable channel : Base.t option;
    mutable tensors : Tensor.t array;
    mutable failures : Error.t array; (* of each slot's last run *)
  }

  (* --- What is served -------------------------------------------------------------------------------------------- *)

  let served : (In_process.carried * answer) Names.t = Names.create ()
  let serve model answer = Names.add served (In_process.visible model).name (model, answer)
  let withdraw name = Names.remove served name
  let models () = Ok (List.map (fun (_, (model, _)) -> In_process.visible model) (Names.all served))
  let describe name = Result.map (fun (model, _) -> In_process.visible model) (Names.find served name)

  (* --- One channel ----------------------------------------------------------------------------------------------- *)

  let open_model ~lock:_ name =
    let opened (model, answer) = ({ answer; channel = None; tensors = [||]; failures = [||] }, model) in
    Result.map opened (Names.find served name)

  let attach t ~slots tensors =
    t.tensors <- tensors;
    t.failures <- Array.make slots Error.Timeout;
    Ok ()

  let belongs_to t channel = t.channel <- Some channel

  (* Anew for each run: the run before may have set others. *)
  let forget_output_dims t slot =
    Array.iter
      (fun tensor ->
        if Tensor.is_output tensor && not (Tensor.is_known tensor ~slot) then
          Tensor.set_dims tensor ~slot (Tensor.max_dims tensor))
      t.tensors

  let run t ~slot ~deadline_ns:_ =
    forget_output_dims t slot;
    match t.answer (Option.get t.channel) ~slot with
    | Ok () -> true
    | Error e ->
        t.failures.(slot) <- e;
        false

  let failure t ~slot = t.failures.(slot)
  let close _ = ()

  let output t name =
    let is_it tensor = Tensor.is_output tensor && (Tensor.signature tensor).name = name in
    List.find_opt is_it (Array.to_list t.tensors)
end

and Base : sig
  include Backend.S

  val engine : t -> Engine.t
  val inside : t -> t
end =
  In_process.Make (Engine)

include Base

let open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name =
  let opened = Base.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name in
  Result.iter (fun t -> Engine.belongs_to (Base.engine t) (Base.inside t)) opened;
  opened

include Opening.Make (struct
  type t = Base.t

  let open_model = open_model
  let close = close
end)

(* --- Serving ------------------------------------------------------------------------------------------------------ *)

let check_dtype (tensor : Model.tensor) =
  if Dtype.of_name tensor.dtype = None then
    invalid_arg (Printf.sprintf "Sidecaml.Mock.serve: tensor %S: there is no dtype %S" tensor.name tensor.dtype)

let serve ?max_slots ?(state = []) ~inputs ~outputs name answer =
  List.iter check_dtype (inputs @ outputs);
  match In_process.carry ~state (In_process.model ?max_slots name ~engine:"mock" ~inputs ~outputs) with
  | Ok model -> Engine.serve model answer
  | Error problem -> invalid_arg (Printf.sprintf "Sidecaml.Mock.serve: model %S: %s" name problem)

let withdraw = Engine.withdraw

let no_room ~outputs ~text_bytes format =
  Printf.ksprintf (fun message -> Error (Error.Output_too_large { outputs; text_bytes; message })) format

let dims_to_string dims = Printf.sprintf "[%s]" (String.concat ", " (List.map string_of_int (Array.to_list dims)))

let set_output_dims ?(slot = 0) t name dims =
  match Engine.output (Base.engine t) name with
  | Some tensor when In_process.Tensor.is_known tensor ~slot && In_process.Tensor.dims tensor ~slot <> dims ->
      invalid_arg
        (Printf.sprintf "Sidecaml.Mock.set_output_dims: model %S: the inputs tell the dimensions of output %S" (model t).name
           name)
  | Some tensor -> In_process.Tensor.set_dims tensor ~slot dims
  | None -> invalid_arg (Printf.sprintf "Sidecaml.Mock.set_output_dims: model %S has no output %S" (model t).name name)

let is_beyond most dims = Array.length dims = Array.length most && Array.exists2 ( > ) dims most

let bytes_of tensor dims =
  match Dtype.of_name (In_process.Tensor.signature tensor).dtype with
  | Some (Any dtype) -> Dtype.size_in_bytes dtype ~elements:(Array.fold_left ( * ) 1 dims)
  | None -> 0

let fit_output ?(slot = 0) t name dims =
  match Engine.output (Base.engine t) name with
  | Some tensor when is_beyond (In_process.Tensor.max_dims tensor) dims ->
      no_room ~outputs:[ (name, dims) ] ~text_bytes:0
        "output %s came out as %s, %d bytes, and the channel has room for %s: open with larger dims" (Nearest.quoted name)
        (dims_to_string dims) (bytes_of tensor dims)
        (dims_to_string (In_process.Tensor.max_dims tensor))
  | _ -> Ok (set_output_dims ~slot t name dims)

let fit_strings ?(slot = 0) t name strings =
  let place = output_strings ~slot t name in
  let needed = Array.fold_left (fun sum string -> sum + String.length string) 0 strings in
  if needed > Strings.room place then
    no_room ~outputs:[] ~text_bytes:needed "output %s has %d bytes of text, and the channel has room for %d: open with larger text_bytes"
      (Nearest.quoted name) needed (Strings.room place)
  else Ok (Strings.set_all place strings)
