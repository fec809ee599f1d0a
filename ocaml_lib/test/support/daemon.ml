type t = { folder : string; socket : string; models : string list; mutable pid : int; mutable running : bool; mutable asked : bool }

let patience_s = 300.

let python () =
  match Sys.getenv_opt "SIDECAML_PYTHON" with
  | Some path when path <> "" -> path
  | _ ->
      prerr_endline
        "the OCaml tests need a daemon: set SIDECAML_PYTHON to a Python that has the daemon's requirements, as `make \
         test` does, for example SIDECAML_PYTHON=$PWD/.venv/bin/python dune runtest";
      exit 1

let script = Filename.concat (Filename.dirname Sys.executable_name) "support/serve.py"

let read path =
  let channel = open_in_bin path in
  Fun.protect ~finally:(fun () -> close_in channel) (fun () -> really_input_string channel (in_channel_length channel))

let contains text part =
  let n = String.length part in
  let rec at i = i + n <= String.length text && (String.sub text i n = part || at (i + 1)) in
  at 0

let log folder = read (Filename.concat folder "daemon.log")

let make_folder () =
  let path = Filename.temp_file "sidecaml-test" "" in
  Sys.remove path;
  Unix.mkdir path 0o700;
  path

let remove folder =
  Array.iter (fun name -> Sys.remove (Filename.concat folder name)) (Sys.readdir folder);
  Unix.rmdir folder

let rec wait_ready d give_up =
  if not (contains (log d.folder) "ready: ") then begin
    (match Unix.waitpid [ WNOHANG ] d.pid with
    | 0, _ -> ()
    | _ ->
        d.running <- false;
        failwith ("the daemon ended before it was ready:\n" ^ log d.folder));
    if Unix.gettimeofday () > give_up then failwith ("the daemon is not ready:\n" ^ log d.folder);
    Unix.sleepf 0.02;
    wait_ready d give_up
  end

let spawn folder arguments =
  let python = python () in
  let log = Unix.openfile (Filename.concat folder "daemon.log") [ O_WRONLY; O_CREAT; O_TRUNC; O_CLOEXEC ] 0o600 in
  let null = Unix.openfile "/dev/null" [ O_RDONLY; O_CLOEXEC ] 0 in
  let command = Array.of_list (python :: script :: folder :: arguments) in
  let pid = Unix.create_process python command null log log in
  Unix.close log;
  Unix.close null;
  pid

let pause d ~seconds =
  Unix.kill d.pid Sys.sigstop;
  (* By another process: nothing of ours has to run meanwhile. *)
  if Sys.command (Printf.sprintf "(sleep %d; kill -CONT %d) &" seconds d.pid) <> 0 then Unix.kill d.pid Sys.sigcont

let rec wait_end d give_up =
  match Unix.waitpid [ WNOHANG ] d.pid with
  | 0, _ when Unix.gettimeofday () < give_up ->
      Unix.sleepf 0.01;
      wait_end d give_up
  | 0, _ ->
      Unix.kill d.pid Sys.sigkill;
      ignore (Unix.waitpid [] d.pid);
      failwith ("SIGTERM did not end the daemon:\n" ^ log d.folder)
  | _, status -> status

let kill d =
  if d.running then begin
    d.running <- false;
    Unix.kill d.pid Sys.sigkill;
    ignore (Unix.waitpid [] d.pid)
  end

(* Once: a second signal means at once. *)
let ask_to_stop d =
  if not d.asked then begin
    d.asked <- true;
    Unix.kill d.pid Sys.sigterm
  end

let wait_stopped d =
  d.running <- false;
  let status = wait_end d (Unix.gettimeofday () +. patience_s) in
  if status <> WEXITED 0 then failwith ("the daemon ended badly:\n" ^ log d.folder)

let stop d =
  if d.running then begin
    ask_to_stop d;
    wait_stopped d
  end;
  if Sys.file_exists d.folder then remove d.folder

let begin_again d =
  d.pid <- spawn d.folder d.models;
  d.running <- true;
  d.asked <- false

let start_again d =
  begin_again d;
  wait_ready d (Unix.gettimeofday () +. patience_s)

let start ?(models = []) () =
  let folder = make_folder () in
  let socket = Filename.concat folder "sidecaml.sock" in
  let d = { folder; socket; models; pid = spawn folder models; running = true; asked = false } in
  match wait_ready d (Unix.gettimeofday () +. patience_s) with
  | () -> d
  | exception exn ->
      kill d;
      remove folder;
      raise exn

let socket d = d.socket

let workers d =
  let children = Printf.sprintf "/proc/%d/task/%d/children" d.pid d.pid in
  let channel = open_in_bin children in
  let line = Fun.protect ~finally:(fun () -> close_in channel) (fun () -> try input_line channel with End_of_file -> "") in
  List.filter_map int_of_string_opt (String.split_on_char ' ' line)

let the_shared = lazy (start ())
let shared () = socket (Lazy.force the_shared)

let stopping_shared tests =
  Fun.protect ~finally:(fun () -> if Lazy.is_val the_shared then stop (Lazy.force the_shared)) tests
