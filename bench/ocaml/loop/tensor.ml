open Bigarray

(* A Bigarray of any kind: the stubs go by the kind that it carries. *)
type t

external of_genarray : ('a, 'b, c_layout) Genarray.t -> t = "%identity"
external fillable : t -> bool = "bench_fillable" [@@noalloc]
external fill : t -> (int[@untagged]) -> unit = "bench_fill_byte" "bench_fill_native" [@@noalloc]
external read : t -> unit = "bench_read" [@@noalloc]
external contents : t -> string = "bench_contents"
external address : t -> int = "bench_address" [@@noalloc]

let fill_all tensors seed =
  for i = 0 to Array.length tensors - 1 do
    fill (Array.unsafe_get tensors i) seed
  done

let read_all tensors =
  for i = 0 to Array.length tensors - 1 do
    read (Array.unsafe_get tensors i)
  done

let allocate ~name ~element dims =
  match element with
  | "float32" -> of_genarray (Aligned.create Float32 dims)
  | "int64" -> of_genarray (Aligned.create Int64 dims)
  | _ -> Failed.fail "tensor %S holds %s: the benchmark knows float32 and int64" name element
