let most_calls = 1 lsl 30

let number command what ~least ?(most = max_int) text =
  match int_of_string_opt text with
  | Some n when n >= least && n <= most -> n
  | _ -> Failed.fail "%s: %s is a number from %d to %d, not %S" command what least most text

let say format = Printf.ksprintf (fun line -> print_endline line) format

let known = "the commands are `call TOUCH COUNT BUDGET_NS FILE` and `outputs SEEDS FILE`"

module Make (P : Path.S) = struct
  module Measured = Loop.Make (P)

  let call path touch count budget file =
    let plan =
      {
        Loop.touch = number "call" "TOUCH" ~least:0 touch;
        count = number "call" "COUNT" ~least:1 ~most:most_calls count;
        budget_ns = number "call" "BUDGET_NS" ~least:0 budget;
      }
    in
    let samples, made = Measured.measure path plan in
    Samples.write samples made file;
    say "done %d" made

  let outputs path seeds file =
    let seeds = number "outputs" "SEEDS" ~least:0 seeds in
    Output_file.write file (Measured.outputs path seeds);
    say "done %d" seeds

  let obey path line =
    match String.split_on_char ' ' line with
    | "call" :: touch :: count :: budget :: (_ :: _ as file) -> call path touch count budget (String.concat " " file)
    | "outputs" :: seeds :: (_ :: _ as file) -> outputs path seeds (String.concat " " file)
    | _ -> Failed.fail "unknown command %S: %s" line known

  let rec obey_all path =
    match input_line stdin with
    | line -> obey path line; obey_all path
    | exception End_of_file -> ()

  let serve path =
    Fun.protect
      ~finally:(fun () -> P.close path)
      (fun () ->
        Measured.once path;
        say "ready";
        obey_all path)
end
