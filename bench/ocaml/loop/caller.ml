type memory = (int, Bigarray.int8_unsigned_elt, Bigarray.c_layout) Bigarray.Array1.t

external now_ns : unit -> (int[@untagged]) = "bench_now_byte" "bench_now_native" [@@noalloc]
external touch : memory -> unit = "bench_touch" [@@noalloc]

let memory bytes = Bigarray.array1_of_genarray (Aligned.create Bigarray.int8_unsigned [| bytes |])
