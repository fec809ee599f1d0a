(* sidecaml-probe: what a model is, what it answers, and how fast, from the side of an OCaml program. *)

open Cmdliner
module Model = Sidecaml.Model

let fail format = Printf.ksprintf (fun text -> raise (Request.Failed text)) format

(* --- models, describe -------------------------------------------------------------------------------------------- *)

let state_word (model : Model.t) =
  match model.state with Ready -> "ready" | Loading -> "loading" | Failed reason -> "failed: " ^ reason

let models socket =
  let line (model : Model.t) = Printf.printf "%s  %s  %s\n" model.name model.engine (state_word model) in
  List.iter line (Sidecaml.models_exn ?socket ())

let describe socket name = Format.printf "%a@." Model.pp (Sidecaml.describe_exn ?socket name)

(* --- run --------------------------------------------------------------------------------------------------------- *)

let submit channel ~timeout_ns inputs =
  let slot = Sidecaml.claim_exn channel in
  Request.fill channel ~slot inputs;
  (match timeout_ns with
  | Some timeout_ns -> Sidecaml.submit_for_exn channel slot ~timeout_ns
  | None -> Sidecaml.submit_exn channel slot);
  slot

let save files (output : Request.output) =
  let write array (name, path) = if name = output.name then Result.iter_error (fail "%s") (Npy.write path array) in
  match output.contents with Array array -> List.iter (write array) files | Strings _ -> ()

let show ({ name; dims; contents } : Request.output) =
  print_string (match contents with Array array -> Show.tensor name dims array | Strings strings -> Show.strings name dims strings)

let show_slot channel files slot =
  Sidecaml.await_exn channel slot;
  let outputs = Request.outputs channel ~slot in
  if Sidecaml.slots channel > 1 then Printf.printf "slot %d\n" slot;
  List.iter show outputs;
  List.iter (save files) outputs;
  Sidecaml.release channel slot

type options = {
  socket : string option;
  dims : (string * int) list;
  timeout_ns : int option;
  policy : Sidecaml.Backend.policy;
  lock : Sidecaml.Backend.lock;
}

let open_or_advise options ~slots ~dims (model : Model.t) use =
  let given name = List.mem_assoc name dims in
  match
    Sidecaml.with_model ?socket:options.socket ~slots ~dims ~policy:options.policy ~lock:options.lock model.name use
  with
  | Ok result -> result
  | Error (Rejected { code = Bad_dims; _ } as e) when not (List.for_all given (Model.dynamic_dims model)) ->
      fail "%s; give it by --dims NAME=SIZE" (Sidecaml.Error.to_string e)
  | Error e -> raise (Sidecaml.Error.Error e)

let open_for options ~slots name files use =
  let model = Sidecaml.describe_exn ?socket:options.socket name in
  let inputs = Request.inputs_of_files model files in
  let dims = Request.dims inputs options.dims in
  open_or_advise options ~slots ~dims model (fun channel -> use channel inputs)

let run options slots name files outputs =
  open_for options ~slots name files (fun channel inputs ->
      Request.check_outputs (Sidecaml.model channel) outputs;
      let submitted = List.init slots (fun _ -> submit channel ~timeout_ns:options.timeout_ns inputs) in
      List.iter (show_slot channel outputs) submitted)

(* --- time -------------------------------------------------------------------------------------------------------- *)

let call channel = function
  | Some timeout_ns -> Sidecaml.run_for_exn channel ~timeout_ns
  | None -> Sidecaml.run_exn channel

type took = { whole : float; model : float } (* microseconds *)

(* The model's part is what the worker stamped around its run. *)
let time_call channel timeout_ns =
  let start = Sidecaml.now_ns () in
  call channel timeout_ns;
  let whole = Sidecaml.now_ns () - start in
  let { Sidecaml.Backend.started_ns; finished_ns; _ } = Sidecaml.stamps channel in
  { whole = float_of_int whole /. 1000.; model = float_of_int (finished_ns - started_ns) /. 1000. }

let time options count name files =
  open_for options ~slots:1 name files (fun channel inputs ->
      Request.fill channel ~slot:0 inputs;
      Sidecaml.set_stamps channel true;
      for _ = 1 to max 1 (count / 10) do
        call channel options.timeout_ns
      done;
      let took = Array.init count (fun _ -> time_call channel options.timeout_ns) in
      let show part = Show.percentiles (Array.map part took) in
      Printf.printf "%s  %d calls  %s\n" name count (show (fun t -> t.whole));
      Printf.printf "%*s  %s\n" (String.length name + String.length (string_of_int count) + 8) "in the model"
        (show (fun t -> t.model)))

(* --- Command line ------------------------------------------------------------------------------------------------- *)

let positive =
  let parse text =
    match int_of_string_opt text with
    | Some n when n >= 1 -> Ok n
    | _ -> Error (`Msg (Printf.sprintf "%S is no number from 1" text))
  in
  Arg.conv (parse, Format.pp_print_int)

let named value =
  let print ppf (name, v) = Format.fprintf ppf "%s=%a" name (Arg.conv_printer value) v in
  let parse text =
    match String.index_opt text '=' with
    | Some i when i > 0 ->
        let rest = String.sub text (i + 1) (String.length text - i - 1) in
        Result.map (fun v -> (String.sub text 0 i, v)) (Arg.conv_parser value rest)
    | _ -> Error (`Msg (Printf.sprintf "%S is not of the form NAME=VALUE" text))
  in
  Arg.conv (parse, print)

let socket =
  let doc = "Where the daemon answers. Default: $(b,SIDECAML_SOCKET), else the usual places." in
  Arg.(value & opt (some string) None & info [ "socket" ] ~docv:"PATH" ~doc)

let model = Arg.(required & pos 0 (some string) None & info [] ~docv:"MODEL" ~doc:"The model's name.")

let inputs =
  let doc = "Fill an input from a numpy file; what is not named is zeros. Repeatable." in
  Arg.(value & opt_all (named string) [] & info [ "input" ] ~docv:"NAME=FILE.npy" ~doc)

let outputs =
  let doc = "Write an output to a numpy file as well. Repeatable." in
  Arg.(value & opt_all (named string) [] & info [ "output" ] ~docv:"NAME=FILE.npy" ~doc)

let dims =
  let doc = "Size of a dynamic dimension; by default that of the inputs' files. Repeatable." in
  Arg.(value & opt_all (named positive) [] & info [ "dims" ] ~docv:"NAME=SIZE" ~doc)

let slots = Arg.(value & opt positive 1 & info [ "slots" ] ~docv:"N" ~doc:"Submit the request in so many slots at once.")
let count = Arg.(value & opt positive 1000 & info [ "count" ] ~docv:"N" ~doc:"How many calls to time.")

let timeout_ns =
  let doc = "Give a request up after so many milliseconds." in
  let ms = Arg.(value & opt (some positive) None & info [ "timeout-ms" ] ~docv:"MS" ~doc) in
  Term.(const (Option.map (fun ms -> ms * 1_000_000)) $ ms)

let policy =
  let known = [ ("spin", `Spin); ("adaptive", `Adaptive); ("block", `Block) ] in
  let doc = "How to wait: $(b,spin), $(b,adaptive) or $(b,block)." in
  Arg.(value & opt (enum known) `Adaptive & info [ "policy" ] ~docv:"POLICY" ~doc)

let lock =
  let known = [ ("hold", `Hold); ("release", `Release) ] in
  let doc = "What to do with OCaml's runtime lock while waiting: $(b,hold) or $(b,release)." in
  Arg.(value & opt (enum known) `Release & info [ "lock" ] ~docv:"LOCK" ~doc)

let options =
  let make socket dims timeout_ns policy lock = { socket; dims; timeout_ns; policy; lock } in
  Term.(const make $ socket $ dims $ timeout_ns $ policy $ lock)

let commands =
  [
    Cmd.v (Cmd.info "models" ~doc:"List the daemon's models.") Term.(const models $ socket);
    Cmd.v (Cmd.info "describe" ~doc:"Show a model's inputs and outputs.") Term.(const describe $ socket $ model);
    Cmd.v
      (Cmd.info "run" ~doc:"Run a model once, on zeros or on numpy files, and show its outputs.")
      Term.(const run $ options $ slots $ model $ inputs $ outputs);
    Cmd.v
      (Cmd.info "time" ~doc:"Run a model many times, one call after the other, and show how long calls take.")
      Term.(const time $ options $ count $ model $ inputs);
  ]

let usage_error = 2
let info = Cmd.info "sidecaml-probe" ~version:Version.text ~doc:"Look at the models of a sidecaml daemon, from OCaml"

let () =
  let failed text =
    flush stdout;
    prerr_endline ("sidecaml-probe: " ^ text);
    1
  in
  let code =
    match Cmd.eval_value ~catch:false (Cmd.group info commands) with
    | Ok (`Ok () | `Version | `Help) -> 0
    | Error (`Parse | `Term | `Exn) -> usage_error
    | exception Request.Failed text -> failed text
    | exception Sidecaml.Error.Error e -> failed (Sidecaml.Error.to_string e)
    | exception Invalid_argument text -> failed text
    | exception Sys_error text -> failed text
  in
  exit code
