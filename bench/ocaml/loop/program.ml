let failed = 1
let one_line text = String.concat " " (String.split_on_char '\n' (String.trim text))

let main body =
  match body () with
  | () -> exit 0
  | exception exn ->
      print_endline ("error " ^ one_line (Failed.text_of exn));
      exit failed

let required name = function
  | Some value -> value
  | None -> Failed.fail "%s is missing" name

(* Arg's message goes on with the usage. *)
let first_line text = match String.index_opt text '\n' with Some end_ -> String.sub text 0 end_ | None -> text

let parse spec file usage =
  match Arg.parse_argv Sys.argv spec file usage with
  | () -> ()
  | exception Arg.Bad text -> Failed.fail "%s" (first_line text)
  | exception Arg.Help text -> print_string text; exit 0

let text name cell = (name, Arg.String (fun value -> cell := Some value), "")
let number name cell = (name, Arg.Int (fun value -> cell := Some value), "")
