open Bigarray

external allocate : ('a, 'b) kind -> int -> int array -> ('a, 'b, c_layout) Genarray.t = "bench_aligned"

let create kind dims =
  match allocate kind (kind_size_in_bytes kind) dims with
  | array -> array
  | exception Out_of_memory ->
      let dims = String.concat "," (List.map string_of_int (Array.to_list dims)) in
      Failed.fail "there is no memory for [%s] elements of %d bytes" dims (kind_size_in_bytes kind)
