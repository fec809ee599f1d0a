let batch = 1_000

(* On every OCaml a thread can be made to yield where it allocates. *)
let rec compute stop x =
  if not (Atomic.get stop) then begin
    let sum = ref x in
    for i = 1 to batch do
      sum := (!sum * 31) + i
    done;
    compute stop !(Sys.opaque_identity (ref !sum))
  end

let beside work =
  let stop = Atomic.make false in
  let thread = Thread.create (compute stop) 1 in
  Fun.protect work ~finally:(fun () ->
      Atomic.set stop true;
      Thread.join thread)
