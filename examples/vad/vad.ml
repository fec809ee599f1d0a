(* Streams speech through a voice detector that lives in the daemon, and draws where it hears speech.

   The model takes 512 new samples at 16 kHz after the 64 before them, and the sample rate; it gives the probability of
   speech. The three tensors are Bigarrays in memory shared with the daemon. What the model remembers from frame to frame
   is its state, which the daemon's worker carries: here it only begins anew with each sound. *)

open Bigarray

let rate = 16_000
let context = 64
let frame = 512
let frame_seconds = float_of_int frame /. float_of_int rate

let fail format = Printf.ksprintf (fun text -> prerr_endline text; exit 1) format

(* --- One frame ------------------------------------------------------------------------------------------------- *)

type detector = {
  model : Sidecaml.t;
  input : (float, float32_elt, c_layout) Array2.t;
  probability : (float, float32_elt, c_layout) Array2.t;
}

let detector model =
  let sr = Sidecaml.input0 model "sr" Int64 in
  Array0.set sr (Int64.of_int rate);
  {
    model;
    input = Sidecaml.input2 model "input" Float32;
    probability = Sidecaml.output2 model "output" Float32;
  }

let forget d =
  Array2.fill d.input 0.;
  Sidecaml.reset d.model

(* The last samples become the context of the next frame; the frame is written straight into shared memory. *)
let fill d samples at =
  for i = 0 to context - 1 do
    d.input.{0, i} <- d.input.{0, frame + i}
  done;
  for i = 0 to frame - 1 do
    d.input.{0, context + i} <- samples.(at + i)
  done

let run_frame d samples at =
  fill d samples at;
  let start = Sidecaml.now_ns () in
  (match Sidecaml.run d.model with
  | Ok () -> ()
  | Error e -> fail "vad: %s" (Sidecaml.Error.to_string e));
  (d.probability.{0, 0}, Sidecaml.now_ns () - start)

(* --- Recording, for whoever wants to check the numbers: see demo.py ---------------------------------------------- *)

let record buffer d ~first =
  let add x = Buffer.add_int32_le buffer (Int32.bits_of_float x) in
  Buffer.add_int32_le buffer (if first then 1l else 0l);
  for i = 0 to context + frame - 1 do
    add d.input.{0, i}
  done;
  add d.probability.{0, 0}

(* --- One sound --------------------------------------------------------------------------------------------------- *)

type heard = { probabilities : float array; took_ns : int array }

let listen d buffer samples =
  forget d;
  let frames = Array.length samples / frame in
  let probabilities = Array.make frames 0. and took_ns = Array.make frames 0 in
  for i = 0 to frames - 1 do
    let probability, took = run_frame d samples (i * frame) in
    probabilities.(i) <- probability;
    took_ns.(i) <- took;
    record buffer d ~first:(i = 0)
  done;
  { probabilities; took_ns }

(* Stretches of frames above one half, as seconds from the start. *)
let speech probabilities =
  let ends = ref [] and start = ref None in
  let close i =
    match !start with
    | Some first -> ends := (float_of_int first *. frame_seconds, float_of_int i *. frame_seconds) :: !ends; start := None
    | None -> ()
  in
  Array.iteri
    (fun i p -> if p < 0.5 then close i else if !start = None then start := Some i)
    probabilities;
  close (Array.length probabilities);
  List.rev !ends

let bars = [| "▁"; "▂"; "▃"; "▄"; "▅"; "▆"; "▇"; "█" |]
let bar p = bars.(max 0 (min 7 (int_of_float (p *. 8.))))

let show path heard =
  let timeline = String.concat "" (Array.to_list (Array.map bar heard.probabilities)) in
  let stretch (a, b) = Printf.sprintf "%.2f-%.2f" a b in
  let found =
    match speech heard.probabilities with
    | [] -> "no speech"
    | stretches -> "speech at " ^ String.concat ", " (List.map stretch stretches) ^ " s"
  in
  let padding = String.make (max 1 (50 - Array.length heard.probabilities)) ' ' in
  Printf.printf "%-16s %s%s%s\n%!" (Filename.remove_extension (Filename.basename path)) timeline padding found

let load path =
  match Wav.read path with
  | Ok sound -> Resample.resample ~from_rate:sound.rate ~to_rate:rate sound.samples
  | Error text -> fail "vad: %s" text

(* --- All of them ------------------------------------------------------------------------------------------------- *)

let percentile sorted share =
  let n = Array.length sorted in
  sorted.(min (n - 1) (int_of_float (share *. float_of_int n)))

let show_latency took_ns =
  let sorted = Array.copy took_ns in
  Array.sort compare sorted;
  let us share = float_of_int (percentile sorted share) /. 1e3 in
  Printf.printf "latency  p50 %.0f us  p90 %.0f us  p99 %.0f us  max %.0f us\n" (us 0.5) (us 0.9) (us 0.99) (us 1.);
  Printf.printf "p50 %.0f us  p99 %.0f us\n%!" (us 0.5) (us 0.99)

let write path buffer =
  let channel = open_out_bin path in
  Fun.protect ~finally:(fun () -> close_out channel) (fun () -> Buffer.output_buffer channel buffer)

let () =
  let socket = ref None and record_path = ref None and paths = ref [] in
  let set target value = target := Some value in
  Arg.parse
    [
      ("--socket", Arg.String (set socket), "PATH  the daemon's socket");
      ("--record", Arg.String (set record_path), "FILE  write every frame's input and probability");
    ]
    (fun path -> paths := path :: !paths)
    "vad [--socket PATH] [--record FILE] SOUND.wav ...";
  if !paths = [] then fail "vad: name at least one WAV file";
  let buffer = Buffer.create 0x100000 in
  let heard =
    Sidecaml.with_model_exn ?socket:!socket ~dims:[ ("batch", 1); ("sequence", context + frame) ] "vad" @@ fun model ->
    let d = detector model in
    Printf.printf "one bar  %d ms of sound; its height, the probability of speech\n" (1000 * frame / rate);
    List.map
      (fun path ->
        let heard = listen d buffer (load path) in
        show path heard;
        heard)
      (List.rev !paths)
  in
  Option.iter (fun path -> write path buffer) !record_path;
  if List.for_all (fun h -> speech h.probabilities = []) heard then fail "vad: no speech found";
  match Array.concat (List.map (fun h -> h.took_ns) heard) with
  | [||] -> fail "vad: every sound is shorter than one frame of %d samples" frame
  | took_ns -> show_latency took_ns
