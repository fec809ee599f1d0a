open Bigarray

(* One mapping of the whole segment. *)
type base = Base : ('a, 'b) kind * ('a, 'b, c_layout) Array1.t -> base

type t =
  | View : {
      signature : Model.tensor;
      is_output : bool;
      place : Core.place;
      dtype : ('a, 'b) Dtype.t;
      base : ('a, 'b, c_layout) Array1.t;
      (* Of each slot: [Some], made beforehand, so that a lookup allocates nothing. *)
      by_slot : ('a, 'b, c_layout) Genarray.t option array;
      strings : Strings.t option array;
      places : int array; (* of each slot, which place in memory it is *)
    }
      -> t

let map_segment (layout : Core.layout) kind =
  let found = (Unix.fstat layout.segment).st_size in
  if found < layout.segment_bytes then
    failwith (Printf.sprintf "the segment has %d bytes, its layout %d" found layout.segment_bytes);
  let elements = layout.segment_bytes / kind_size_in_bytes kind in
  array1_of_genarray (Unix.map_file layout.segment kind c_layout true [| elements |])

let same_kind : type a b c d. (a, b) kind -> (c, d) kind -> (a, b, c, d) Dtype.eq option =
 fun x y ->
  match (x, y) with
  | Float32, Float32 -> Some Equal
  | Float64, Float64 -> Some Equal
  | Int8_signed, Int8_signed -> Some Equal
  | Int8_unsigned, Int8_unsigned -> Some Equal
  | Int16_signed, Int16_signed -> Some Equal
  | Int16_unsigned, Int16_unsigned -> Some Equal
  | Int32, Int32 -> Some Equal
  | Int64, Int64 -> Some Equal
  | Complex32, Complex32 -> Some Equal
  | Complex64, Complex64 -> Some Equal
  | _ -> None

let rec base_of : type a b. base list ref -> base list -> Core.layout -> (a, b) kind -> (a, b, c_layout) Array1.t =
 fun known candidates layout kind ->
  match candidates with
  | [] ->
      let base = map_segment layout kind in
      known := Base (kind, base) :: !known;
      base
  | Base (other, base) :: rest -> (
      match same_kind other kind with Some Equal -> base | None -> base_of known rest layout kind)

(* --- One slot's array ----------------------------------------------------------------------------------------------- *)

let rec product dims axis result = if axis = Array.length dims then result else product dims (axis + 1) (result * dims.(axis))
let elements_of dims = product dims 0 1

(* Of strings the whole place, whatever the dims: text starts behind the table of the largest. *)
let flat_bytes (type a b) (dtype : (a, b) Dtype.t) (place : Core.place) dims =
  match dtype with
  | String -> Dtype.size_in_bytes dtype ~elements:(elements_of place.max_dims) + place.text_bytes
  | _ -> Dtype.size_in_bytes dtype ~elements:(elements_of dims)

let build dtype base (place : Core.place) slot dims =
  let first = (place.offset + (slot * place.stride)) / kind_size_in_bytes (Array1.kind base) in
  if Dtype.is_flat dtype then genarray_of_array1 (Array1.sub base first (flat_bytes dtype place dims))
  else reshape (genarray_of_array1 (Array1.sub base first (elements_of dims))) dims

let build_strings (type a b) name (dtype : (a, b) Dtype.t) (place : Core.place)
    (array : (a, b, c_layout) Genarray.t option) =
  match (dtype, array) with
  | String, Some array ->
      Some (Strings.make ~name (array1_of_genarray array) ~max_elements:(elements_of place.max_dims))
  | _ -> None

let over base slots is_output (signature : Model.tensor) (place : Core.place) dtype =
  let by_slot = Array.init slots (fun slot -> Some (build dtype base place slot place.max_dims)) in
  let strings = Array.map (build_strings signature.name dtype place) by_slot in
  View { signature; is_output; place; dtype; base; by_slot; strings; places = Array.init slots Fun.id }

let view_of known (layout : Core.layout) is_output (signature : Model.tensor) (place : Core.place) =
  match Dtype.of_name signature.dtype with
  | None -> failwith (Printf.sprintf "tensor %S has an unknown element type, %s" signature.name signature.dtype)
  | Some (Any dtype) ->
      over (base_of known !known layout (Dtype.kind dtype)) layout.slot_count is_output signature place dtype

let of_layout (model : Model.t) (layout : Core.layout) =
  let known = ref [] in
  let inputs = List.length model.inputs in
  let signature = Array.of_list (model.inputs @ model.outputs) in
  Array.mapi (fun i place -> view_of known layout (i >= inputs) signature.(i) place) layout.places

(* --- In memory of its own ----------------------------------------------------------------------------------------- *)

let round_up bytes = (bytes + Abi.tensor_align - 1) / Abi.tensor_align * Abi.tensor_align

(* The collector is told of the memory where the Bigarray allocates it itself, with room to start where it should. *)
let aligned dtype bytes =
  if not (Core.machine_has bytes) then raise Out_of_memory;
  let kind = Dtype.kind dtype in
  let element = kind_size_in_bytes kind in
  let memory = Array1.create kind c_layout ((bytes + Abi.page_bytes) / element) in
  let base = Array1.sub memory (Core.misaligned memory bytes / element) (bytes / element) in
  Core.make_zeros base;
  base

let is_dynamic_shape = Array.exists (function Model.Dynamic _ -> true | Fixed _ -> false)

let allocate ~slots ~is_output (signature : Model.tensor) (Dtype.Any dtype) ~max_dims ~text_bytes =
  let size = Dtype.size_in_bytes dtype ~elements:(elements_of max_dims) + text_bytes in
  let stride = round_up size in
  let place : Core.place = { dynamic = is_dynamic_shape signature.shape; offset = 0; stride; max_dims; text_bytes } in
  over (aligned dtype (slots * stride)) slots is_output signature place dtype

let remap (View v) ~is_output (signature : Model.tensor) places =
  let place = { v.place with dynamic = is_dynamic_shape signature.shape } in
  let by_slot = Array.map (fun memory -> Some (build v.dtype v.base place memory place.max_dims)) places in
  let strings = Array.map (build_strings signature.name v.dtype place) by_slot in
  View { v with signature; is_output; place; by_slot; strings; places }

let clear (View v) = Core.give_back v.base

(* --- Taken over by another segment ---------------------------------------------------------------------------------- *)

(* One for each kind, as many as there are mappings. *)
let mappings views =
  let add found (View v) =
    let kind = Array1.kind v.base in
    let is_known (Core.Mapping base) = Option.is_some (same_kind (Array1.kind base) kind) in
    if List.exists is_known found then found else Core.Mapping v.base :: found
  in
  Array.of_list (Array.fold_left add [] views)

let same_layout (View a) (View b) =
  Option.is_some (Dtype.equal a.dtype b.dtype)
  && a.place = b.place && a.is_output = b.is_output
  && Array1.size_in_bytes a.base = Array1.size_in_bytes b.base

(* --- Looking ------------------------------------------------------------------------------------------------------ *)

let name (View v) = v.signature.name
let is_output (View v) = v.is_output
let is_dynamic (View v) = v.place.dynamic
let max_dims (View v) = v.place.max_dims
let text_bytes (View v) = v.place.text_bytes
let signature (View v) = v.signature
let rank (View v) = if Dtype.is_flat v.dtype then 1 else Array.length v.place.max_dims
let is_strings (View v) = match v.dtype with String -> true | _ -> false
let is_fixed (View v) axis = match v.signature.shape.(axis) with Model.Fixed _ -> true | Dynamic _ -> false
let to_string (View v) = Model.tensor_to_string v.signature
let constructor (View v) = String.capitalize_ascii (Dtype.name v.dtype)

let rec same_from array dims axis =
  axis = Array.length dims || (Genarray.nth_dim array axis = dims.(axis) && same_from array dims (axis + 1))

let is_current dtype place array dims =
  if Dtype.is_flat dtype then Genarray.nth_dim array 0 = flat_bytes dtype place dims else same_from array dims 0

let current (View v) slot dims =
  match v.by_slot.(slot) with
  | Some array when is_current v.dtype v.place array dims -> ()
  | _ -> v.by_slot.(slot) <- Some (build v.dtype v.base v.place v.places.(slot) dims)

type any = Array : ('a, 'b, c_layout) Genarray.t -> any

let array (View v as view) ~slot ~dims =
  if v.place.dynamic then current view slot dims;
  Array (Option.get v.by_slot.(slot))

let get (type a b) (View v as view) ~slot ~dims (dtype : (a, b) Dtype.t) : (a, b, c_layout) Genarray.t option =
  match Dtype.equal v.dtype dtype with
  | None -> None
  | Some Equal ->
      if v.place.dynamic then current view slot dims;
      v.by_slot.(slot)

let strings (View v) ~slot ~dims =
  let found = v.strings.(slot) in
  (match found with Some strings -> Strings.set_length strings (elements_of dims) | None -> ());
  found

(* --- Copying -------------------------------------------------------------------------------------------------------- *)

let copy from t ~slot ~dims =
  match (strings from ~slot ~dims, strings t ~slot ~dims) with
  | Some from, Some t -> Strings.copy from t
  | _ -> (
      let (View f) = from in
      match get t ~slot ~dims f.dtype with
      | Some target ->
          current from slot dims;
          Genarray.blit (Option.get f.by_slot.(slot)) target
      | None -> invalid_arg "Sidecaml.View.copy: another element type")
