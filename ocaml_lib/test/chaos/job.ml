open Bigarray
open Sidecaml

type t = { fill : slot:int -> id:int -> unit; check : slot:int -> id:int -> (unit, string) result }

(* --- What they share --------------------------------------------------------------------------------------------- *)

let float32 x = Int32.float_of_bits (Int32.bits_of_float x)

(* Some number with a fraction that all of float32's bits take part in. *)
let scattered id i = float32 (float_of_int (((id * 7919) + (i * 104_729)) mod 1_000_003) /. 997.)
let per_slot channel view = Array.init (slots channel) (fun slot -> view ~slot)
let wrong format = Printf.ksprintf (fun text -> Error text) format
let ( let* ) = Result.bind

(* Bit for bit: a NaN is itself, and zeros have signs. *)
let same what (ours : float) (theirs : float) =
  if Int32.equal (Int32.bits_of_float ours) (Int32.bits_of_float theirs) then Ok ()
  else wrong "%s: expected %h, got %h" what theirs ours

let all_same what count ours theirs =
  let rec from i =
    if i = count then Ok ()
    else
      let* () = same (Printf.sprintf "%s[%d]" what i) (ours i) (theirs i) in
      from (i + 1)
  in
  from 0

let equal what (ours : int64) theirs =
  if Int64.to_int ours = theirs then Ok () else wrong "%s: expected %d, got %Ld" what theirs ours

(* The number that comes with each request, and comes back. *)
let numbered channel =
  let ids = per_slot channel (fun ~slot -> input1 ~slot channel "id" Int64) in
  let echoes = per_slot channel (fun ~slot -> output1 ~slot channel "echo" Int64) in
  let fill ~slot ~id =
    ids.(slot).{0} <- Int64.of_int id;
    echoes.(slot).{0} <- -1L
  and check ~slot ~id = equal "the number given back" echoes.(slot).{0} id in
  (fill, check)

(* --- A network, whose answers onnxruntime gave beforehand ---------------------------------------------------------- *)

let taken = 64
let given = 10

let read_table path =
  let file = Unix.openfile path [ Unix.O_RDONLY; Unix.O_CLOEXEC ] 0 in
  let table = array2_of_genarray (Unix.map_file file Float32 c_layout false [| -1; taken + given |]) in
  Unix.close file;
  table

let network ~table channel =
  let table = read_table (match table with Some path -> path | None -> failwith "network: it needs a table") in
  let number, numbered = numbered channel in
  let xs = per_slot channel (fun ~slot -> input2 ~slot channel "x" Float32) in
  let ys = per_slot channel (fun ~slot -> output2 ~slot channel "y" Float32) in
  let row id = id mod Array2.dim1 table in
  let fill ~slot ~id =
    number ~slot ~id;
    for i = 0 to taken - 1 do
      xs.(slot).{0, i} <- table.{row id, i}
    done;
    Array2.fill ys.(slot) nan
  and check ~slot ~id =
    let* () = numbered ~slot ~id in
    all_same "y" given (fun i -> ys.(slot).{0, i}) (fun i -> table.{row id, taken + i})
  in
  { fill; check }

(* --- Twice as much --------------------------------------------------------------------------------------------------- *)

let doubled ~table:_ channel =
  let number, numbered = numbered channel in
  let xs = per_slot channel (fun ~slot -> input1 ~slot channel "x" Float32) in
  let ys = per_slot channel (fun ~slot -> output1 ~slot channel "y" Float32) in
  let fill ~slot ~id =
    number ~slot ~id;
    for i = 0 to Array1.dim xs.(slot) - 1 do
      xs.(slot).{i} <- scattered id i
    done;
    Array1.fill ys.(slot) nan
  and check ~slot ~id =
    let* () = numbered ~slot ~id in
    all_same "y" (Array1.dim ys.(slot)) (fun i -> ys.(slot).{i}) (fun i -> scattered id i *. 2.)
  in
  { fill; check }

(* --- State that the worker carries: how many requests, the sum of their numbers, and a trail that fades ---------------- *)

(* Products of matrices in each run, so that many a kill finds one. *)
let products = 8L

let trailing ~table:_ channel =
  let number, numbered = numbered channel in
  let xs = per_slot channel (fun ~slot -> input1 ~slot channel "x" Float32) in
  let works = per_slot channel (fun ~slot -> input0 ~slot channel "n" Int64) in
  let counts = per_slot channel (fun ~slot -> output1 ~slot channel "count" Int64) in
  let sums = per_slot channel (fun ~slot -> output1 ~slot channel "sum" Int64) in
  let trails = per_slot channel (fun ~slot -> output1 ~slot channel "trail" Float32) in
  let width = Array1.dim xs.(0) in
  let trail = Array.make width 0. and count = ref 0 and sum = ref 0 in
  let fill ~slot ~id =
    number ~slot ~id;
    for i = 0 to width - 1 do
      xs.(slot).{i} <- scattered id i
    done;
    Array0.set works.(slot) products;
    counts.(slot).{0} <- -1L;
    sums.(slot).{0} <- -1L;
    Array1.fill trails.(slot) nan
  and check ~slot ~id =
    incr count;
    sum := !sum + id;
    for i = 0 to width - 1 do
      trail.(i) <- float32 (scattered id i +. float32 (trail.(i) *. 0.5))
    done;
    let* () = numbered ~slot ~id in
    let* () = equal "requests that the state has seen" counts.(slot).{0} !count in
    let* () = equal "the sum of their numbers" sums.(slot).{0} !sum in
    all_same "trail" width (fun i -> trails.(slot).{i}) (fun i -> trail.(i))
  in
  { fill; check }

(* --- A function in Python, on as many rows as each request has ----------------------------------------------------------- *)

let most_rows = 8
let columns = 16

let rows ~table:_ channel =
  let number, numbered = numbered channel in
  let rows_of id = 1 + (id mod most_rows) in
  let fill ~slot ~id =
    number ~slot ~id;
    set_dims ~slot channel "x" [| rows_of id; columns |];
    let x = input2 ~slot channel "x" Float32 in
    for row = 0 to rows_of id - 1 do
      for column = 0 to columns - 1 do
        x.{row, column} <- scattered id ((row * columns) + column)
      done
    done;
    Array2.fill (output2 ~slot channel "y" Float32) nan
  and check ~slot ~id =
    let* () = numbered ~slot ~id in
    let y = output2 ~slot channel "y" Float32 in
    let expected at = float32 (float32 (scattered id at *. 3.) +. 1.) in
    if Array2.dim1 y <> rows_of id then wrong "y: expected %d rows, got %d" (rows_of id) (Array2.dim1 y)
    else all_same "y" (rows_of id * columns) (fun at -> y.{at / columns, at mod columns}) expected
  in
  { fill; check }

let all = [ ("network", network); ("doubled", doubled); ("trailing", trailing); ("rows", rows) ]
let names = List.map fst all

let find name =
  match List.assoc_opt name all with
  | Some job -> job
  | None -> failwith (Printf.sprintf "no job is called %S: there are %s" name (String.concat ", " names))

let dims = function "rows" -> [ ("N", most_rows) ] | _ -> []
