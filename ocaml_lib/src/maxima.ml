let largest_dim = 1 lsl 40
let largest_bytes = 1 lsl 47

let rejected code format = Printf.ksprintf (fun message -> Error (Error.Rejected { code; message })) format
let bad_dims format = rejected Error.Bad_dims format
let quoted = Nearest.quoted

let check_maximum names (name, most) =
  if not (List.mem name names) then
    bad_dims "no dimension of the model is called %s: %s" (quoted name) (Nearest.sentence name names)
  else if most < 1 || most > largest_dim then
    bad_dims "dimension %s: expected a maximum from 1 to %d, got %d" (quoted name) largest_dim most
  else Ok ()

let rec first_error check = function
  | [] -> Ok ()
  | item :: rest -> ( match check item with Ok () -> first_error check rest | Error _ as e -> e)

let listed names = String.concat ", " (List.map quoted names)

(* Of which dimensions without maximum nobody may know one. *)
let advice (model : Model.t) missing =
  let asked = model.inputs @ List.map (fun (carried : Model.carried) -> carried.input) model.carried in
  let is_known name = List.exists (fun (tensor : Model.tensor) -> Array.mem (Model.Dynamic name) tensor.shape) asked in
  match List.filter (fun name -> not (is_known name)) missing with
  | [] -> ""
  | guessed ->
      Printf.sprintf "; only outputs have %s: a small guess will do where the client grows (OCaml's run_growing)"
        (listed guessed)

let check_all_given model names dims =
  match List.filter (fun name -> not (List.mem_assoc name dims)) names with
  | [] -> Ok ()
  | missing ->
      bad_dims "dimension %s of the model is dynamic: give its maximum in `dims` at open%s" (listed missing)
        (advice model missing)

let check model dims =
  match (Model.dynamic_dims model, dims) with
  | [], (name, _) :: _ -> bad_dims "the model has no dynamic dimension: `dims` must be empty, got %s" (quoted name)
  | names, _ -> (
      match first_error (check_maximum names) dims with Ok () -> check_all_given model names dims | Error _ as e -> e)

let maximum dims = function Model.Fixed size -> size | Model.Dynamic name -> List.assoc name dims

let bind (model : Model.t) dims =
  let of_tensor (tensor : Model.tensor) = Array.map (maximum dims) tensor.shape in
  Result.map (fun () -> List.map of_tensor (model.inputs @ model.outputs)) (check model dims)

(* Saturates, so that no product wraps. *)
let product a b = if a = 0 || b <= largest_bytes / a then a * b else largest_bytes

let elements = Array.fold_left product 1

(* The daemon's defaults. *)
let text_bytes_per_element = 64
let least_text_bytes = 4096

let text_bytes (tensor : Model.tensor) max_dims given =
  match (Dtype.of_name tensor.dtype, given) with
  | Some (Any String), Some bytes -> min largest_bytes bytes
  | Some (Any String), None -> max least_text_bytes (product text_bytes_per_element (elements max_dims))
  | _ -> 0

let tensor_bytes (tensor : Model.tensor) max_dims given =
  let elements = elements max_dims in
  let size = match Dtype.of_name tensor.dtype with Some (Any dtype) -> Dtype.size_in_bytes dtype ~elements | None -> elements in
  min largest_bytes (size + text_bytes tensor max_dims given)

let places_of_state = 2

let bytes ~slots ~dims ~text_bytes (model : Model.t) max_dims =
  let add places sum tensor dims = min largest_bytes (sum + product places (tensor_bytes tensor dims text_bytes)) in
  let seen = List.fold_left2 (add slots) 0 (model.inputs @ model.outputs) max_dims in
  let of_state sum (carried : Model.carried) =
    add places_of_state sum carried.input (Array.map (maximum dims) carried.input.shape)
  in
  let sum = List.fold_left of_state seen model.carried in
  if sum < largest_bytes then Ok sum
  else
    rejected Error.No_memory "model %s with %d slots needs more memory than there is: ask for fewer slots or smaller dims"
      (quoted model.name) slots
