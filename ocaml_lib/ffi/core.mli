(** The stubs of [c_shim/ocaml/ffi.c]. Results are 0 or the negative of an error's code. *)

type session
(** A loaded model, which channels of one process share. *)

type binding
(** A session's tensors bound to memory; it holds its session, but not the Bigarrays. *)

type tensor_info = {
  tensor_name : string;
  dtype_name : string;
  is_output : bool;
  dims : int array;  (** -1 for a dynamic one *)
  dim_names : string array;  (** [""] for a fixed one *)
}

type ('a, 'b) array = ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t

external open_library : string -> (string * string, int * string) result = "sidecaml_ffi_open_library"
(** [open_library path] is its version and path; [""] for the one that is found by itself. *)

external open_session : string -> int -> (session, int * string) result = "sidecaml_ffi_open"
(** [open_session path threads] *)

external close_session : session -> unit = "sidecaml_ffi_close"
(** Once, and no other function after it. *)

external tensors : session -> tensor_info Stdlib.Array.t = "sidecaml_ffi_tensors"
(** Inputs, then outputs: the index of each is its [tensor] below, counted from the outputs its [output]. *)

external bind_nothing : session -> (binding, int * string) result = "sidecaml_ffi_bind_nothing"

external unbind : binding -> unit = "sidecaml_ffi_unbind"
(** Once, and no other function after it. *)

external bind : binding -> int -> int Stdlib.Array.t -> ('a, 'b) array -> int = "sidecaml_ffi_bind"
(** [bind binding tensor dims array] *)

external bind_anywhere : binding -> int -> int = "sidecaml_ffi_bind_anywhere"
(** [bind_anywhere binding tensor] has the next run place an output by itself. *)

external run_holding : binding -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ffi_run_holding_byte" "sidecaml_ffi_run_holding_native"
  [@@noalloc]
(** [run_holding binding deadline_ns] keeps the runtime lock while the model runs. *)

external run_releasing : binding -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ffi_run_releasing_byte" "sidecaml_ffi_run_releasing_native"
(** The same with the lock released. *)

external failure : binding -> int * string = "sidecaml_ffi_failure"
(** Of the last call that failed. *)

external look : binding -> int = "sidecaml_ffi_look"
(** Finds where a run left the outputs: before the functions below. *)

external lies_at : binding -> int -> ('a, 'b) array -> bool = "sidecaml_ffi_lies_at" [@@noalloc]
(** [lies_at binding output array] *)

external check_output : binding -> int -> int -> int Stdlib.Array.t -> int = "sidecaml_ffi_check_output"
(** [check_output binding output tensor max_dims] *)

external output_dims : binding -> int -> int Stdlib.Array.t = "sidecaml_ffi_output_dims"
(** [output_dims binding output] *)

external copy_output : binding -> int -> ('a, 'b) array -> unit = "sidecaml_ffi_copy_output" [@@noalloc]
(** [copy_output binding output array] *)

(** {1 Strings}

    [most] is the largest number of strings, [array] a slot's memory: a table of [most + 1] offsets, and behind it the
    room for text. *)

external bind_strings : binding -> int -> int Stdlib.Array.t -> most:int -> ('a, 'b) array -> int
  = "sidecaml_ffi_bind_strings"
(** [bind_strings binding tensor dims ~most array] reads the strings that are there now: again for each run. *)

external text_bytes : binding -> int -> int = "sidecaml_ffi_text_bytes" [@@noalloc]
(** [text_bytes binding output] *)

external check_text : binding -> int -> int -> room:int -> int = "sidecaml_ffi_check_text"
(** [check_text binding output tensor ~room] *)

external copy_strings : binding -> int -> int -> most:int -> ('a, 'b) array -> int = "sidecaml_ffi_copy_strings"
(** [copy_strings binding output tensor ~most array] *)
