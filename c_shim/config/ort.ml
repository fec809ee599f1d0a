(* Finds the folder of ONNX Runtime's C header, in the same places as setup.py. *)

module C = Configurator.V1

let header = "onnxruntime_c_api.h"
let has_header folder = Sys.file_exists (Filename.concat folder header)

let from_pkg_config c =
  match Option.bind (C.Pkg_config.get c) (fun tool -> C.Pkg_config.query tool ~package:"libonnxruntime") with
  | None -> []
  | Some found ->
      let folder flag =
        if String.length flag > 2 && String.sub flag 0 2 = "-I" then Some (String.sub flag 2 (String.length flag - 2))
        else None
      in
      List.filter_map folder found.cflags

let from_system =
  List.concat_map
    (fun prefix -> List.map (Filename.concat prefix) [ "onnxruntime"; "onnxruntime/core/session"; "." ])
    [ "/usr/local/include"; "/usr/include" ]

(* Where scripts/onnxruntime-header puts it: in the checkout that this build folder lies in. *)
let rec from_checkout folder =
  let parent = Filename.dirname folder in
  let place = Filename.concat folder "build/onnxruntime/include" in
  if parent = folder then [ place ] else place :: from_checkout parent

let candidates c =
  match Sys.getenv_opt "SIDECAML_ONNXRUNTIME_INCLUDE" with
  | Some chosen when chosen <> "" -> [ chosen ]
  | _ -> from_pkg_config c @ from_system @ from_checkout (Sys.getcwd ())

let () =
  C.main ~name:"sidecaml-ffi" (fun c ->
      match List.find_opt has_header (candidates c) with
      | Some folder -> C.Flags.write_sexp "ort_c_flags.sexp" [ "-I" ^ folder ]
      | None ->
          C.die
            "sidecaml-ffi needs ONNX Runtime's %s: install it (on Debian: libonnxruntime-dev), name its folder by \
             SIDECAML_ONNXRUNTIME_INCLUDE, or run scripts/onnxruntime-header in sidecaml's sources"
            header)
