(* Cases of ONNX's conformance suite on one backend:

     cases.exe daemon SOCKET < plan
     cases.exe in-process < plan

   A line of the plan is one run: the model, a folder with input_N.pb, a folder for output_N.pb, and NAME=SIZE for each
   dynamic dimension, separated by tabs. Each is answered with a line: an error's number (0: none, -1: not
   the backend's), a tab and its words. *)

open Onnx_files
module Dtype = Sidecaml.Dtype

type run = { model : string; inputs : string; outputs : string; dims : (string * int) list }

(* The plan's mistakes, which are not the backend's. *)
let failed format = Printf.ksprintf failwith format

let dim_of text =
  (* A name may hold "=". *)
  match String.rindex_opt text '=' with
  | Some at -> (String.sub text 0 at, int_of_string (String.sub text (at + 1) (String.length text - at - 1)))
  | None -> failed "%S: NAME=SIZE was expected" text

let run_of line =
  match String.split_on_char '\t' line with
  | model :: inputs :: outputs :: dims -> { model; inputs; outputs; dims = List.map dim_of dims }
  | _ -> failed "%S: MODEL, INPUTS and OUTPUTS were expected" line

let file folder kind number = Filename.concat folder (Printf.sprintf "%s_%d.pb" kind number)

let read path =
  let channel = open_in_bin path in
  let contents =
    Fun.protect
      ~finally:(fun () -> close_in channel)
      (fun () -> really_input_string channel (in_channel_length channel))
  in
  match Tensor_proto.of_string contents with Ok tensor -> tensor | Error reason -> failed "%s: %s" path reason

let write path tensor =
  let channel = open_out_bin path in
  output_string channel (Tensor_proto.to_string tensor);
  close_out channel

module Over (B : Sidecaml.Backend.S) = struct
  let is_dynamic (t : Sidecaml.Model.tensor) =
    Array.exists (function Sidecaml.Model.Dynamic _ -> true | Fixed _ -> false) t.shape

  let dtype_of (t : Sidecaml.Model.tensor) =
    match Dtype.of_name t.dtype with Some any -> any | None -> failed "the element type %s is unknown" t.dtype

  let number_of (t : Sidecaml.Model.tensor) =
    match Tensor_proto.number_of_name t.dtype with
    | Some number -> number
    | None -> failed "the element type %s is none of ONNX's" t.dtype

  let fill channel (declared : Sidecaml.Model.tensor) (tensor : Tensor_proto.t) =
    if tensor.data_type <> number_of declared then failed "input %s is given another element type" declared.name;
    if is_dynamic declared then B.set_dims channel declared.name tensor.dims;
    match (dtype_of declared, tensor.elements) with
    | Any dtype, Raw bytes -> Raw.fill (B.input channel declared.name dtype) bytes
    | Any _, Strings strings -> Sidecaml.Strings.set_all (B.input_strings channel declared.name) strings

  let elements channel (declared : Sidecaml.Model.tensor) =
    match dtype_of declared with
    | Any String -> Tensor_proto.Strings (Sidecaml.Strings.to_array (B.output_strings channel declared.name))
    | Any dtype -> Tensor_proto.Raw (Raw.contents (B.output channel declared.name dtype))

  let answer channel (declared : Sidecaml.Model.tensor) : Tensor_proto.t =
    { data_type = number_of declared; dims = B.output_dims channel declared.name; elements = elements channel declared }

  let run_once socket run =
    let of_channel channel =
      let model = B.model channel in
      List.iteri (fun i declared -> fill channel declared (read (file run.inputs "input" i))) model.inputs;
      let outcome = B.run channel in
      if outcome = Ok () then
        List.iteri (fun i declared -> write (file run.outputs "output" i) (answer channel declared)) model.outputs;
      outcome
    in
    Result.join (B.with_model ~socket ~dims:run.dims run.model of_channel)

  let outcome socket line =
    match run_once socket (run_of line) with
    | Ok () -> (0, "")
    | Error e -> Sidecaml.Error.to_number e
    | exception (Failure text | Invalid_argument text | Sys_error text) -> (-1, text)

  let run socket line =
    let number, words = outcome socket line in
    Printf.printf "%d\t%s\n%!" number (String.map (function '\n' -> ' ' | c -> c) words)
end

module In_daemon = Over (Sidecaml)
module In_process = Over (Sidecaml_ffi)

let rec each_line f =
  match input_line stdin with
  | exception End_of_file -> ()
  | line ->
      f line;
      each_line f

let () =
  match Sys.argv with
  | [| _; "daemon"; socket |] -> each_line (In_daemon.run socket)
  | [| _; "in-process" |] -> each_line (In_process.run "")
  | _ ->
      prerr_endline "usage: cases.exe daemon SOCKET | cases.exe in-process";
      exit 2
