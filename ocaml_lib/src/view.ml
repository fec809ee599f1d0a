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
      by_slot : ('a, 'b, c_layout) Genarray.t array;
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

let build dtype base (place : Core.place) slot dims =
  let bytes = Dtype.bytes dtype in
  let offset = (place.offset + (slot * place.stride)) / bytes in
  let elements = Array.fold_left ( * ) 1 dims in
  reshape (genarray_of_array1 (Array1.sub base offset elements)) dims

let over base slots is_output signature (place : Core.place) dtype =
  let by_slot = Array.init slots (fun slot -> build dtype base place slot place.max_dims) in
  View { signature; is_output; place; dtype; base; by_slot; places = Array.init slots Fun.id }

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

let stride_of dtype max_dims = round_up (Array.fold_left ( * ) (Dtype.bytes dtype) max_dims)

(* The collector is told of the memory where the Bigarray allocates it itself, with room to start where it should. *)
let aligned dtype bytes =
  if not (Core.machine_has bytes) then raise Out_of_memory;
  let element = Dtype.bytes dtype in
  let memory = Array1.create (Dtype.kind dtype) c_layout ((bytes + Abi.page_bytes) / element) in
  let base = Array1.sub memory (Core.misaligned memory bytes / element) (bytes / element) in
  Core.make_zeros base;
  base

let is_dynamic_shape = Array.exists (function Model.Dynamic _ -> true | Fixed _ -> false)

let allocate ~slots ~is_output (signature : Model.tensor) (Dtype.Any dtype) ~max_dims =
  let stride = stride_of dtype max_dims in
  let place : Core.place = { dynamic = is_dynamic_shape signature.shape; offset = 0; stride; max_dims } in
  over (aligned dtype (slots * stride)) slots is_output signature place dtype

let remap (View v) ~is_output (signature : Model.tensor) places =
  let place = { v.place with dynamic = is_dynamic_shape signature.shape } in
  let by_slot = Array.map (fun memory -> build v.dtype v.base place memory place.max_dims) places in
  View { v with signature; is_output; place; by_slot; places }

let clear (View v) = Core.give_back v.base

(* --- Looking ------------------------------------------------------------------------------------------------------ *)

let name (View v) = v.signature.name
let is_output (View v) = v.is_output
let is_dynamic (View v) = v.place.dynamic
let max_dims (View v) = v.place.max_dims
let fixed_dim (View v) axis = match v.signature.shape.(axis) with Model.Fixed size -> Some size | Dynamic _ -> None
let to_string (View v) = Model.tensor_to_string v.signature
let constructor (View v) = String.capitalize_ascii (Dtype.name v.dtype)

let current (View v) slot dims =
  if Genarray.dims v.by_slot.(slot) <> dims then v.by_slot.(slot) <- build v.dtype v.base v.place v.places.(slot) dims

type any = Array : ('a, 'b, c_layout) Genarray.t -> any

let array (View v as view) ~slot ~dims =
  if v.place.dynamic then current view slot dims;
  Array v.by_slot.(slot)

let get (type a b) (View v as view) ~slot ~dims (dtype : (a, b) Dtype.t) : (a, b, c_layout) Genarray.t option =
  match Dtype.equal v.dtype dtype with
  | None -> None
  | Some Equal ->
      if v.place.dynamic then current view slot dims;
      Some v.by_slot.(slot)
