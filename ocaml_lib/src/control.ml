let default_socket () =
  let in_runtime_dir () =
    match Sys.getenv_opt "XDG_RUNTIME_DIR" with
    | Some dir when dir <> "" -> Filename.concat dir "sidecaml.sock"
    | _ -> "/run/sidecaml/sidecaml.sock"
  in
  match Sys.getenv_opt "SIDECAML_SOCKET" with
  | Some path when path <> "" -> path
  | _ -> in_runtime_dir ()

(* --- Requests ---------------------------------------------------------------------------------------------------- *)

(* For the daemon's log. A file's name may be no UTF-8, which the protocol's strings are. *)
let printable = String.map (fun c -> if c < ' ' || c > '~' then '?' else c)

let request ?model ?(slots = 1) ?(policy = Abi.policy_adaptive) ?(dims = []) ?(text_bytes = 0) ?(high_priority = false) ~socket
    ~timeout_ns () : Core.request =
  Arguments.text "socket path" socket;
  let client = "ocaml " ^ printable (Filename.basename Sys.executable_name) in
  { socket; client; model; slots; policy; timeout_ns; dims = Array.of_list dims; text_bytes; high_priority }

(* --- Replies ----------------------------------------------------------------------------------------------------- *)

let tensor_of (info : Core.tensor_info) : Model.tensor =
  { name = info.tensor_name; dtype = info.dtype_name; shape = Model.shape info.dims info.dim_names }

let carried_of (output, info) : Model.carried = { input = tensor_of info; output }

let batching_of (info : Core.batching_info) : Model.batching =
  {
    policy = info.policy;
    most = info.most;
    dim = (if info.dim = "" then None else Some info.dim);
    in_place = info.in_place;
    gather_from = (if info.gather_from = 0 then None else Some info.gather_from);
    shared = Array.to_list info.shared;
    why = info.why;
  }

let state_of state problem : Model.state =
  match state with "ready" -> Ready | "loading" -> Loading | _ -> Failed problem

let model_of (info : Core.model_info) : Model.t =
  let outputs, inputs = List.partition (fun (t : Core.tensor_info) -> t.is_output) (Array.to_list info.tensors) in
  {
    name = info.model_name;
    engine = info.engine;
    state = state_of info.state info.problem;
    fingerprint = info.fingerprint;
    max_slots = info.max_slots;
    inputs = List.map tensor_of inputs;
    outputs = List.map tensor_of outputs;
    carried = List.map carried_of (Array.to_list info.carried);
    batching = Option.map batching_of info.batching;
  }

let error_of (number, message) = Error.of_number number ~message

let described request =
  match Core.describe request with
  | Ok models -> Ok (List.map model_of (Array.to_list models))
  | Error e -> Error (error_of e)

(* --- Calls ------------------------------------------------------------------------------------------------------- *)

let models ~socket ~timeout_ns = described (request ~socket ~timeout_ns ())

let describe ~socket ~timeout_ns name =
  match described (request ~model:name ~socket ~timeout_ns ()) with
  | Ok [ model ] when model.name = name -> Ok model
  | Ok others ->
      let message = Printf.sprintf "asked for model %S, the daemon described %d models" name (List.length others) in
      Error (Error.Rejected { code = Protocol; message })
  | Error _ as e -> e

type opened = { handle : Core.handle; model : Model.t; layout : Core.layout }

let open_model ~socket ~timeout_ns ~slots ~dims ~text_bytes ~policy ~high_priority name =
  match Core.open_channel (request ~model:name ~slots ~policy ~dims ?text_bytes ~high_priority ~socket ~timeout_ns ()) with
  | Ok (handle, info, layout) -> Ok { handle; model = model_of info; layout }
  | Error e -> Error (error_of e)
