(* Tensors as Bigarrays: every element type, every rank, dimensions that change. *)

open Bigarray
open Check
module Dtype = Sidecaml.Dtype
module Convert = Sidecaml.Convert

let complex (re, im) : Complex.t = { re; im }

(* Values at the edges of each type, as bits where the carrier holds bits. *)
let samples : type a b. (a, b) Dtype.t -> a list = function
  | Float32 -> [ 0.; -0.; 1.5; infinity; neg_infinity; nan ]
  | Float64 -> [ 0.; -0.; 1e300; infinity; neg_infinity; nan ]
  | Float16 -> [ 0; 0x8000; 0x3c00; 0x7c00; 0x7e00; 0x0001 ]
  | Bfloat16 -> [ 0; 0x8000; 0x3f80; 0x7f80; 0x7fc0; 0x0001 ]
  | Int8 -> [ 0; 1; -1; 127; -128; 42 ]
  | Int16 -> [ 0; 1; -1; 32767; -32768; 42 ]
  | Int32 -> [ 0l; 1l; -1l; Int32.max_int; Int32.min_int; 42l ]
  | Int64 -> [ 0L; 1L; -1L; Int64.max_int; Int64.min_int; 42L ]
  | Uint8 -> [ 0; 1; 2; 127; 128; 255 ]
  | Uint16 -> [ 0; 1; 2; 32767; 32768; 65535 ]
  | Uint32 -> [ 0l; 1l; -1l; Int32.max_int; Int32.min_int; 42l ]
  | Uint64 -> [ 0L; 1L; -1L; Int64.max_int; Int64.min_int; 42L ]
  | Bool -> [ 0; 1; 1; 0; 0; 1 ]
  | Complex64 -> List.map complex [ (0., -0.); (1.5, 2.); (infinity, neg_infinity); (nan, 1.); (1., nan); (-3., 0.) ]
  | Complex128 -> List.map complex [ (0., -0.); (1e300, 2.); (infinity, neg_infinity); (nan, 1.); (1., nan); (-3., 0.) ]
  | Float8e4m3fn -> [ 0; 0x80; 0x38; 0x7e; 0x7f; 0x01 ]
  | Float8e4m3fnuz -> [ 0; 0x80; 0x38; 0x7f; 0xff; 0x01 ]
  | Float8e5m2 -> [ 0; 0x80; 0x3c; 0x7c; 0x7e; 0x01 ]
  | Float8e5m2fnuz -> [ 0; 0x80; 0x3c; 0x7f; 0xff; 0x01 ]
  | Float8e8m0 -> [ 0; 1; 127; 128; 254; 255 ]
  (* The bytes that hold six numbers. *)
  | Float4e2m1 -> [ 0x21; 0x43; 0xf7 ]
  | Int4 -> [ 0x87; 0x10; 0xfe ]
  | Uint4 -> [ 0x0f; 0x21; 0xf0 ]
  | Int2 -> [ 0xe4; 0x09 ]
  | Uint2 -> [ 0x1b; 0x0e ]
  | String -> []

module Make (B : Backends.S) = struct
  open Over (B)

  let flat array dtype =
    let wanted = if Dtype.is_flat dtype then [| Dtype.size_in_bytes dtype ~elements:6 |] else [| 2; 3 |] in
    Alcotest.(check (array int)) (Dtype.name dtype) wanted (Genarray.dims array);
    reshape_1 array (Array.fold_left ( * ) 1 wanted)

  let fill m (Dtype.Any dtype) =
    let x = flat (Sidecaml.input m ("x_" ^ Dtype.name dtype) dtype) dtype in
    List.iteri (fun i value -> x.{i} <- value) (samples dtype)

  let compare_answer m (Dtype.Any dtype) =
    let y = flat (Sidecaml.output m ("y_" ^ Dtype.name dtype) dtype) dtype in
    List.iteri
      (fun i value ->
        (* [compare], for nan is equal to itself there *)
        if compare y.{i} value <> 0 then Alcotest.failf "%s: element %d differs" (Dtype.name dtype) i)
      (samples dtype)

  (* Of those that the model has: ONNX Runtime hands not every type through. *)
  let types_of m =
    let type_of (tensor : Sidecaml.Model.tensor) = Option.get (Dtype.of_name tensor.dtype) in
    List.map type_of (Sidecaml.model m).inputs

  let types_go_through model ~least =
    with_model model @@ fun m ->
    let types = types_of m in
    if List.length types < least then Alcotest.failf "only %d types" (List.length types);
    List.iter (fill m) types;
    ok "run" (Sidecaml.run m);
    List.iter (compare_answer m) types

  let every_element_type_goes_through () = types_go_through "every_type" ~least:17

  (* Complex ones and float8e8m0, too: ONNX Runtime has no Identity for them. *)
  let every_type_of_numpy_goes_through () = types_go_through "through_numpy" ~least:20

  let packed_types_are_flat () =
    with_model ~dims:[ ("N", 5) ] "packed" @@ fun m ->
    let rows n =
      Sidecaml.set_dims m "x" [| n; 3 |];
      Sidecaml.set_dims m "small" [| n; 3 |];
      let numbers = Array1.init Int8_signed c_layout (3 * n) (fun i -> (i mod 16) - 8) in
      let x = Sidecaml.input1 m "x" Int4 and small = Sidecaml.input2 m "small" Int8 in
      Alcotest.(check int) "bytes" (((3 * n) + 1) / 2) (Array1.dim x);
      Convert.pack Int4 (genarray_of_array1 numbers) (genarray_of_array1 x);
      Genarray.blit (reshape (genarray_of_array1 numbers) [| n; 3 |]) (genarray_of_array2 small);
      ok "run" (Sidecaml.run m);
      Alcotest.(check (array int)) "dims out" [| n; 3 |] (Sidecaml.output_dims m "y");
      let y = Sidecaml.output2 m "y" Int8 in
      if genarray_of_array2 y <> genarray_of_array2 small then Alcotest.fail "other numbers came out";
      if Sidecaml.output1 m "again" Int4 <> x then Alcotest.fail "other bytes came out"
    in
    List.iter rows [ 5; 1; 2; 3; 5 ];
    misuse "rank" (fun () -> Sidecaml.input2 m "x" Int4) [ "x int4[N,3]"; "the bytes that hold it"; "use input1" ];
    misuse "direction" (fun () -> Sidecaml.output1 m "x" Int4) [ "use input1" ]

  (* A scalar, no row at all, and parts of a view filled from parts of other arrays. *)
  let every_shape_can_be_filled () =
    with_model ~dims:[ ("N", 8) ] "same_rows" @@ fun m ->
    let run n =
      Sidecaml.set_dims m "a" [| n; 2 |];
      Sidecaml.set_dims m "b" [| n; 2 |]
    in
    run 0;
    Alcotest.(check int) "no element" 0 (Array2.dim1 (Sidecaml.input2 m "a" Float32));
    ok "run" (Sidecaml.run m);
    Alcotest.(check (array int)) "no rows" [| 0; 2 |] (Sidecaml.output_dims m "y");
    Alcotest.(check int) "no row" 0 (Array2.dim1 (Sidecaml.output2 m "y" Float32));
    run 4;
    let a = Sidecaml.input2 m "a" Float32 and b = Sidecaml.input2 m "b" Float32 in
    let source = Array1.init Float32 c_layout 32 float_of_int in
    Array2.fill a 0.;
    Array2.blit (Array2.sub_left (reshape_2 (genarray_of_array1 source) 16 2) 5 2) (Array2.sub_left a 1 2);
    for row = 0 to 3 do
      Array1.blit (Array1.sub source (3 * row) 2) (Array2.slice_left b row)
    done;
    (* a column of the view, which is no Bigarray of its own *)
    for row = 0 to 3 do
      a.{row, 1} <- 100. +. source.{row}
    done;
    ok "run" (Sidecaml.run m);
    let y = Sidecaml.output2 m "y" Float32 in
    let wanted = [ [ 0.; 101. ]; [ 13.; 105. ]; [ 18.; 109. ]; [ 9.; 113. ] ] in
    let found = List.init 4 (fun row -> List.init 2 (fun column -> y.{row, column})) in
    Alcotest.(check (list (list (float 0.)))) "sums" wanted found

  let every_rank_goes_through () =
    with_model "every_rank" @@ fun m ->
    Array0.set (Sidecaml.input0 m "x0" Float64) 3.;
    Array1.fill (Sidecaml.input1 m "x1" Float64) 4.;
    Array2.fill (Sidecaml.input2 m "x2" Float64) 5.;
    Array3.fill (Sidecaml.input3 m "x3" Float64) 6.;
    Genarray.fill (Sidecaml.input m "x4" Float64) 7.;
    ok "run" (Sidecaml.run m);
    let check what = Alcotest.(check (float 0.)) what in
    check "rank 0" 3. (Array0.get (Sidecaml.output0 m "y0" Float64));
    check "rank 1" 4. (Sidecaml.output1 m "y1" Float64).{1};
    check "rank 2" 5. (Sidecaml.output2 m "y2" Float64).{1, 1};
    check "rank 3" 6. (Sidecaml.output3 m "y3" Float64).{1, 1, 1};
    check "rank 4" 7. (Genarray.get (Sidecaml.output m "y4" Float64) [| 1; 1; 1; 1 |]);
    Alcotest.(check (array int)) "dims" [| 2; 2; 2; 2 |] (Genarray.dims (Sidecaml.output m "y4" Float64))

  let wrong_requests_are_explained () =
    with_model "digits" @@ fun m ->
    misuse "type" (fun () -> Sidecaml.input2 m "image" Int32) [ "digits"; "image float32[1,64]"; "int32"; "input2"; ": use Float32" ];
    misuse "name" (fun () -> Sidecaml.input2 m "imag" Float32) [ "no input \"imag\""; "did you mean \"image\"" ];
    misuse "a far name" (fun () -> Sidecaml.input2 m "question" Float32) [ "no input"; "there is \"image\"" ];
    misuse "direction" (fun () -> Sidecaml.input2 m "scores" Float32) [ "\"scores\" is an output: use output2" ];
    misuse "rank" (fun () -> Sidecaml.output1 m "scores" Float32) [ "2 dimensions"; "use output2" ];
    misuse "slot" (fun () -> Sidecaml.input2 ~slot:1 m "image" Float32) [ "no slot 1" ];
    misuse "negative slot" (fun () -> Sidecaml.input2 ~slot:(-1) m "image" Float32) [ "no slot -1" ];
    with_model "every_rank" @@ fun m ->
    misuse "high rank" (fun () -> Sidecaml.input3 m "x4" Float64) [ "4 dimensions"; "use input" ];
    with_model "every_type" @@ fun m ->
    misuse "same carrier" (fun () -> Sidecaml.input2 m "x_float16" Uint16) [ "x_float16 float16[2,3]"; "uint16"; ": use Float16" ]

  let views_are_built_once () =
    with_model "digits" @@ fun m ->
    let one = Sidecaml.input2 m "image" Float32 and other = Sidecaml.input2 m "image" Float32 in
    Alcotest.(check bool) "the same array" true (one == other)

  let slots_do_not_overlap () =
    with_model ~slots:3 "digits" @@ fun m ->
    let view slot = Sidecaml.input2 ~slot m "image" Float32 in
    List.iter (fun slot -> Array2.fill (view slot) (float_of_int slot)) [ 0; 1; 2 ];
    List.iter
      (fun slot ->
        Alcotest.(check (float 0.)) "first" (float_of_int slot) (view slot).{0, 0};
        Alcotest.(check (float 0.)) "last" (float_of_int slot) (view slot).{0, 63})
      [ 0; 1; 2 ]

  let dims_change_from_call_to_call () =
    with_model ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun m ->
    Alcotest.(check (array int)) "largest at first" [| 8; 64 |] (Sidecaml.input_dims m "x");
    let rows n =
      Sidecaml.set_dims m "x" [| n; 64 |];
      let x = Sidecaml.input2 m "x" Float32 in
      Alcotest.(check int) "rows in" n (Array2.dim1 x);
      for i = 0 to n - 1 do
        Array1.fill (Array2.slice_left x i) (float_of_int (i + 1))
      done;
      ok "run" (Sidecaml.run m);
      Alcotest.(check (array int)) "dims out" [| n; 10 |] (Sidecaml.output_dims m "y");
      let y = Sidecaml.output2 m "y" Float32 in
      Alcotest.(check int) "rows out" n (Array2.dim1 y);
      if n > 0 then y.{0, 0} else 0.
    in
    let first = rows 1 in
    List.iter (fun n -> Alcotest.(check (float 1e-4)) "the first row's answer" first (rows n)) [ 8; 3; 1; 5; 8 ]

  let dims_that_do_not_fit_are_explained () =
    with_model ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun m ->
    misuse "too large" (fun () -> Sidecaml.set_dims m "x" [| 9; 64 |]) [ "[8,64]"; "[9,64]"; "larger dims" ];
    misuse "rank" (fun () -> Sidecaml.set_dims m "x" [| 8 |]) [ "2 dimensions"; "1" ];
    misuse "fixed" (fun () -> Sidecaml.set_dims m "x" [| 8; 63 |]) [ "dimension 1 (counted from 0) is always 64"; "63" ];
    misuse "negative" (fun () -> Sidecaml.set_dims m "x" [| -1; 64 |]) [ "-1" ];
    misuse "an output" (fun () -> Sidecaml.set_dims m "y" [| 8; 10 |]) [ "\"y\" is an output: the model gives its dimensions" ];
    misuse "an output's dims" (fun () -> ignore (Sidecaml.input_dims m "y")) [ "\"y\" is an output: use output_dims" ];
    misuse "many" (fun () -> Sidecaml.set_dims m "x" (Array.make 99 1)) [ "99" ];
    with_model "digits" @@ fun m ->
    Sidecaml.set_dims m "image" [| 1; 64 |];
    misuse "static" (fun () -> Sidecaml.set_dims m "image" [| 2; 64 |]) [ "always 1" ]

  let inputs_must_agree_on_a_dimension () =
    with_model ~dims:[ ("N", 8) ] "same_rows" @@ fun m ->
    Sidecaml.set_dims m "a" [| 2; 2 |];
    Sidecaml.set_dims m "b" [| 3; 2 |];
    rejected "run" (Sidecaml.run m) Bad_dims
      [ "dimension 'N' must be one size: it is 2 in input 'a' and 3 in input 'b'" ];
    Sidecaml.set_dims m "b" [| 2; 2 |];
    Array2.fill (Sidecaml.input2 m "a" Float32) 1.;
    Array2.fill (Sidecaml.input2 m "b" Float32) 2.;
    ok "the next one" (Sidecaml.run m);
    Alcotest.(check (array int)) "rows" [| 2; 2 |] (Sidecaml.output_dims m "y");
    Alcotest.(check (float 0.)) "sum" 3. (Sidecaml.output2 m "y" Float32).{1, 1}

  let outputs_have_the_size_that_the_model_gave () =
    let dims = [ ("count", 8) ] in
    with_model ~dims "data_dependent" @@ fun m ->
    let x = Sidecaml.input1 m "x" Float32 in
    let positions ones =
      Array1.fill x 0.;
      List.iter (fun i -> x.{i} <- 1.) ones;
      ok "run" (Sidecaml.run m);
      let y = Sidecaml.output2 m "y" Int64 in
      List.init (Array2.dim2 y) (fun i -> Int64.to_int y.{0, i})
    in
    List.iter
      (fun ones -> Alcotest.(check (list int)) "positions" ones (positions ones))
      [ [ 2; 5 ]; []; [ 0; 1; 2; 3; 4; 5; 6; 7 ]; [ 7 ] ]

  let an_output_without_room_is_an_error () =
    with_model ~dims:[ ("count", 2) ] "data_dependent" @@ fun m ->
    Array1.fill (Sidecaml.input1 m "x" Float32) 1.;
    (match Sidecaml.run m with
    | Error (Output_too_large { outputs; text_bytes; message }) ->
        Alcotest.(check (list (pair string (array int)))) "what is needed" [ ("y", [| 1; 8 |]) ] outputs;
        Alcotest.(check int) "no text" 0 text_bytes;
        mentions "message" message [ "output 'y' came out as [1, 8], 64 bytes"; "room for [1, 2]" ]
    | Error e -> Alcotest.failf "another error: %s" (Error.to_string e)
    | Ok () -> Alcotest.fail "there was room");
    Array1.fill (Sidecaml.input1 m "x" Float32) 0.;
    ok "the next one" (Sidecaml.run m)

  let of_python = if B.computes "through_numpy" then [ case "every type of numpy goes through" every_type_of_numpy_goes_through ] else []

  let tests =
    [
      group "views"
        (of_python @ [
          case "every element type goes through" every_element_type_goes_through;
          case "packed types are flat" packed_types_are_flat;
          case "every shape can be filled" every_shape_can_be_filled;
          case "every rank goes through" every_rank_goes_through;
          case "wrong requests are explained" wrong_requests_are_explained;
          case "views are built once" views_are_built_once;
          case "slots do not overlap" slots_do_not_overlap;
          case "dims change from call to call" dims_change_from_call_to_call;
          case "dims that do not fit are explained" dims_that_do_not_fit_are_explained;
          case "inputs must agree on a dimension" inputs_must_agree_on_a_dimension;
          case "outputs have the size that the model gave" outputs_have_the_size_that_the_model_gave;
          case "an output without room is an error" an_output_without_room_is_an_error;
        ]);
    ]
end
