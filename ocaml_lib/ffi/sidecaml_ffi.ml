module Model = Sidecaml.Model
module Error = Sidecaml.Error
module In_process = Sidecaml.In_process

let error (number, message) = Error.of_number number ~message

(* --- The library ------------------------------------------------------------------------------------------------------ *)

let check_path path =
  if String.contains path '\000' then invalid_arg (Printf.sprintf "Sidecaml_ffi: a path with a NUL character: %S" path)

let open_library path = Result.map_error error (Core.open_library path)

let use_library path =
  check_path path;
  Result.map ignore (open_library path)

let library () = open_library ""

(* --- Names ------------------------------------------------------------------------------------------------------------ *)

module Names = In_process.Names

type file = { path : string; threads : int; state : (string * string) list }

let registered : file Names.t = Names.create ()

let register ?(threads = 1) ?(state = []) name ~path =
  check_path path;
  Names.add registered name { path; threads; state }

let forget name = Names.remove registered name
let is_path name = String.contains name '/' || Filename.check_suffix name ".onnx"

let find name =
  match Names.find registered name with
  | Error _ when is_path name -> Ok { path = name; threads = 1; state = [] }
  | Error _ when Names.all registered = [] ->
      let message =
        Printf.sprintf
          "no model is called %S: none is registered (Sidecaml_ffi.register), and the path of a file has a / or ends in .onnx"
          name
      in
      Error (Error.Rejected { code = Unknown_model; message })
  | found -> found

(* --- The engine ------------------------------------------------------------------------------------------------------- *)

let tensor_of (info : Core.tensor_info) : Model.tensor =
  { name = info.tensor_name; dtype = info.dtype_name; shape = Model.shape info.dims info.dim_names }

let model_of name session ~state =
  let infos = Array.to_list (Core.tensors session) in
  let outputs, inputs = List.partition (fun (info : Core.tensor_info) -> info.is_output) infos in
  In_process.carry ~state
    (In_process.model name ~engine:"onnx" ~inputs:(List.map tensor_of inputs) ~outputs:(List.map tensor_of outputs))

module Engine = struct
  type t = { session : Core.session; holds_lock : bool; mutable slots : Slot.t array }

  let ( let* ) = Result.bind

  (* With the session, which the caller closes. *)
  let load name { path; threads; state } =
    match Core.open_session path threads with
    | Error (_, problem) -> Error problem
    | Ok session -> (
        match model_of name session ~state with
        | Ok model -> Ok (session, model)
        | Error problem ->
            Core.close_session session;
            Error problem)

  let describe_file name file =
    match load name file with
    | Ok (session, model) ->
        Core.close_session session;
        In_process.visible model
    | Error problem -> In_process.failed_model name ~engine:"onnx" problem

  let describe name = Result.map (describe_file name) (find name)
  let models () = Ok (List.map (fun (name, file) -> describe_file name file) (Names.all registered))

  let open_model ~lock name =
    let* file = find name in
    match load name file with
    | Ok (session, model) -> Ok ({ session; holds_lock = lock = `Hold; slots = [||] }, model)
    | Error problem -> Error (In_process.not_loaded name problem)

  let attach t ~slots tensors =
    Array.iter Slot.close t.slots;
    t.slots <- Array.init slots (fun slot -> Slot.make t.session ~slot ~holds_lock:t.holds_lock tensors);
    Ok ()

  let run t ~slot ~deadline_ns = Slot.run t.slots.(slot) ~deadline_ns
  let failure t ~slot = Slot.failure t.slots.(slot)

  let close t =
    Array.iter Slot.close t.slots;
    Core.close_session t.session
end

include In_process.Make (Engine)
