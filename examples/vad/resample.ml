let pi = 4. *. atan 1.
let zero_crossings = 16.

(* Leaves a transition band, so that what lies just above half the lower rate does not fold back. *)
let rolloff = 0.95
let sinc x = if Float.abs x < 1e-9 then 1. else sin (pi *. x) /. (pi *. x)
let hann x = if Float.abs x >= 1. then 0. else 0.5 *. (1. +. cos (pi *. x))

let resample ~from_rate ~to_rate samples =
  if from_rate <= 0 || to_rate <= 0 then invalid_arg "Resample.resample: a rate is a positive number";
  let count = Array.length samples in
  let step = float_of_int from_rate /. float_of_int to_rate in
  (* In cycles per input sample; 1 would be half the input's rate. *)
  let cutoff = rolloff *. Float.min 1. (1. /. step) in
  let reach = zero_crossings /. cutoff in
  let weight distance = cutoff *. sinc (cutoff *. distance) *. hann (distance /. reach) in
  let at time =
    let first = max 0 (int_of_float (ceil (time -. reach))) in
    let last = min (count - 1) (int_of_float (floor (time +. reach))) in
    let sum = ref 0. in
    for i = first to last do
      sum := !sum +. (samples.(i) *. weight (time -. float_of_int i))
    done;
    !sum
  in
  if from_rate = to_rate then Array.copy samples
  else Array.init (count * to_rate / from_rate) (fun n -> at (float_of_int n *. step))
