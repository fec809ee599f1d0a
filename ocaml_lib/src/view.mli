(** A channel's tensors as Bigarrays over the segment.

    The collector owns the mappings, one for each Bigarray kind that a model uses, and unmaps one when the last view of
    it is gone. *)

type t
(** One tensor, in every slot. Not for use by two threads at once. *)

val of_layout : Model.t -> Core.layout -> t array
(** [of_layout model layout] maps the segment and builds the view of every tensor in every slot, inputs first.
    @raise Unix.Unix_error when the segment cannot be mapped
    @raise Failure when it is shorter than its layout, which mapping would "repair" by growing it *)

val allocate :
  slots:int -> is_output:bool -> Model.tensor -> Dtype.any -> max_dims:int array -> text_bytes:int -> t
(** [allocate ~slots ~is_output signature dtype ~max_dims ~text_bytes] is a tensor in zeroed memory of its own, with room for
    [max_dims] in every slot, and for text behind a table of strings; the sizes are known to fit an [int].
    @raise Out_of_memory *)

val remap : t -> is_output:bool -> Model.tensor -> int array -> t
(** [remap view ~is_output signature places] is a tensor of that signature in the memory of [view]: slot [i] is the place
    of that one's slot [places.(i)]. *)

val mappings : t array -> Core.mapping array
(** [mappings views] are those that one channel's views lie in. *)

val same_layout : t -> t -> bool
(** [same_layout a b]: whether their tensors are of one type and lie at the same place in segments of one size. *)

val clear : t -> unit
(** [clear view] makes every slot of one that was allocated zeros, and gives its memory back. *)

val name : t -> string
val is_output : t -> bool
val is_dynamic : t -> bool
val max_dims : t -> int array

val rank : t -> int
(** [rank view] is the number of dimensions of its arrays: 1 of what is flat, whatever the tensor's. *)

val signature : t -> Model.tensor

val text_bytes : t -> int
(** [text_bytes view] is the room for one slot's text; 0 of what is no tensor of strings. *)

val is_strings : t -> bool

val is_fixed : t -> int -> bool
(** [is_fixed view axis]: whether a dimension is always [(max_dims view).(axis)]. *)

val to_string : t -> string
(** [to_string view] is name, element type and signature's shape. *)

val constructor : t -> string
(** [constructor view] is the name of its element type's constructor, such as [Float32]. *)

type any = Array : ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> any

val array : t -> slot:int -> dims:int array -> any
(** [array view ~slot ~dims] is {!get} without a look at the element type. *)

val get :
  t -> slot:int -> dims:int array -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t option
(** [get view ~slot ~dims dtype] is the tensor in its current dims, which lie within [max_dims view]: the array built
    before, without an allocation, while they stay the same. [None] when it has another element type. *)

val strings : t -> slot:int -> dims:int array -> Strings.t option
(** [strings view ~slot ~dims] is the same of a tensor of strings, which no lookup allocates; [None] of another. *)

val copy : t -> t -> slot:int -> dims:int array -> unit
(** [copy from view ~slot ~dims] copies contents of these dims between views of one signature. *)
