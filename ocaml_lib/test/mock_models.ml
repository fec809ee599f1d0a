(* The models of support/serve.py as OCaml functions: same names, signatures and answers. *)

open Bigarray
module Model = Sidecaml.Model
module Mock = Sidecaml.Mock

let tensor name dtype shape : Model.tensor = { name; dtype; shape = Array.of_list shape }
let fixed sizes = List.map (fun size -> Model.Fixed size) sizes

let digits () =
  Mock.serve "digits"
    ~inputs:[ tensor "image" "float32" (fixed [ 1; 64 ]) ]
    ~outputs:[ tensor "scores" "float32" (fixed [ 1; 10 ]) ]
    (fun m ~slot ->
      let x = Mock.input2 ~slot m "image" Float32 in
      let sum = ref 0. in
      for i = 0 to 63 do
        sum := !sum +. x.{0, i}
      done;
      Array2.fill (Mock.output2 ~slot m "scores" Float32) (!sum /. 32.);
      Ok ())

(* Every row's answer is its first element, so that equal rows have equal answers. *)
let dynamic_mlp () =
  Mock.serve "dynamic_mlp"
    ~inputs:[ tensor "x" "float32" [ Dynamic "N"; Fixed 64 ] ]
    ~outputs:[ tensor "y" "float32" [ Dynamic "N"; Fixed 10 ] ]
    (fun m ~slot ->
      let x = Mock.input2 ~slot m "x" Float32 and y = Mock.output2 ~slot m "y" Float32 in
      for row = 0 to Array2.dim1 x - 1 do
        Array1.fill (Array2.slice_left y row) x.{row, 0}
      done;
      Ok ())

let blit m ~slot name (Sidecaml.Dtype.Any dtype) =
  Genarray.blit (Mock.input ~slot m ("x" ^ name) dtype) (Mock.output ~slot m ("y" ^ name) dtype)

let handed_through model types =
  let suffixed (Sidecaml.Dtype.Any dtype as any) = ("_" ^ Sidecaml.Dtype.name dtype, any) in
  let types = List.map suffixed types in
  let tensors prefix =
    List.map (fun (name, Sidecaml.Dtype.Any dtype) -> tensor (prefix ^ name) (Sidecaml.Dtype.name dtype) (fixed [ 2; 3 ])) types
  in
  Mock.serve model ~inputs:(tensors "x") ~outputs:(tensors "y") (fun m ~slot ->
      List.iter (fun (name, any) -> blit m ~slot name any) types;
      Ok ())

let every_type () =
  let is_number (Sidecaml.Dtype.Any dtype) = Sidecaml.Dtype.name dtype <> "string" in
  handed_through "every_type" (List.filter is_number Sidecaml.Dtype.all)

let through_numpy () =
  let is_whole (Sidecaml.Dtype.Any dtype) = not (Sidecaml.Dtype.is_flat dtype) in
  handed_through "through_numpy" (List.filter is_whole Sidecaml.Dtype.all)

let every_rank () =
  let ranks = [ 0; 1; 2; 3; 4 ] in
  let tensors prefix =
    List.map (fun rank -> tensor (prefix ^ string_of_int rank) "float64" (fixed (List.init rank (fun _ -> 2)))) ranks
  in
  Mock.serve "every_rank" ~inputs:(tensors "x") ~outputs:(tensors "y") (fun m ~slot ->
      List.iter (fun rank -> blit m ~slot (string_of_int rank) (Any Float64)) ranks;
      Ok ())

let put_positions m ~slot positions =
  Result.map
    (fun () ->
      let y = Mock.output2 ~slot m "y" Int64 in
      List.iteri (fun i position -> y.{0, i} <- Int64.of_int position) positions)
    (Mock.fit_output ~slot m "y" [| 1; List.length positions |])

let data_dependent () =
  Mock.serve "data_dependent"
    ~inputs:[ tensor "x" "float32" (fixed [ 8 ]) ]
    ~outputs:[ tensor "y" "int64" [ Fixed 1; Dynamic "count" ] ]
    (fun m ~slot ->
      let x = Mock.input1 ~slot m "x" Float32 in
      let positions = List.filter (fun i -> x.{i} <> 0.) (List.init 8 Fun.id) in
      put_positions m ~slot positions)

let positions () =
  Mock.serve "positions"
    ~inputs:[ tensor "x" "float32" [ Dynamic "N" ] ]
    ~outputs:[ tensor "y" "int64" [ Fixed 1; Dynamic "count" ] ]
    (fun m ~slot ->
      let x = Mock.input1 ~slot m "x" Float32 in
      put_positions m ~slot (List.filter (fun i -> x.{i} <> 0.) (List.init (Array1.dim x) Fun.id)))

let chosen () =
  Mock.serve "chosen"
    ~inputs:[ tensor "x" "string" [ Dynamic "N" ]; tensor "keep" "bool" [ Dynamic "N" ] ]
    ~outputs:[ tensor "y" "string" [ Dynamic "count" ]; tensor "at" "int64" [ Fixed 1; Dynamic "count" ] ]
    (fun m ~slot ->
      let x = Mock.input_strings ~slot m "x" and keep = Mock.input1 ~slot m "keep" Bool in
      let at = List.filter (fun i -> keep.{i} <> 0) (List.init (Sidecaml.Strings.length x) Fun.id) in
      let ( let* ) = Result.bind in
      let* () = Mock.fit_output ~slot m "y" [| List.length at |] in
      let* () = Mock.fit_output ~slot m "at" [| 1; List.length at |] in
      let* () = Mock.fit_strings ~slot m "y" (Array.of_list (List.map (Sidecaml.Strings.get x) at)) in
      let places = Mock.output2 ~slot m "at" Int64 in
      List.iteri (fun i position -> places.{0, i} <- Int64.of_int position) at;
      Ok ())

let texts () =
  let strings name = tensor name "string" [ Model.Dynamic "N" ] in
  Mock.serve "texts" ~inputs:[ strings "x" ] ~outputs:[ strings "y" ] (fun m ~slot ->
      let x = Sidecaml.Strings.to_array (Mock.input_strings ~slot m "x") in
      Mock.fit_strings ~slot m "y" (Array.map (fun text -> text ^ text) x))

let packed () =
  let rows name dtype = tensor name dtype [ Model.Dynamic "N"; Fixed 3 ] in
  Mock.serve "packed"
    ~inputs:[ rows "x" "int4"; rows "small" "int8" ]
    ~outputs:[ rows "y" "int8"; rows "again" "int4" ]
    (fun m ~slot ->
      Sidecaml.Convert.unpack Int4 (Mock.input ~slot m "x" Int4) (Mock.output ~slot m "y" Int8);
      Sidecaml.Convert.pack Int4 (Mock.input ~slot m "small" Int8) (Mock.output ~slot m "again" Int4);
      Ok ())

let fails_inside () =
  Mock.serve "fails_inside"
    ~inputs:[ tensor "x" "float32" (fixed [ 6 ]); tensor "shape" "int64" (fixed [ 2 ]) ]
    ~outputs:[ tensor "y" "float32" (fixed [ 6 ]) ]
    (fun m ~slot ->
      let x = Mock.input1 ~slot m "x" Float32 and shape = Mock.input1 ~slot m "shape" Int64 in
      let y = Mock.output1 ~slot m "y" Float32 in
      if Int64.mul shape.{0} shape.{1} <> 6L then Error (Rejected { code = Engine; message = "a Reshape that does not fit" })
      else begin
        let sum = ref 0. in
        for i = 0 to 5 do
          sum := !sum +. x.{i}
        done;
        for i = 0 to 5 do
          y.{i} <- x.{i} +. !sum
        done;
        Ok ()
      end)

let same_rows () =
  let rows name = tensor name "float32" [ Dynamic "N"; Fixed 2 ] in
  Mock.serve "same_rows" ~inputs:[ rows "a"; rows "b" ] ~outputs:[ rows "y" ] (fun m ~slot ->
      let a = Mock.input2 ~slot m "a" Float32 and b = Mock.input2 ~slot m "b" Float32 in
      let y = Mock.output2 ~slot m "y" Float32 in
      for row = 0 to Array2.dim1 y - 1 do
        for column = 0 to 1 do
          y.{row, column} <- a.{row, column} +. b.{row, column}
        done
      done;
      Ok ())

(* Sums of small numbers in place of a hyperbolic tangent. *)
let recurrent ?state ~rows name =
  let shape = if rows then [ Model.Dynamic "N"; Fixed 8 ] else fixed [ 8 ] in
  Mock.serve ?state name
    ~inputs:[ tensor "x" "float32" shape; tensor "state" "float32" shape; tensor "shape" "int64" (fixed [ 1 ]) ]
    ~outputs:[ tensor "y" "float32" shape; tensor "next" "float32" shape ]
    (fun m ~slot ->
      let flat array = Bigarray.reshape_1 array (Array.fold_left ( * ) 1 (Genarray.dims array)) in
      let x = flat (Mock.input ~slot m "x" Float32) and state = flat (Mock.input ~slot m "state" Float32) in
      let y = flat (Mock.output ~slot m "y" Float32) and next = flat (Mock.output ~slot m "next" Float32) in
      for i = 0 to Array1.dim x - 1 do
        y.{i} <- x.{i} +. (state.{i} /. 2.);
        next.{i} <- y.{i} /. (1. +. Float.abs y.{i})
      done;
      if (Mock.input1 ~slot m "shape" Int64).{0} <> 8L then
        Error (Rejected { code = Engine; message = "a Reshape that does not fit" })
      else Ok ())

let serve () =
  recurrent ~rows:false "recurrent";
  recurrent ~rows:true "recurrent_rows";
  recurrent ~rows:false ~state:[ ("next", "state") ] "carried";
  recurrent ~rows:true ~state:[ ("next", "state") ] "carried_rows";
  digits ();
  dynamic_mlp ();
  every_type ();
  every_rank ();
  data_dependent ();
  fails_inside ();
  chosen ();
  packed ();
  positions ();
  same_rows ();
  texts ();
  through_numpy ()
