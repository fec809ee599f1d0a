open Bigarray
module Dtype = Sidecaml.Dtype
module Model = Sidecaml.Model

exception Failed of string

let fail format = Printf.ksprintf (fun text -> raise (Failed text)) format

type input = { tensor : Model.tensor; array : Npy.t }

let dims_of (Npy.Npy (_, array)) = Genarray.dims array

let find what (model : Model.t) (tensors : Model.tensor list) name =
  match List.find_opt (fun (t : Model.tensor) -> t.name = name) tensors with
  | Some tensor -> tensor
  | None ->
      let known = String.concat ", " (List.map (fun (t : Model.tensor) -> t.name) tensors) in
      fail "model %S has no %s %S: its %ss are %s" model.name what name what known

let same_dims (tensor : Model.tensor) found =
  let same size = function Model.Fixed wanted -> size = wanted | Dynamic _ -> true in
  Array.length found = Array.length tensor.shape && Array.for_all2 same found tensor.shape

(* The bytes that hold it: of a tensor whose size is known. *)
let same_bytes (tensor : Model.tensor) dtype found =
  let size = function Model.Fixed size -> size | Dynamic name -> fail "input %S is packed, and dimension %S dynamic: no file is read for it" tensor.name name in
  found = [| Dtype.size_in_bytes dtype ~elements:(Array.fold_left (fun n dim -> n * size dim) 1 tensor.shape) |]

let fits (tensor : Model.tensor) (Npy.Npy (dtype, array)) =
  let found = Genarray.dims array in
  Dtype.name dtype = tensor.dtype && if Dtype.is_flat dtype then same_bytes tensor dtype found else same_dims tensor found

let array_to_string (Npy.Npy (dtype, array)) =
  let dims = Array.to_list (Array.map string_of_int (Genarray.dims array)) in
  Printf.sprintf "%s[%s]" (Dtype.name dtype) (String.concat "," dims)

let read_input (model : Model.t) (name, path) =
  let tensor = find "input" model model.inputs name in
  if tensor.dtype = "string" then fail "input %S has strings, which no .npy file is read for" name;
  match Npy.read ?expected:(Dtype.of_name tensor.dtype) path with
  | Error reason -> fail "%s" reason
  | Ok array when fits tensor array -> { tensor; array }
  | Ok array -> fail "%s holds %s, input %s cannot take it" path (array_to_string array) (Model.tensor_to_string tensor)

let inputs_of_files model files = List.map (read_input model) files

let add_dims given input =
  let found = dims_of input.array in
  let add (i, known) dim =
    match dim with
    | Model.Dynamic name when not (List.mem_assoc name given) ->
        let size = max found.(i) (Option.value (List.assoc_opt name known) ~default:0) in
        (i + 1, (name, size) :: List.remove_assoc name known)
    | _ -> (i + 1, known)
  in
  fun known -> snd (Array.fold_left add (0, known) input.tensor.shape)

let dims inputs given = given @ List.fold_left (fun known input -> add_dims given input known) [] inputs

let fill_input channel ~slot input =
  let (Npy.Npy (dtype, array)) = input.array in
  let name = input.tensor.name in
  if Array.exists (function Model.Dynamic _ -> true | Fixed _ -> false) input.tensor.shape then
    Sidecaml.set_dims ~slot channel name (Genarray.dims array);
  Genarray.blit array (Sidecaml.input ~slot channel name dtype)

(* Memory is shared with nobody who wrote to it before, and starts as zeros. *)
let fill channel ~slot inputs = List.iter (fill_input channel ~slot) inputs

let check_output model (name, _) =
  if (find "output" model model.outputs name).dtype = "string" then
    fail "output %S has strings, which no .npy file is written for" name

let check_outputs model files = List.iter (check_output model) files

type output = { name : string; dims : int array; contents : contents }
and contents = Array of Npy.t | Strings of Sidecaml.Strings.t

let contents_of channel ~slot (tensor : Model.tensor) =
  match Dtype.of_name tensor.dtype with
  | None -> fail "output %S has an element type that this program does not know: %s" tensor.name tensor.dtype
  | Some (Any String) -> Strings (Sidecaml.output_strings ~slot channel tensor.name)
  | Some (Any dtype) -> Array (Npy (dtype, Sidecaml.output ~slot channel tensor.name dtype))

let output_of channel ~slot (tensor : Model.tensor) =
  let dims = Sidecaml.output_dims ~slot channel tensor.name in
  { name = tensor.name; dims; contents = contents_of channel ~slot tensor }

let outputs channel ~slot = List.map (output_of channel ~slot) (Sidecaml.model channel).outputs
