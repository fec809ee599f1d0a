let could_not path reason = Failed.fail "%s could not be written: %s" path reason

let written path out use =
  match use out; close_out out with
  | () -> ()
  | exception Sys_error reason -> could_not path reason

let write path use =
  let out = open_out_bin path in
  Fun.protect ~finally:(fun () -> close_out_noerr out) (fun () -> written path out use)
