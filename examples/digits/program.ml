(* Reads handwritten digits with the model "digits", in batches, and says how many it read right:

     program.exe IMAGES.npy DIGITS.npy [--in-process MODEL.onnx] [--scores SCORES.npy]

   Only the first lines know where the model runs: in the daemon, by whatever engine its configuration names, or in this
   process. *)

open Bigarray

let most = 64

module Program (B : Sidecaml.Backend.S) = struct
  (* The scores of every image: [most] at a time, and what is left at the end. *)
  let scores name (images : (float, float32_elt, c_layout) Array2.t) =
    let count = Array2.dim1 images in
    let all = Array2.create float32 c_layout count 10 in
    B.with_model_exn name ~dims:[ ("N", most) ] (fun m ->
        let first = ref 0 in
        while !first < count do
          let size = min most (count - !first) in
          B.set_dims m "images" [| size; 64 |];
          Array2.blit (Array2.sub_left images !first size) (B.input2 m "images" Float32);
          B.run_exn m;
          Array2.blit (B.output2 m "scores" Float32) (Array2.sub_left all !first size);
          first := !first + size
        done);
    all
end

module In_daemon = Program (Sidecaml)
module In_process = Program (Sidecaml_ffi)

let best scores row =
  let found = ref 0 in
  for digit = 1 to 9 do
    if scores.{row, digit} > scores.{row, !found} then found := digit
  done;
  !found

let fail text =
  prerr_endline text;
  exit 1

let read path =
  match Npy.read path with Ok array -> array | Error text -> fail text

let images path : (float, float32_elt, c_layout) Array2.t =
  match read path with
  | Npy (Float32, array) when Genarray.num_dims array = 2 -> array2_of_genarray array
  | _ -> fail (path ^ ": expected an array of float32 with two dimensions")

let digits path : (int64, int64_elt, c_layout) Array1.t =
  match read path with
  | Npy (Int64, array) when Genarray.num_dims array = 1 -> array1_of_genarray array
  | _ -> fail (path ^ ": expected an array of int64 with one dimension")

let write path scores =
  match Npy.write path (Npy (Float32, genarray_of_array2 scores)) with Ok () -> () | Error text -> fail text

let () =
  let files = ref [] and in_process = ref "" and output = ref "" in
  let options =
    [
      ("--in-process", Arg.Set_string in_process, "MODEL.onnx  run this file here, without a daemon");
      ("--scores", Arg.Set_string output, "SCORES.npy  write the scores there");
    ]
  in
  let usage = "program.exe IMAGES.npy DIGITS.npy [OPTIONS]" in
  Arg.parse options (fun file -> files := file :: !files) usage;
  match List.rev !files with
  | [ image_file; digit_file ] -> (
      let images = images image_file and digits = digits digit_file in
      match if !in_process = "" then In_daemon.scores "digits" images else In_process.scores !in_process images with
      | scores ->
          let right = ref 0 in
          for row = 0 to Array1.dim digits - 1 do
            if best scores row = Int64.to_int digits.{row} then incr right
          done;
          if !output <> "" then write !output scores;
          let count = Array1.dim digits in
          Printf.printf "%d of %d digits are right, %.1f %%\n" !right count
            (100. *. float_of_int !right /. float_of_int count)
      | exception Sidecaml.Error.Error e -> fail (Sidecaml.Error.to_string e))
  | _ ->
      prerr_endline usage;
      exit 2
