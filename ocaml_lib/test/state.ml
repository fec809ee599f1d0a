(* State that goes from request to request where the model runs: what a program that copies it itself would get. *)

open Bigarray
open Check

let carry = [ ("next", "state") ]
let same_bits one other = Array.for_all2 (fun a b -> Int32.equal (Int32.bits_of_float a) (Int32.bits_of_float b)) one other
let numbers state n = Array.init n (fun _ -> Random.State.float state 2. -. 1.)

module Make (B : Backends.S) = struct
  open Over (B)

  let flat array = reshape_1 array (Array.fold_left ( * ) 1 (Genarray.dims array))
  let fill array values = Array.iteri (fun i value -> array.{i} <- value) values
  let read array = Array.init (Array1.dim array) (fun i -> array.{i})
  let prepare ?slot m shape = Array1.fill (Sidecaml.input1 ?slot m "shape" Int64) shape

  (* One request of the model whose state is carried. *)
  let ask ?(shape = 8L) m x =
    prepare m shape;
    fill (flat (Sidecaml.input m "x" Float32)) x;
    Result.map (fun () -> read (flat (Sidecaml.output m "y" Float32))) (Sidecaml.run m)

  let step m x = Error.get_exn (ask m x)

  (* The same of a model whose state the program copies: from zeros. *)
  let copying m =
    fill (flat (Sidecaml.input m "state" Float32)) (Array.make (Array1.dim (flat (Sidecaml.input m "state" Float32))) 0.);
    fun x ->
      let y = step m x in
      Genarray.blit (Sidecaml.output m "next" Float32) (Sidecaml.input m "state" Float32);
      y

  let equal what expected found = Alcotest.(check bool) what true (same_bits expected found)

  let carried_state_is_copied_state () =
    with_model "recurrent" @@ fun plain ->
    with_model "carried" @@ fun m ->
    let copied = copying plain and random = Random.State.make [| Lazy.force seed |] in
    for call = 1 to 200 do
      let x = numbers random 8 in
      equal (Printf.sprintf "call %d" call) (copied x) (step m x)
    done

  let a_program_does_not_see_it () =
    with_model "carried" @@ fun m ->
    let model = Sidecaml.model m in
    let names = List.map (fun (tensor : Sidecaml.Model.tensor) -> tensor.name) in
    Alcotest.(check (list string)) "inputs" [ "x"; "shape" ] (names model.inputs);
    Alcotest.(check (list string)) "outputs" [ "y" ] (names model.outputs);
    Alcotest.(check (list (pair string string)))
      "carried" carry
      (List.map (fun (pair : Sidecaml.Model.carried) -> (pair.output, pair.input.name)) model.carried);
    misuse "input" (fun () -> Sidecaml.input1 m "state" Float32) [ "state"; "x" ];
    misuse "output" (fun () -> Sidecaml.output1 m "next" Float32) [ "next" ]

  let a_reset_begins_anew () =
    with_model "carried" @@ fun m ->
    let random = Random.State.make [| Lazy.force seed |] in
    let xs = List.init 5 (fun _ -> numbers random 8) in
    let first = List.map (step m) xs in
    for _ = 1 to 4 do
      Alcotest.(check bool) "it goes on" false (same_bits (List.hd first) (step m (List.hd xs)));
      Sidecaml.reset m;
      List.iter2 (fun x y -> equal "anew" y (step m x)) xs first
    done

  let two_channels_have_their_own () =
    with_model "carried" @@ fun one ->
    with_model "carried" @@ fun other ->
    let random = Random.State.make [| Lazy.force seed |] in
    let xs = List.init 12 (fun _ -> numbers random 8) in
    let alone = List.map (step one) xs in
    Sidecaml.reset one;
    List.iter2
      (fun x y ->
        equal "one" y (step one x);
        equal "the other" y (step other x))
      xs alone

  let several_slots_in_flight () =
    List.iter
      (fun slots ->
        with_model "recurrent" @@ fun plain ->
        with_model ~slots "carried" @@ fun m ->
        let copied = copying plain and random = Random.State.make [| Lazy.force seed |] in
        for _ = 1 to 10 do
          let submit _ =
            let slot = Sidecaml.claim_exn m and x = numbers random 8 in
            prepare ~slot m 8L;
            fill (Sidecaml.input1 ~slot m "x" Float32) x;
            Sidecaml.submit_exn m slot;
            (slot, x)
          in
          let submitted = List.map submit (List.init slots Fun.id) in
          List.iter
            (fun (slot, x) ->
              ok "answered" (Sidecaml.await m slot);
              equal "in order" (copied x) (read (Sidecaml.output1 ~slot m "y" Float32));
              Sidecaml.release m slot)
            submitted
        done)
      [ 2; 3; 5 ]

  let a_failed_run_does_not_advance () =
    with_model "recurrent" @@ fun plain ->
    with_model "carried" @@ fun m ->
    let copied = copying plain and random = Random.State.make [| Lazy.force seed |] in
    for call = 1 to 30 do
      if call mod 3 = 0 then rejected "the bad one" (ask ~shape:7L m (numbers random 8)) Engine [];
      let x = numbers random 8 in
      equal "as if it had not been" (copied x) (step m x)
    done;
    Sidecaml.reset m;
    rejected "with a reset" (ask ~shape:7L m (numbers random 8)) Engine [];
    let x = numbers random 8 in
    equal "zeros are left" x (step m x)

  let its_size_changes_with_a_reset_only () =
    with_model ~dims:[ ("N", 6) ] "carried_rows" @@ fun m ->
    let random = Random.State.make [| Lazy.force seed |] in
    List.iter
      (fun rows ->
        with_model ~dims:[ ("N", rows) ] "recurrent_rows" @@ fun plain ->
        let copied = copying plain in
        Sidecaml.reset m;
        Sidecaml.set_dims m "x" [| rows; 8 |];
        let same () =
          let x = numbers random (rows * 8) in
          equal "rows" (copied x) (step m x)
        in
        for _ = 1 to 6 do
          same ()
        done;
        Sidecaml.set_dims m "x" [| rows - 1; 8 |];
        rejected "another size"
          (ask m (numbers random ((rows - 1) * 8)))
          Bad_dims
          [ Printf.sprintf "the state of input 'state' is [%d,8]" rows; "reset the channel" ];
        Sidecaml.set_dims m "x" [| rows; 8 |];
        same ())
      [ 2; 5; 2; 6; 5 ]

  let misuse_is_refused () =
    with_model "recurrent" (fun m -> misuse "no state" (fun () -> Sidecaml.reset m) [ "reset"; "recurrent"; "no state" ]);
    let closed = with_model "carried" Fun.id in
    misuse "closed" (fun () -> Sidecaml.reset closed) [ "reset"; "closed" ]

  let tests =
    [
      group "carried state"
        [
          case "carried state is copied state, bit for bit" carried_state_is_copied_state;
          case "a program does not see it" a_program_does_not_see_it;
          case "a reset begins anew" a_reset_begins_anew;
          case "two channels have their own" two_channels_have_their_own;
          case "several slots in flight" several_slots_in_flight;
          case "a failed run does not advance" a_failed_run_does_not_advance;
          case "its size changes with a reset only" its_size_changes_with_a_reset_only;
          case "misuse is refused" misuse_is_refused;
        ];
    ]
end

(* State whose dimensions no visible tensor has: a product that wrapped would give views of memory that is not there. *)
let state_larger_than_memory_is_refused () =
  let module Mock = Sidecaml.Mock in
  let tensor name shape : Sidecaml.Model.tensor = { name; dtype = "float32"; shape } in
  let state name = tensor name [| Sidecaml.Model.Dynamic "N"; Dynamic "M" |] in
  Mock.serve "sized_state"
    ~state:[ ("next", "state") ]
    ~inputs:[ tensor "x" [| Fixed 1 |]; state "state" ]
    ~outputs:[ tensor "y" [| Fixed 1 |]; state "next" ]
    (fun _ ~slot:_ -> Ok ());
  Fun.protect ~finally:(fun () -> Mock.withdraw "sized_state") @@ fun () ->
  let open_with n m = Mock.open_model ~dims:[ ("N", n); ("M", m) ] "sized_state" in
  List.iter
    (fun (n, m) ->
      rejected (Printf.sprintf "%d by %d" n m) (open_with n m) No_memory [ "sized_state"; "needs more memory than there is" ])
    [ (1 lsl 40, 1 lsl 40); (1 lsl 32, 1 lsl 32); (1 lsl 31, 1 lsl 31); (1 lsl 30, 1 lsl 20) ];
  rejected "of this machine" (open_with (1 lsl 21) (1 lsl 21)) No_memory [ "sized_state"; "35184372088840 bytes" ]

let tests = [ ("carried state", [ case "state larger than memory is refused" state_larger_than_memory_is_refused ]) ]
