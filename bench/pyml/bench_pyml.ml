open Bench_loop

(* The arrays also keep alive what the model is bound to. *)
type t = { run : Py.Object.t; inputs : Tensor.t array; outputs : Tensor.t array }

let allocates = true
let inputs t = t.inputs
let outputs t = t.outputs
let wake _ = ()
let rest _ = ()
let close _ = ()

let failed kind value =
  let name = Option.fold ~none:"error" ~some:Py.Object.to_string (Py.Object.get_attr_string kind "__name__") in
  Failed.fail "%s: %s" name (Py.Object.to_string value)

let run t =
  match Py.Object.call_function_obj_args t.run [||] with
  | _ -> ()
  | exception Py.E (kind, value) -> failed kind value

let allocate tensor =
  match Py.Tuple.to_list tensor with
  | [ name; element; dims ] ->
      let dims = Array.of_list (Py.List.to_list_map Py.Int.to_int dims) in
      Tensor.allocate ~name:(Py.String.to_string name) ~element:(Py.String.to_string element) dims
  | _ -> Failed.fail "binding.py gave a tensor of another form"

let bind path =
  let python = Py.Import.exec_code_module_from_string ~name:"binding" Source.binding in
  let call name arguments = Py.Module.get_function python name arguments in
  let session = call "load" [| Py.String.of_string path |] in
  let memory name = Array.of_list (Py.List.to_list_map allocate (call name [| session |])) in
  let addresses tensors = Py.List.of_array_map (fun tensor -> Py.Int.of_int (Tensor.address tensor)) tensors in
  let inputs = memory "inputs" and outputs = memory "outputs" in
  { run = call "bind" [| session; addresses inputs; addresses outputs |]; inputs; outputs }

let interpreter () =
  match Sys.getenv_opt "VIRTUAL_ENV" with
  | Some environment when environment <> "" -> Filename.concat environment "bin/python"
  | _ -> Failed.fail "VIRTUAL_ENV is not set: activate the environment that has onnxruntime"

let open_model path =
  Py.initialize ~interpreter:(interpreter ()) ~version:3 ();
  match bind path with
  | t -> t
  | exception Py.E (kind, value) -> failed kind value
