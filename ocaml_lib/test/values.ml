(* Errors, element types and models as values. *)

open Check
module Dtype = Sidecaml.Dtype
module Model = Sidecaml.Model

(* The codes of a request that is still under way, which nobody outside the library gets to see, and what a number and a
   message alone cannot tell. *)
let is_internal name = List.mem name [ "PENDING"; "AGAIN"; "CIRCUIT_OPEN" ]

let every_number_of_the_table_has_a_name () =
  for n = 1 to 200 do
    match Error.of_number n ~message:"" with
    | Rejected { code = Other m; _ } ->
        let name = Error.code_name (Other m) in
        if not (is_internal name) then Alcotest.(check string) "a number beyond the table" (Printf.sprintf "code %d" n) name
    | _ -> ()
  done;
  List.iter
    (fun code -> if contains (Error.code_name code) "code" then Alcotest.fail "a code without a name")
    Error.all_codes

let messages_tell () =
  mentions "timeout" (Error.to_string Timeout) [ "TIMEOUT"; "deadline" ];
  mentions "full" (Error.to_string Full) [ "FULL"; "release" ];
  mentions "busy" (Error.to_string Busy) [ "BUSY"; "timed out" ];
  mentions "gone" (Error.to_string Server_gone) [ "SERVER_GONE"; "open again" ];
  mentions "crashed" (Error.to_string Worker_crashed) [ "WORKER_CRASHED"; "died" ];
  let refused = Error.Circuit_open { since_ns = 5_000_000_000; until_ns = 6_500_000_000; failures = 3; last = Server_gone } in
  mentions "circuit" (Error.to_string refused) [ "CIRCUIT_OPEN: 3 calls"; "from 5.000 s to 6.500 s"; "SERVER_GONE" ];
  let unknown = Error.of_number 20 ~message:"no model \"x\"" in
  Alcotest.(check string) "rejected" "UNKNOWN_MODEL: no model \"x\"" (Error.to_string unknown);
  mentions "printer" (Printexc.to_string (Error.Error unknown)) [ "Sidecaml.Error.Error"; "no model" ]

let dtypes_are_told_apart () =
  List.iter
    (fun (Dtype.Any a) ->
      List.iter
        (fun (Dtype.Any b) ->
          let equal = Option.is_some (Dtype.equal a b) in
          Alcotest.(check bool) (Dtype.name a ^ " and " ^ Dtype.name b) (Dtype.name a = Dtype.name b) equal)
        Dtype.all)
    Dtype.all

let names_lead_back () =
  List.iter
    (fun (Dtype.Any dtype) ->
      match Dtype.of_name (Dtype.name dtype) with
      | Some (Any found) -> Alcotest.(check string) "name" (Dtype.name dtype) (Dtype.name found)
      | None -> Alcotest.failf "%s is not found" (Dtype.name dtype))
    Dtype.all;
  Alcotest.(check bool) "unknown" true (Dtype.of_name "complex256" = None)

let sizes_are_of_bits () =
  let check what wanted dtype elements = Alcotest.(check int) what wanted (Dtype.size_in_bytes dtype ~elements) in
  check "float32" 12 Float32 3;
  check "complex128" 48 Complex128 3;
  check "float8e8m0" 3 Float8e8m0 3;
  List.iter (fun (n, bytes) -> check (Printf.sprintf "%d of 4 bits" n) bytes Int4 n) [ (0, 0); (1, 1); (2, 1); (3, 2); (9, 5) ];
  List.iter (fun (n, bytes) -> check (Printf.sprintf "%d of 2 bits" n) bytes Uint2 n) [ (0, 0); (1, 1); (4, 1); (5, 2); (9, 3) ];
  check "no product that wraps" ((1 lsl 60) + 1) Float4e2m1 ((1 lsl 61) + 1);
  check "a table of strings" 32 String 3;
  let bits = List.map (fun (Dtype.Any dtype) -> Dtype.bits dtype) Dtype.all in
  Alcotest.(check (list int)) "bits" [ 32; 64; 16; 16; 8; 16; 32; 64; 8; 16; 32; 64; 8; 64; 128; 8; 8; 8; 8; 8; 4; 4; 4; 2; 2; 0 ] bits

let model : Model.t =
  {
    name = "m";
    engine = "onnx";
    state = Ready;
    fingerprint = 7L;
    max_slots = 4;
    inputs = [ { name = "x"; dtype = "float32"; shape = [| Dynamic "N"; Fixed 64; Dynamic "M" |] } ];
    outputs = [ { name = "y"; dtype = "bool"; shape = [||] }; { name = "z"; dtype = "int8"; shape = [| Dynamic "N" |] } ];
    carried = [ { input = { name = "h"; dtype = "float32"; shape = [| Dynamic "M"; Dynamic "K" |] }; output = "g" } ];
    batching = None;
  }

let models_print_well () =
  Alcotest.(check (list string)) "dynamic dims" [ "N"; "M"; "K" ] (Model.dynamic_dims model);
  Alcotest.(check string)
    "printed" "m (onnx, ready, up to 4 slots)\n  input  x float32[N,64,M]\n  output y bool[]\n  output z int8[N]\n  state  h float32[M,K] from g"
    (Format.asprintf "%a" Model.pp model);
  let broken = { model with state = Failed "no such file"; inputs = []; outputs = []; carried = [] } in
  Alcotest.(check string) "failed" "m (onnx, failed: no such file)" (Format.asprintf "%a" Model.pp broken);
  let single = { broken with state = Ready; max_slots = 1 } in
  Alcotest.(check string) "one slot" "m (onnx, ready, up to 1 slot)" (Format.asprintf "%a" Model.pp single)

let tests =
  [
    ( "values",
      [
        case "every number of the error table has a name" every_number_of_the_table_has_a_name;
        case "messages tell what happened and what to do" messages_tell;
        case "element types are told apart" dtypes_are_told_apart;
        case "an element type's name leads back to it" names_lead_back;
        case "sizes are of bits" sizes_are_of_bits;
        case "a model prints as people write it" models_print_well;
      ] );
  ]
