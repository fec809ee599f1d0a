type ('a, 'b) array = ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t

external fill : ('a, 'b) array -> string -> unit = "conformance_raw_fill"
external contents : ('a, 'b) array -> string = "conformance_raw_contents"
