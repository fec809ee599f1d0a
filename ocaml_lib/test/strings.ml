(* Tensors of strings. *)

open Check
module Strings = Sidecaml.Strings

module Make (B : Backends.S) = struct
  open Over (B)

  let doubled = Array.map (fun text -> text ^ text)
  let check_all what wanted found = Alcotest.(check (array string)) what wanted (Strings.to_array found)

  let ask m strings =
    Sidecaml.set_dims m "x" [| Array.length strings |];
    Strings.set_all (Sidecaml.input_strings m "x") strings;
    ok "run" (Sidecaml.run m);
    check_all "answer" (doubled strings) (Sidecaml.output_strings m "y")

  let they_go_through () =
    with_model ~dims:[ ("N", 5) ] "texts" @@ fun m ->
    check_all "empty at first" (Array.make 5 "") (Sidecaml.input_strings m "x");
    List.iter (ask m)
      [ [| "a"; ""; "caf\xc3\xa9"; "\xf0\x9f\x90\xab"; "a NUL \000 inside" |]; [| "one" |]; [||]; [| ""; "" |]; [| String.make 400 'x'; "y" |] ]

  let they_are_read_one_by_one () =
    with_model ~dims:[ ("N", 4) ] "texts" @@ fun m ->
    ask m [| "ab"; ""; "cde"; "f" |];
    let y = Sidecaml.output_strings m "y" in
    Alcotest.(check int) "length" 4 (Strings.length y);
    Alcotest.(check string) "get" "cdecde" (Strings.get y 2);
    Alcotest.(check int) "size" 6 (Strings.size y 2);
    Alcotest.(check int) "text" 12 (Strings.text_size y);
    let bytes = Bytes.make 8 '.' in
    Strings.blit y 2 bytes 1;
    Alcotest.(check string) "blit" ".cdecde." (Bytes.to_string bytes);
    let buffer = Buffer.create 8 in
    for i = 0 to 3 do
      Strings.add_to_buffer buffer y i
    done;
    Alcotest.(check string) "buffer" "ababcdecdeff" (Buffer.contents buffer);
    let seen = ref [] in
    Strings.iter (fun text -> seen := text :: !seen) y;
    Alcotest.(check (list string)) "iter" [ "ff"; "cdecde"; ""; "abab" ] !seen;
    misuse "beyond" (fun () -> Strings.get y 4) [ "get"; "\"y\""; "no element 4"; "4" ];
    misuse "negative" (fun () -> Strings.size y (-1)) [ "size"; "no element -1" ];
    misuse "no place" (fun () -> Strings.blit y 2 bytes 3) [ "blit"; "6 bytes"; "at 3 of 8" ];
    misuse "no place at all" (fun () -> Strings.blit y 2 bytes (-1)) [ "blit" ]

  let room_is_checked () =
    with_model ~dims:[ ("N", 3) ] ~text_bytes:10 "texts" @@ fun m ->
    let x = Sidecaml.input_strings m "x" in
    Alcotest.(check int) "room" 10 (Strings.room x);
    Strings.set_all x [| "1234"; "5678"; "90" |];
    misuse "text" (fun () -> Strings.set_all x [| "1234"; "5678"; "901" |]) [ "set_all"; "11 bytes of text"; "room for 10"; "text_bytes" ];
    check_all "nothing was written" [| "1234"; "5678"; "90" |] x;
    misuse "count" (fun () -> Strings.set_all x [| "1234" |]) [ "set_all"; "1 strings for 3 elements" ];
    Strings.init x string_of_int;
    check_all "init" [| "0"; "1"; "2" |] x;
    misuse "init" (fun () -> Strings.init x (fun _ -> "12345")) [ "init"; "15 bytes"; "room for 10" ];
    check_all "empty then" [| ""; ""; "" |] x;
    match Strings.init x (fun i -> if i = 1 then raise Exit else "abc") with
    | () -> Alcotest.fail "no exception"
    | exception Exit -> check_all "empty again" [| ""; ""; "" |] x

  let text_grows () =
    with_model ~dims:[ ("N", 3) ] ~text_bytes:12 "texts" @@ fun m ->
    let strings = [| "123"; "456"; "7" |] in
    Strings.set_all (Sidecaml.input_strings m "x") strings;
    (match Sidecaml.run m with
    | Error (Output_too_large { outputs = []; text_bytes = 14; message }) -> mentions "message" message [ "y" ]
    | Error e -> Alcotest.failf "another error: %s" (Error.to_string e)
    | Ok () -> Alcotest.fail "there was room");
    (match Sidecaml.run_growing m with Ok `Grown -> () | _ -> Alcotest.fail "it did not grow");
    check_all "moved" strings (Sidecaml.input_strings m "x");
    check_all "answer" (doubled strings) (Sidecaml.output_strings m "y");
    Alcotest.(check int) "half more" 18 (Strings.room (Sidecaml.output_strings m "y"))

  let wrong_requests_are_explained () =
    with_model ~dims:[ ("N", 2) ] "texts" @@ fun m ->
    misuse "type" (fun () -> Sidecaml.input1 m "x" Float32) [ "x string[N]"; "float32"; "use String" ];
    misuse "direction" (fun () -> Sidecaml.output_strings m "x") [ "\"x\" is an input: use input_strings" ];
    misuse "name" (fun () -> Sidecaml.input_strings m "z") [ "no input \"z\"" ];
    misuse "slot" (fun () -> Sidecaml.input_strings ~slot:1 m "x") [ "no slot 1" ];
    misuse "no room" (fun () -> Sidecaml.open_model ~socket:(socket ()) ~text_bytes:0 "texts") [ "0 bytes of text" ];
    with_model "digits" @@ fun m ->
    misuse "no strings" (fun () -> Sidecaml.input_strings m "image") [ "image float32[1,64] holds no strings"; "use input2" ]

  let text_larger_than_memory_is_refused () =
    List.iter
      (fun text_bytes ->
        match Sidecaml.open_model ~socket:(socket ()) ~dims:[ ("N", 2) ] ~text_bytes "texts" with
        | Error (Rejected { code = No_memory | No_space | Limit; _ }) -> ()
        | Error e -> Alcotest.failf "%d: %s" text_bytes (Error.to_string e)
        | Ok m ->
            Sidecaml.close m;
            Alcotest.failf "%d bytes of text" text_bytes)
      [ max_int; max_int - 7; 1 lsl 61; 1 lsl 50 ]

  (* Whatever bytes lie there: a string, or Invalid_argument; never memory of somebody else. *)
  let hostile_tables_are_refused () =
    with_model ~dims:[ ("N", 3) ] ~text_bytes:16 "texts" @@ fun m ->
    let bytes = Sidecaml.input1 m "x" String in
    Alcotest.(check int) "the whole place" ((8 * 4) + 16) (Bigarray.Array1.dim bytes);
    let x = Sidecaml.input_strings m "x" in
    bytes.{15} <- 0x80;
    misuse "the highest bit counts" (fun () -> Strings.get x 0) [ "offsets of element 0"; "16 bytes of text" ];
    let random = Random.State.make [| Lazy.force seed |] in
    for _ = 1 to 20_000 do
      for _ = 1 to 3 do
        let at = Random.State.int random 32 in
        let byte = if Random.State.bool random then Random.State.int random 20 else Random.State.int random 256 in
        bytes.{at} <- (if at mod 8 = 0 then byte else if Random.State.bool random then 0 else byte)
      done;
      let i = Random.State.int random 3 in
      match Strings.get x i with
      | text -> if String.length text > 16 then Alcotest.fail "more than there is"
      | exception Invalid_argument text -> mentions "why" text [ "16 bytes of text" ]
    done

  let reading_allocates_what_is_read () =
    with_model ~dims:[ ("N", 4) ] "texts" @@ fun m ->
    ask m [| "ab"; ""; "cde"; "f" |];
    let bytes = Bytes.create 64 in
    let read () =
      let y = Sidecaml.output_strings m "y" in
      for i = 0 to Strings.length y - 1 do
        Strings.blit y i bytes (Strings.size y i)
      done
    in
    Alcotest.(check (float 0.)) "words" 0. (Memory.words_of 1_000 read)

  (* A mock has OCaml code for a model, which may make of bytes what it likes. *)
  let text_is_utf_8 () =
    with_model ~dims:[ ("N", 3) ] "texts" @@ fun m ->
    let x = Sidecaml.input_strings m "x" in
    List.iter
      (fun bad ->
        Strings.set_all x [| "fine"; bad; "" |];
        rejected (String.escaped bad) (Sidecaml.run m) Bad_strings [ "input 'x'"; "string 1"; "UTF-8" ])
      [ "\xff"; "caf\xe9"; "\xc3"; "\xed\xa0\x80"; "\xc0\xaf" ];
    let bytes = Sidecaml.input1 m "x" String in
    Bigarray.Array1.fill bytes 0xff;
    rejected "a table of nonsense" (Sidecaml.run m) Bad_strings [ "input 'x'" ];
    ask m [| "fine"; "again"; "\xf0\x9f\x90\xab" |]

  let tests_of_text = [ group "text" [ case "text is UTF-8" text_is_utf_8 ] ]

  let tests =
    [
      group "strings"
        [
          case "they go through" they_go_through;
          case "they are read one by one" they_are_read_one_by_one;
          case "room is checked" room_is_checked;
          case "text grows" text_grows;
          case "text larger than memory is refused" text_larger_than_memory_is_refused;
          case "wrong requests are explained" wrong_requests_are_explained;
          case "hostile tables are refused" hostile_tables_are_refused;
          case "reading allocates what is read" reading_allocates_what_is_read;
        ];
    ]
end
