open Bench_loop
module Model = Sidecaml.Model
module Dtype = Sidecaml.Dtype

module Make (B : Sidecaml.Backend.S) = struct
  type t = { channel : B.t; inputs : Tensor.t array; outputs : Tensor.t array }

  let allocates = false
  let inputs t = t.inputs
  let outputs t = t.outputs
  let wake _ = ()
  let rest _ = ()
  let close t = B.close t.channel

  let failed channel error =
    let why = match B.gone channel with Some reason -> ": " ^ reason | None -> "" in
    Failed.fail "%s%s" (Sidecaml.Error.to_string error) why

  let run t = match B.run t.channel with Ok () -> () | Error error -> failed t.channel error

  let dtype_of (tensor : Model.tensor) =
    match Dtype.of_name tensor.dtype with
    | Some dtype -> dtype
    | None -> Failed.fail "tensor %s: an element type that this program does not know" (Model.tensor_to_string tensor)

  let input channel (tensor : Model.tensor) =
    let (Dtype.Any dtype) = dtype_of tensor in
    let view = Tensor.of_genarray (B.input channel tensor.name dtype) in
    if not (Tensor.fillable view) then
      Failed.fail "input %s: the benchmark fills float32 and int64" (Model.tensor_to_string tensor);
    view

  let output channel (tensor : Model.tensor) =
    let (Dtype.Any dtype) = dtype_of tensor in
    Tensor.of_genarray (B.output channel tensor.name dtype)

  let of_channel channel =
    let views view tensors = Array.of_list (List.map (view channel) tensors) in
    let model = B.model channel in
    { channel; inputs = views input model.inputs; outputs = views output model.outputs }

  let open_model ?socket ?policy ?lock name =
    match B.open_model ?socket ?policy ?lock name with
    | Error error -> Failed.fail "%s" (Sidecaml.Error.to_string error)
    | Ok channel -> (
        match of_channel channel with
        | t -> t
        | exception exn -> B.close channel; raise exn)
end
