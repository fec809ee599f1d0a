type t = { random : Random.State.t; longest_ns : int; until_ns : int; mutable most_ns : int }

let start ~first_ns ~longest_ns ~until_ns =
  { random = Random.State.make_self_init (); longest_ns; until_ns; most_ns = min first_ns longest_ns }

let left_ns t = max 0 (t.until_ns - Core.now_ns ())

let pause_ns t =
  let pause = Int64.to_int (Random.State.int64 t.random (Int64.of_int (t.most_ns + 1))) in
  t.most_ns <- (if t.most_ns > t.longest_ns / 2 then t.longest_ns else 2 * t.most_ns);
  min pause (left_ns t)

let sleep t =
  Unix.sleepf (float_of_int (pause_ns t) /. 1e9);
  left_ns t > 0
