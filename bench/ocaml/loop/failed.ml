exception Failed of string

let fail format = Printf.ksprintf (fun text -> raise (Failed text)) format

let text_of = function
  | Failed text | Sys_error text | Invalid_argument text -> text
  | Failure text -> text
  | Unix.Unix_error (error, call, "") -> Printf.sprintf "%s: %s" call (Unix.error_message error)
  | Unix.Unix_error (error, call, what) -> Printf.sprintf "%s: %s: %s" call what (Unix.error_message error)
  | exn -> Printexc.to_string exn
