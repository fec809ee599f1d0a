type t = { whole : Model.t; visible : Model.t; pairs : (int * int) array }

let none model = { whole = model; visible = model; pairs = [||] }

exception Refused of string

let refuse format = Printf.ksprintf (fun text -> raise (Refused ("state: " ^ text))) format
let quoted = Nearest.quoted

let index kind (tensors : Model.tensor array) name =
  let names = Array.to_list (Array.map (fun (tensor : Model.tensor) -> tensor.name) tensors) in
  let rec search i = function [] -> -1 | found :: rest -> if found = name then i else search (i + 1) rest in
  let found = search 0 names in
  if found < 0 then refuse "no %s of the model is called %s: %s" kind (quoted name) (Nearest.sentence name names);
  found

(* "float32[N,64]" *)
let type_text (tensor : Model.tensor) =
  let text = Model.tensor_to_string tensor in
  let before = String.length tensor.name + 1 in
  String.sub text before (String.length text - before)

let agree (one : Model.tensor) (other : Model.tensor) =
  let fit a b = match (a, b) with Model.Fixed a, Model.Fixed b -> a = b | _ -> true in
  one.dtype = other.dtype
  && Array.length one.shape = Array.length other.shape
  && Array.for_all Fun.id (Array.map2 fit one.shape other.shape)

let check (output : Model.tensor) (input : Model.tensor) =
  if output.dtype = "string" || input.dtype = "string" then
    refuse "output %s to input %s: strings are not carried, for their size is never known beforehand" (quoted output.name)
      (quoted input.name);
  if not (agree output input) then
    refuse "output %s is %s and input %s is %s: both must have the same element type and the same dimensions"
      (quoted output.name)
      (quoted (type_text output))
      (quoted input.name)
      (quoted (type_text input))

(* Where either says how large it is, both are. *)
let pair (output : Model.tensor) (input : Model.tensor) : Model.carried =
  check output input;
  let known taken given = match (taken, given) with Model.Dynamic _, Model.Fixed _ -> given | _ -> taken in
  { input = { input with shape = Array.map2 known input.shape output.shape }; output = output.name }

let rec refuse_twice kind = function
  | name :: rest when List.mem name rest ->
      if kind = "input" then refuse "input %s is named twice: it can be the state of one output only" (quoted name)
      else refuse "output %s is named twice: it can be the state of one input only" (quoted name)
  | _ :: rest -> refuse_twice kind rest
  | [] -> ()

let carry_exn (whole : Model.t) named =
  let inputs = Array.of_list whole.inputs and outputs = Array.of_list whole.outputs in
  refuse_twice "input" (List.map snd named);
  refuse_twice "output" (List.map fst named);
  let numbers (output, input) =
    let output = index "output" outputs output in
    (index "input" inputs input, output)
  in
  let found = List.sort compare (List.map numbers named) in
  let left tensors is_carried = List.filteri (fun i _ -> not (List.exists (is_carried i) found)) tensors in
  let visible =
    {
      whole with
      inputs = left whole.inputs (fun i (input, _) -> i = input);
      outputs = left whole.outputs (fun i (_, output) -> i = output);
      carried = List.map (fun (input, output) -> pair outputs.(output) inputs.(input)) found;
    }
  in
  let first_output = Array.length inputs in
  { whole; visible; pairs = Array.of_list (List.map (fun (input, output) -> (input, first_output + output)) found) }

let carry whole named = match carry_exn whole named with carried -> Ok carried | exception Refused problem -> Error problem
