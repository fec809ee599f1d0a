open Bench_loop
module Ipc = Backend_path.Make (Sidecaml.Ipc)

let open_with ?policy ?lock (arguments : Arguments.t) =
  Opened.Opened ((module Ipc), Ipc.open_model ?socket:arguments.socket ?policy ?lock (Arguments.name arguments))

let waiting policy = open_with ~policy ?lock:None

(* The lane is that of the model in the daemon. *)
let all =
  [
    ("ipc-native-spin", waiting `Spin);
    ("ipc-native-adaptive", waiting `Adaptive);
    ("ipc-native-block", waiting `Block);
    ("ipc-python-spin", waiting `Spin);
    ("ipc-python-block", waiting `Block);
  ]
