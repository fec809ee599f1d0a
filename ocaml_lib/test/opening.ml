(* Finding and opening models. *)

open Check
module Daemon = Support.Daemon

module Make (B : Backends.S) = struct
  open Over (B)

  let models_are_listed () =
    let names = List.map (fun (m : Sidecaml.Model.t) -> m.name) (Sidecaml.models_exn ~socket:(socket ()) ()) in
    Alcotest.(check (list string))
      "names, sorted"
      (List.filter B.computes
         [
           "carried"; "carried_rows"; "chosen"; "data_dependent"; "digits"; "dynamic_mlp"; "every_rank"; "every_type"; "fails_inside";
           "packed"; "positions"; "positives"; "recurrent"; "recurrent_rows"; "same_rows"; "slow"; "texts"; "through_numpy";
         ])
      names

  let a_model_is_described () =
    let model = Sidecaml.describe_exn ~socket:(socket ()) "dynamic_mlp" in
    Alcotest.(check string) "input" "x float32[N,64]" (Sidecaml.Model.tensor_to_string (List.hd model.inputs));
    Alcotest.(check string) "output" "y float32[N,10]" (Sidecaml.Model.tensor_to_string (List.hd model.outputs));
    Alcotest.(check bool) "ready" true (model.state = Ready);
    with_model "digits" @@ fun m ->
    let described = Sidecaml.describe_exn ~socket:(socket ()) "digits" in
    Alcotest.(check bool) "as when opened" true (Sidecaml.model m = described)

  let how_requests_are_batched_is_told () =
    let batching name = (Sidecaml.describe_exn ~socket:(socket ()) name).batching in
    let is_a_daemon = B.label = "daemon" || B.label = "resilient" in
    match (batching "dynamic_mlp", batching "digits") with
    | Some rows, Some fixed ->
        Alcotest.(check bool) "by a daemon" true is_a_daemon;
        Alcotest.(check (pair string (option string))) "exact, by rows" ("exact", Some "N") (rows.policy, rows.dim);
        Alcotest.(check bool) "several" true (rows.most > 1);
        Alcotest.(check bool) "rows of 64 floats lie side by side" true rows.in_place;
        Alcotest.(check (list string)) "nothing is shared" [] rows.shared;
        Alcotest.(check (pair int (option string))) "one by one" (1, None) (fixed.most, fixed.dim);
        Alcotest.(check bool) "why" true (fixed.why <> "")
    | None, None -> Alcotest.(check bool) "by nobody" false is_a_daemon
    | _ -> Alcotest.fail "of one model only"

  let an_unknown_model_is_named_with_the_nearest () =
    let socket = socket () in
    rejected "open" (Sidecaml.open_model ~socket "digitz") Unknown_model [ "digitz"; "digits" ];
    rejected "describe" (Sidecaml.describe ~socket "digitz") Unknown_model [ "digitz"; "digits" ];
    rejected "no name" (Sidecaml.open_model ~socket "") Unknown_model [];
    match Sidecaml.open_model_exn ~socket "digitz" with
    | _ -> Alcotest.fail "opened"
    | exception Error.Error (Rejected { code = Unknown_model; _ }) -> ()

  let limits_are_kept () =
    let socket = socket () in
    rejected "no dims" (Sidecaml.open_model ~socket "dynamic_mlp") Bad_dims [ "N" ];
    rejected "no guess" (Sidecaml.open_model ~socket ~dims:[ ("N", 8) ] "positions") Bad_dims
      [ "dimension 'count' of the model"; "only outputs have 'count'"; "run_growing" ];
    rejected "neither" (Sidecaml.open_model ~socket "positions") Bad_dims
      [ "dimension 'N', 'count' of the model"; "only outputs have 'count'" ];
    rejected "unknown dim" (Sidecaml.open_model ~socket ~dims:[ ("N", 1); ("K", 2) ] "dynamic_mlp") Bad_dims [ "K" ];
    rejected "too large" (Sidecaml.open_model ~socket ~dims:[ ("N", 1 lsl 40) ] "dynamic_mlp") B.too_large [ "dynamic_mlp" ]

  let senseless_arguments_are_misuse () =
    let socket = socket () in
    misuse "slots 0" (fun () -> Sidecaml.open_model ~socket ~slots:0 "digits") [ "1 to 1024"; "not 0" ];
    misuse "slots 1025" (fun () -> Sidecaml.open_model ~socket ~slots:1025 "digits") [ "1025" ];
    misuse "a negative dim" (fun () -> Sidecaml.open_model ~socket ~dims:[ ("N", -1) ] "dynamic_mlp") [ "N"; "-1" ];
    misuse "a negative time" (fun () -> Sidecaml.open_model ~socket ~timeout_ns:(-1) "digits") [ "-1 ns" ];
    misuse "NUL" (fun () -> Sidecaml.open_model ~socket "dig\000its") [ "NUL" ]

  let a_closed_channel_says_so () =
    let m = Sidecaml.open_model_exn ~socket:(socket ()) "digits" in
    Alcotest.(check bool) "open" true (Sidecaml.is_open m);
    Sidecaml.close m;
    Sidecaml.close m;
    Alcotest.(check bool) "closed" false (Sidecaml.is_open m);
    let said what call = misuse what call [ "digits"; "closed" ] in
    said "run" (fun () -> ignore (Sidecaml.run m));
    said "run_for" (fun () -> ignore (Sidecaml.run_for m ~timeout_ns:1));
    said "claim" (fun () -> ignore (Sidecaml.claim m));
    said "await" (fun () -> ignore (Sidecaml.await m 0));
    said "poll" (fun () -> ignore (Sidecaml.poll m 0));
    said "release" (fun () -> Sidecaml.release m 0);
    said "abandon" (fun () -> Sidecaml.abandon m 0);
    said "input" (fun () -> ignore (Sidecaml.input m "image" Float32));
    said "dims" (fun () -> ignore (Sidecaml.input_dims m "image"));
    said "set_dims" (fun () -> Sidecaml.set_dims m "image" [| 1; 64 |]);
    said "stamps" (fun () -> ignore (Sidecaml.stamps m));
    said "set_stamps" (fun () -> Sidecaml.set_stamps m true);
    said "is_busy" (fun () -> ignore (Sidecaml.is_busy m));
    Alcotest.(check (option string)) "gone" None (Sidecaml.gone m)

  let with_model_closes_whatever_happens () =
    let before = descriptors () in
    let kept = ref None in
    (match with_model "digits" (fun m -> kept := Some m; raise Exit) with
    | () -> ()
    | exception Exit -> ());
    Alcotest.(check bool) "closed" false (Sidecaml.is_open (Option.get !kept));
    Alcotest.(check int) "descriptors" before (descriptors ());
    match Sidecaml.with_model ~socket:(socket ()) "digits" (fun _ -> 7) with
    | Ok 7 -> ()
    | _ -> Alcotest.fail "the result is lost"

  let tests =
    [
      group "opening"
        [
          case "models are listed" models_are_listed;
          case "a model is described" a_model_is_described;
          case "how requests are batched is told" how_requests_are_batched_is_told;
          case "an unknown model is named with the nearest" an_unknown_model_is_named_with_the_nearest;
          case "limits are kept" limits_are_kept;
          case "senseless arguments are misuse" senseless_arguments_are_misuse;
          case "a closed channel says so" a_closed_channel_says_so;
          case "with_model closes whatever happens" with_model_closes_whatever_happens;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

let its_slots_are_limited () =
  rejected "slots" (Sidecaml.open_model ~socket:(Daemon.shared ()) ~slots:1024 "digits") Too_many_slots [ "1024" ]

let no_daemon_is_an_error () =
  rejected "open" (Sidecaml.open_model ~socket:"/nonexistent/socket" "m") Connect
    [ "/nonexistent/socket"; "sidecaml serve"; "name its socket ($SIDECAML_SOCKET)" ];
  rejected "models" (Sidecaml.models ~socket:"/nonexistent/socket" ()) Connect [ "/nonexistent/socket" ];
  rejected "a long path" (Sidecaml.models ~socket:(String.make 200 's') ()) Connect [ "200" ]

(* A listener that never answers. *)
let a_silent_daemon_times_out () =
  let path = Filename.temp_file "sidecaml-silent" ".sock" in
  Sys.remove path;
  let listener = Unix.socket ~cloexec:true PF_UNIX SOCK_SEQPACKET 0 in
  Fun.protect
    ~finally:(fun () ->
      Unix.close listener;
      Sys.remove path)
    (fun () ->
      Unix.bind listener (ADDR_UNIX path);
      Unix.listen listener 1;
      let outcome = Sidecaml.models ~socket:path ~timeout_ns:20_000_000 () in
      Alcotest.(check bool) "Timeout" true (outcome = Error Timeout))

let the_environment_names_the_socket () =
  let saved = List.map (fun name -> (name, Sys.getenv_opt name)) [ "SIDECAML_SOCKET"; "XDG_RUNTIME_DIR" ] in
  let restore (name, value) = Unix.putenv name (Option.value value ~default:"") in
  Fun.protect
    ~finally:(fun () -> List.iter restore saved)
    (fun () ->
      Unix.putenv "SIDECAML_SOCKET" "";
      Unix.putenv "XDG_RUNTIME_DIR" "";
      Alcotest.(check string) "system" "/run/sidecaml/sidecaml.sock" (Sidecaml.default_socket ());
      Unix.putenv "XDG_RUNTIME_DIR" "/run/user/7";
      Alcotest.(check string) "user" "/run/user/7/sidecaml.sock" (Sidecaml.default_socket ());
      Unix.putenv "SIDECAML_SOCKET" (Daemon.shared ());
      Alcotest.(check string) "named" (Daemon.shared ()) (Sidecaml.default_socket ());
      Sidecaml.with_model_exn "digits" (fun m -> ok "run" (Sidecaml.run m)))

let tests =
  [
    ( "opening",
      [
        case "its slots are limited" its_slots_are_limited;
        case "no daemon is an error" no_daemon_is_an_error;
        case "a silent daemon times out" a_silent_daemon_times_out;
        case "the environment names the socket" the_environment_names_the_socket;
      ] );
  ]
