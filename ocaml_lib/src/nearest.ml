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
  | (d, other) :: _ when d <= max 1 (String.length name / 3) -> Some other
  | _ -> None

let hint name known =
  match (nearest name known, known) with
  | Some other, _ -> Printf.sprintf " (did you mean %S?)" other
  | None, [] -> ""
  | None, _ -> Printf.sprintf " (there is %s)" (String.concat ", " (List.map (Printf.sprintf "%S") known))
