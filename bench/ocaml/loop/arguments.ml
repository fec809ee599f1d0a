type t = {
  choice : string;
  model : string option;
  name : string option;
  socket : string option;
  server_core : int option;
}

type measurement = { arguments : t; count : int; file : string }

let unexpected word = Failed.fail "unexpected argument %S" word

let read choice others anonymous usage =
  let chosen = ref None and model = ref None and name = ref None and socket = ref None and server_core = ref None in
  let known =
    [
      Program.text choice chosen;
      Program.text "--model" model;
      Program.text "--name" name;
      Program.text "--socket" socket;
      Program.number "--server-core" server_core;
    ]
  in
  Program.parse (known @ others) anonymous (Printf.sprintf usage choice);
  {
    choice = Program.required choice !chosen;
    model = !model;
    name = !name;
    socket = !socket;
    server_core = !server_core;
  }

let driver () =
  read "--path" [] unexpected "driver.exe %s PATH --model FILE.onnx [--name MODEL --socket SOCKET] [--server-core N]"

let measurement choice =
  let count = ref None and file = ref None in
  let anonymous word = if !file = None then file := Some word else unexpected word in
  let arguments =
    read choice [ Program.number "--count" count ] anonymous
      "%s CHOICE --model FILE.onnx [--name MODEL --socket SOCKET] --count N FILE"
  in
  let count = Program.required "--count" !count in
  if count < 1 then Failed.fail "--count is a number from 1, not %d" count;
  { arguments; count; file = Program.required "FILE" !file }

let model t = Program.required "--model" t.model
let name t = Program.required "--name" t.name
let server_core t = Program.required "--server-core" t.server_core
