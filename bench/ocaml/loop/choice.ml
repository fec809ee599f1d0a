let find what known name =
  match List.assoc_opt name known with
  | Some found -> found
  | None -> Failed.fail "there is no %s %S: there are %s" what name (String.concat ", " (List.map fst known))
