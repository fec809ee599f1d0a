type dim = Fixed of int | Dynamic of string
type tensor = { name : string; dtype : string; shape : dim array }
type carried = { input : tensor; output : string }
type state = Ready | Loading | Failed of string

type batching = {
  policy : string;
  most : int;
  dim : string option;
  in_place : bool;
  gather_from : int option;
  shared : string list;
  why : string;
}

type t = {
  name : string;
  engine : string;
  state : state;
  fingerprint : int64;
  max_slots : int;
  inputs : tensor list;
  outputs : tensor list;
  carried : carried list;
  batching : batching option;
}

let shape sizes names = Array.map2 (fun size name -> if size < 0 then Dynamic name else Fixed size) sizes names

let dynamic_dims model =
  let add names = function Dynamic name when not (List.mem name names) -> name :: names | _ -> names in
  let carried = List.map (fun pair -> pair.input) model.carried in
  List.rev
    (List.fold_left
       (fun names (t : tensor) -> Array.fold_left add names t.shape)
       []
       (model.inputs @ model.outputs @ carried))

let dim_to_string = function Fixed size -> string_of_int size | Dynamic name -> name

let tensor_to_string (tensor : tensor) =
  let shape = String.concat "," (List.map dim_to_string (Array.to_list tensor.shape)) in
  Printf.sprintf "%s %s[%s]" tensor.name tensor.dtype shape

let state_to_string = function Ready -> "ready" | Loading -> "loading" | Failed why -> "failed: " ^ why

let pp ppf model =
  let tensor direction t = Format.fprintf ppf "@,  %-6s %s" direction (tensor_to_string t) in
  Format.fprintf ppf "@[<v>%s (%s, %s" model.name model.engine (state_to_string model.state);
  if model.state = Ready then
    Format.fprintf ppf ", up to %d %s" model.max_slots (if model.max_slots = 1 then "slot" else "slots");
  Format.fprintf ppf ")";
  List.iter (tensor "input") model.inputs;
  List.iter (tensor "output") model.outputs;
  List.iter (fun pair -> Format.fprintf ppf "@,  state  %s from %s" (tensor_to_string pair.input) pair.output) model.carried;
  Format.fprintf ppf "@]"
