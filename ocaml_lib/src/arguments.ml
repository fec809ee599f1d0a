let text what text =
  if String.contains text '\000' then invalid_arg (Printf.sprintf "Sidecaml: a %s with a NUL character: %S" what text)

let dim (name, size) =
  text "dimension's name" name;
  if size < 0 then invalid_arg (Printf.sprintf "Sidecaml: dimension %S cannot be %d" name size)

let text_bytes = function
  | Some bytes when bytes < 1 -> invalid_arg (Printf.sprintf "Sidecaml: room for %d bytes of text" bytes)
  | _ -> ()

let timeout_ns ns = if ns < 0 then invalid_arg (Printf.sprintf "Sidecaml: a timeout of %d ns" ns)

let slots slots =
  if slots < 1 || slots > Abi.max_slots then
    invalid_arg (Printf.sprintf "Sidecaml: a channel has 1 to %d slots, not %d" Abi.max_slots slots)
