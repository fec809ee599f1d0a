open Bigarray

type t = (int, int_elt, c_layout) Array1.t

let create count =
  let samples = array1_of_genarray (Aligned.create Int [| count |]) in
  (samples : t)

let set (samples : t) i ns = Array1.unsafe_set samples i ns

(* An `int` Bigarray holds machine words of 8 bytes, untagged, on every machine that sidecaml runs on. *)
let write samples count path =
  let written = genarray_of_array1 (Array1.sub samples 0 count) in
  Output_file.write path (fun out -> output_string out (Tensor.contents (Tensor.of_genarray written)))
