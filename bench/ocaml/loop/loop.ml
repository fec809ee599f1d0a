let warm_calls = 64
let warm_calls_least = 3
let warm_ns = 20_000_000
let timed_calls_least = 20

(* Seeds go round: 0, 1, 2, 3. *)
let seed_mask = 3

type plan = { touch : int; count : int; budget_ns : int }

module Make (P : Path.S) = struct
  type ready = { path : P.t; inputs : Tensor.t array; outputs : Tensor.t array }

  let prepare path = { path; inputs = P.inputs path; outputs = P.outputs path }

  let call { path; inputs; outputs } seed =
    Tensor.fill_all inputs seed;
    P.run path;
    Tensor.read_all outputs

  let rec warm ready memory deadline made =
    if made < warm_calls_least || (made < warm_calls && Caller.now_ns () < deadline) then begin
      Caller.touch memory;
      call ready (made land seed_mask);
      warm ready memory deadline (made + 1)
    end

  (* The number of calls made. *)
  let rec timed ready memory samples count deadline made =
    Caller.touch memory;
    let start = Caller.now_ns () in
    call ready (made land seed_mask);
    let finish = Caller.now_ns () in
    Samples.set samples made (finish - start);
    let made = made + 1 in
    if made < count && (finish < deadline || made < timed_calls_least) then
      timed ready memory samples count deadline made
    else made

  (* As an integer: a float would itself be allocated. *)
  let words_so_far () = int_of_float (Gc.minor_words ())

  (* A collection in the middle would be measured, too. *)
  let check_words before made =
    let words = words_so_far () - before in
    if words > 0 && not P.allocates then
      Failed.fail "%d timed calls allocated %d words in the OCaml heap, and should allocate nothing" made words

  let series path use =
    P.wake path;
    Fun.protect ~finally:(fun () -> P.rest path) (fun () -> use (prepare path))

  let measure path { touch; count; budget_ns } =
    (* The collector does not know how large they are, and would let those of many series pile up. *)
    Gc.full_major ();
    let samples = Samples.create count and memory = Caller.memory touch in
    series path (fun ready ->
        warm ready memory (Caller.now_ns () + warm_ns) 0;
        let deadline = Caller.now_ns () + budget_ns in
        let words = words_so_far () in
        let made = timed ready memory samples count deadline 0 in
        check_words words made;
        (samples, made))

  let outputs path seeds out =
    series path (fun ready ->
        for seed = 0 to seeds - 1 do
          call ready seed;
          Array.iter (fun tensor -> output_string out (Tensor.contents tensor)) ready.outputs
        done)

  let once path = series path (fun ready -> call ready 0)
end
