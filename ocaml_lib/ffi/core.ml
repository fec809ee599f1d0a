type session
type binding

type tensor_info = {
  tensor_name : string;
  dtype_name : string;
  is_output : bool;
  dims : int array;
  dim_names : string array;
}

type ('a, 'b) array = ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t

external open_library : string -> (string * string, int * string) result = "sidecaml_ffi_open_library"
external open_session : string -> int -> (session, int * string) result = "sidecaml_ffi_open"
external close_session : session -> unit = "sidecaml_ffi_close"
external tensors : session -> tensor_info Stdlib.Array.t = "sidecaml_ffi_tensors"
external bind_nothing : session -> (binding, int * string) result = "sidecaml_ffi_bind_nothing"
external unbind : binding -> unit = "sidecaml_ffi_unbind"
external bind : binding -> int -> int Stdlib.Array.t -> ('a, 'b) array -> int = "sidecaml_ffi_bind"
external bind_anywhere : binding -> int -> int = "sidecaml_ffi_bind_anywhere"

external run_holding : binding -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ffi_run_holding_byte" "sidecaml_ffi_run_holding_native"
  [@@noalloc]

external run_releasing : binding -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ffi_run_releasing_byte" "sidecaml_ffi_run_releasing_native"

external failure : binding -> int * string = "sidecaml_ffi_failure"
external look : binding -> int = "sidecaml_ffi_look"
external lies_at : binding -> int -> ('a, 'b) array -> bool = "sidecaml_ffi_lies_at" [@@noalloc]
external check_output : binding -> int -> int -> int Stdlib.Array.t -> int = "sidecaml_ffi_check_output"
external output_dims : binding -> int -> int Stdlib.Array.t = "sidecaml_ffi_output_dims"
external copy_output : binding -> int -> ('a, 'b) array -> unit = "sidecaml_ffi_copy_output" [@@noalloc]

(* Strings: [most] is the largest number of them, the array a slot's memory with the room for text behind the table. *)

external bind_strings : binding -> int -> int Stdlib.Array.t -> most:int -> ('a, 'b) array -> int
  = "sidecaml_ffi_bind_strings"

external text_bytes : binding -> int -> int = "sidecaml_ffi_text_bytes" [@@noalloc]
external check_text : binding -> int -> int -> room:int -> int = "sidecaml_ffi_check_text"

external copy_strings : binding -> int -> int -> most:int -> ('a, 'b) array -> int = "sidecaml_ffi_copy_strings"
