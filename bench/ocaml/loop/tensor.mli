(** The memory of a model's inputs and outputs, as the loop that measures sees it. *)

type t

external of_genarray : ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> t = "%identity"
(** [of_genarray view] is the view itself. *)

val allocate : name:string -> element:string -> int array -> t
(** [allocate ~name ~element dims] is memory in this process: see {!Aligned.create}.
    @raise Failed.Failed for an element type other than "float32" and "int64" *)

external fillable : t -> bool = "bench_fillable" [@@noalloc]
(** [fillable tensor] tells whether {!fill_all} knows its element type. *)

val fill_all : t array -> int -> unit
(** [fill_all inputs seed] writes every element of every input. *)

val read_all : t array -> unit
(** [read_all outputs] reads every cache line of every output. *)

external contents : t -> string = "bench_contents"
(** [contents tensor] is a copy of its bytes. *)

external address : t -> int = "bench_address" [@@noalloc]
(** [address tensor] is where its memory is. *)
