(* Levenshtein's distance, row by row. *)
let distance a b =
  let columns = String.length b in
  let previous = Array.init (columns + 1) Fun.id in
  let current = Array.make (columns + 1) 0 in
  String.iteri
    (fun i x ->
      current.(0) <- i + 1;
      String.iteri
        (fun j y ->
          let change = previous.(j) + if Char.equal x y then 0 else 1 in
          current.(j + 1) <- min change (1 + min previous.(j + 1) current.(j)))
        b;
      Array.blit current 0 previous 0 (columns + 1))
    a;
  previous.(columns)

let nearest name known =
  let lower = String.lowercase_ascii in
  let scored = List.map (fun other -> (distance (lower name) (lower other), other)) known in
  match List.sort compare scored with
  | (d, other) :: _ when d <= max 1 (String.length name / 3) && d < String.length name -> Some other
  | _ -> None

let hint name known =
  match (nearest name known, known) with
  | Some other, _ -> Printf.sprintf " (did you mean %S?)" other
  | None, [] -> ""
  | None, _ -> Printf.sprintf " (there is %s)" (String.concat ", " (List.map (Printf.sprintf "%S") known))

(* --- In the daemon's words: the texts must be the same wherever a model runs ----------------------------------------- *)

let quoted = Core.quoted

let most_listed = 8

let rec take n = function first :: rest when n > 0 -> first :: take (n - 1) rest | _ -> []

let sentence name known =
  let names = List.sort_uniq compare known in
  match (nearest name names, names) with
  | _, [] -> "there is none"
  | Some other, _ -> Printf.sprintf "did you mean %s?" (quoted other)
  | None, _ ->
      let listed = String.concat ", " (List.map quoted (take most_listed names)) and rest = List.length names - most_listed in
      if rest > 0 then Printf.sprintf "there is %s and %d more" listed rest else "there is " ^ listed
