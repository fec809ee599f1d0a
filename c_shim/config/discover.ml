(* Finds msgpack-c, which calls itself "msgpack" in older packages and "msgpack-c" in newer ones. *)

module C = Configurator.V1

let names = [ "msgpack-c"; "msgpack" ]

let find c =
  match C.Pkg_config.get c with
  | None -> C.die "pkg-config is missing: on Debian, install pkg-config"
  | Some pkg_config -> (
      match List.find_map (fun package -> C.Pkg_config.query pkg_config ~package) names with
      | Some found -> found
      | None -> C.die "msgpack-c (%s) is missing: on Debian, install libmsgpack-dev" (String.concat " or " names))

let () =
  C.main ~name:"sidecaml" (fun c ->
      let found = find c in
      C.Flags.write_sexp "c_flags.sexp" found.cflags;
      C.Flags.write_sexp "c_library_flags.sexp" (found.libs @ [ "-lpthread" ]))
