type handle

type request = {
  socket : string;
  client : string;
  model : string option;
  slots : int;
  policy : int;
  timeout_ns : int;
  dims : (string * int) array;
  text_bytes : int;
  high_priority : bool;
}

type tensor_info = {
  tensor_name : string;
  dtype_name : string;
  is_output : bool;
  dims : int array;
  dim_names : string array;
}

type batching_info = {
  policy : string;
  dim : string;
  why : string;
  most : int;
  gather_from : int;
  in_place : bool;
  shared : string array;
}

type model_info = {
  model_name : string;
  engine : string;
  state : string;
  problem : string;
  fingerprint : int64;
  max_slots : int;
  tensors : tensor_info array;
  carried : (string * tensor_info) array;
  batching : batching_info option;
}

type place = {
  dynamic : bool;
  offset : int;
  stride : int;
  max_dims : int array;
  text_bytes : int;
}

type layout = {
  segment : Unix.file_descr;
  segment_bytes : int;
  slot_count : int;
  places : place array;
}

external describe : request -> (model_info array, int * string) result = "sidecaml_ml_describe"
external open_channel : request -> (handle * model_info * layout, int * string) result = "sidecaml_ml_open"

external close : handle -> int = "sidecaml_ml_close"

type mapping = Mapping : ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t -> mapping

external show : handle -> mapping array -> int = "sidecaml_ml_show"

external wait : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_byte" "sidecaml_ml_wait_native"

external wait_holding : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_holding_byte" "sidecaml_ml_wait_holding_native"

external wait_any : handle -> bool -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_any_byte" "sidecaml_ml_wait_any_native"

external wait_end : handle -> bool -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_end_byte" "sidecaml_ml_wait_end_native"

external claim_wait : handle -> bool -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_claim_wait_byte" "sidecaml_ml_claim_wait_native"

external message : handle -> int -> string = "sidecaml_ml_message"

external gone : handle -> int * string = "sidecaml_ml_gone"

external is_open : handle -> bool = "sidecaml_ml_is_open" [@@noalloc]
external is_intact : handle -> bool = "sidecaml_ml_is_intact" [@@noalloc]
external closed : unit -> int = "sidecaml_ml_closed" [@@noalloc]
external taken : unit -> int = "sidecaml_ml_taken" [@@noalloc]

external claim : handle -> (int[@untagged]) = "sidecaml_ml_claim_byte" "sidecaml_ml_claim_native" [@@noalloc]

external submit : handle -> (int[@untagged]) -> (int[@untagged]) = "sidecaml_ml_submit_byte" "sidecaml_ml_submit_native"
  [@@noalloc]

external spin : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_spin_byte" "sidecaml_ml_spin_native"
  [@@noalloc]

external start : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_start_byte" "sidecaml_ml_start_native"
  [@@noalloc]

external poll : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_poll_byte" "sidecaml_ml_poll_native"
  [@@noalloc]

external release : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_release_byte" "sidecaml_ml_release_native"
  [@@noalloc]

external abandon : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_abandon_byte" "sidecaml_ml_abandon_native"
  [@@noalloc]

external claim_run : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_claim_run_byte" "sidecaml_ml_claim_run_native"
  [@@noalloc]

external submit_run : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_submit_run_byte" "sidecaml_ml_submit_run_native"
  [@@noalloc]

external ended : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_ended_byte" "sidecaml_ml_ended_native"
  [@@noalloc]

external answered : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_answered_byte" "sidecaml_ml_answered_native"
  [@@noalloc]

external release_run : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_release_run_byte" "sidecaml_ml_release_run_native"
  [@@noalloc]

external spin_any : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_spin_any_byte" "sidecaml_ml_spin_any_native"
  [@@noalloc]

external set_dims : handle -> int -> int -> int array -> int = "sidecaml_ml_set_dims" [@@noalloc]

external get_dims : handle -> int -> int -> int array -> int = "sidecaml_ml_get_dims" [@@noalloc]

external reset : handle -> int = "sidecaml_ml_reset" [@@noalloc]

external needed : handle -> int -> int -> int array -> int = "sidecaml_ml_needed" [@@noalloc]

external text_needed : handle -> int -> int = "sidecaml_ml_text_needed" [@@noalloc]

external set_stamps : handle -> bool -> int = "sidecaml_ml_set_stamps" [@@noalloc]

external stamps : handle -> int -> int array -> int = "sidecaml_ml_stamps" [@@noalloc]

type ('a, 'b) memory = ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t

external machine_has : int -> bool = "sidecaml_ml_machine_has" [@@noalloc]
external misaligned : ('a, 'b) memory -> int -> int = "sidecaml_ml_misaligned" [@@noalloc]
external make_zeros : ('a, 'b) memory -> unit = "sidecaml_ml_make_zeros"
external give_back : ('a, 'b) memory -> unit = "sidecaml_ml_give_back"
external quoted : string -> string = "sidecaml_ml_quoted"

type signature = (string * int array * string array) array

external request_dims : int -> signature -> int array array -> bool array -> string option = "sidecaml_ml_request_dims"

external now_ns : unit -> (int[@untagged]) = "sidecaml_ml_now_byte" "sidecaml_ml_now_native" [@@noalloc]
