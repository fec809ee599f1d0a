(* Finds the faces in a picture with the daemon's model "faces", and draws a frame around each:

     program.exe PICTURE.ppm FRAMED.ppm

   How many faces there are is known when the model has run. The channel is opened with room for one; when there are
   more, [run_growing] opens it anew with room enough, and runs again. *)

open Bigarray

type picture = { width : int; height : int; pixels : Bytes.t }

let read path =
  let channel = open_in_bin path in
  Fun.protect ~finally:(fun () -> close_in channel) @@ fun () ->
  let magic = input_line channel in
  let width, height = Scanf.sscanf (input_line channel) "%d %d" (fun width height -> (width, height)) in
  let most = input_line channel in
  if magic <> "P6" || most <> "255" then failwith (path ^ ": expected a PPM file of 8 bits a colour");
  let pixels = Bytes.create (3 * width * height) in
  really_input channel pixels 0 (Bytes.length pixels);
  { width; height; pixels }

let write path { width; height; pixels } =
  let channel = open_out_bin path in
  Fun.protect ~finally:(fun () -> close_out channel) @@ fun () ->
  Printf.fprintf channel "P6\n%d %d\n255\n" width height;
  output_bytes channel pixels

let fill (view : (int, int8_unsigned_elt, c_layout) Array3.t) { width; height; pixels } =
  for row = 0 to height - 1 do
    for column = 0 to width - 1 do
      for colour = 0 to 2 do
        view.{row, column, colour} <- Bytes.get_uint8 pixels ((((row * width) + column) * 3) + colour)
      done
    done
  done

let dot picture row column =
  if row >= 0 && row < picture.height && column >= 0 && column < picture.width then
    Bytes.blit_string "\x00\xff\x00" 0 picture.pixels (3 * ((row * picture.width) + column)) 3

let frame picture ~top ~left ~bottom ~right =
  for row = top to bottom do
    dot picture row left;
    dot picture row right
  done;
  for column = left to right do
    dot picture top column;
    dot picture bottom column
  done

let find picture =
  let dims = [ ("H", picture.height); ("W", picture.width); ("faces", 1) ] in
  Sidecaml.with_model_exn "faces" ~dims @@ fun m ->
  fill (Sidecaml.input3 m "image" Uint8) picture;
  (match Sidecaml.run_growing m with
  | Ok `Fitted -> ()
  | Ok `Grown -> print_endline "more faces than there was room for: the channel has grown"
  | Error e -> raise (Sidecaml.Error.Error e));
  let boxes = Sidecaml.output2 m "boxes" Float32 and scores = Sidecaml.output1 m "scores" Float32 in
  for face = 0 to Array1.dim scores - 1 do
    let at side = int_of_float (Float.round boxes.{face, side}) in
    let top = at 0 and left = at 1 and bottom = at 2 and right = at 3 in
    Printf.printf "face  rows %d to %d, columns %d to %d, score %.3f\n" top bottom left right scores.{face};
    frame picture ~top ~left ~bottom ~right
  done;
  Printf.printf "faces: %d\n" (Array1.dim scores)

let () =
  match Sys.argv with
  | [| _; source; target |] -> (
      try
        let picture = read source in
        find picture;
        write target picture
      with
      | Sidecaml.Error.Error e ->
          prerr_endline (Sidecaml.Error.to_string e);
          exit 1
      | Failure text | Sys_error text ->
          prerr_endline text;
          exit 1
      | End_of_file | Scanf.Scan_failure _ ->
          prerr_endline (source ^ ": expected a PPM file, and it ends early or is another");
          exit 1)
  | _ ->
      prerr_endline "program.exe PICTURE.ppm FRAMED.ppm";
      exit 2
