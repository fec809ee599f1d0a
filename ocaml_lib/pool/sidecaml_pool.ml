module Error = Sidecaml.Error

module type S = sig
  type channel
  type t

  val create :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:Sidecaml.Backend.policy ->
    ?lock:Sidecaml.Backend.lock ->
    ?priority:Sidecaml.Backend.priority ->
    size:int ->
    string ->
    (t, Error.t) result

  val create_exn :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:Sidecaml.Backend.policy ->
    ?lock:Sidecaml.Backend.lock ->
    ?priority:Sidecaml.Backend.priority ->
    size:int ->
    string ->
    t

  val with_channel : t -> (channel -> 'a) -> ('a, Error.t) result
  val with_channel_exn : t -> (channel -> 'a) -> 'a
  val try_with_channel : t -> (channel -> 'a) -> ('a, Error.t) result
  val size : t -> int
  val free : t -> int
  val close : t -> unit
end

module Make (B : Sidecaml.Backend.S) = struct
  type channel = B.t

  type place = {
    channel : B.t;
    mutable holder : int option; (* a thread's number *)
    mutable last : int; (* who held it last; -1 for nobody yet *)
  }

  type t = { name : string; lock : Mutex.t; changed : Condition.t; places : place array; mutable is_closed : bool }

  let misuse name format =
    Printf.ksprintf (fun text -> invalid_arg (Printf.sprintf "Sidecaml_pool: model %S: %s" name text)) format

  (* A signal's handler may raise in the middle: wherever OCaml code allocates, loops, or calls a function that ends in a
     call. So there is none of these between the lock and the match, as there would be on the way into [Fun.protect]. *)
  let locked t f =
    Mutex.lock t.lock;
    match f () with
    | result ->
        Mutex.unlock t.lock;
        result
    | exception exn ->
        let backtrace = Printexc.get_raw_backtrace () in
        Mutex.unlock t.lock;
        Printexc.raise_with_backtrace exn backtrace

  (* --- Open -------------------------------------------------------------------------------------------------------- *)

  let rec open_all open_one opened = function
    | 0 -> Ok opened
    | left -> (
        match open_one () with
        | Ok channel -> open_all open_one (channel :: opened) (left - 1)
        | Error _ as e ->
            List.iter B.close opened;
            e)

  let create ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority ~size name =
    if size < 1 then misuse name "a pool of %d channels: 1 at least" size;
    let open_one () = B.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name in
    let pool channels =
      let place channel = { channel; holder = None; last = -1 } in
      let places = Array.of_list (List.map place channels) in
      { name; lock = Mutex.create (); changed = Condition.create (); places; is_closed = false }
    in
    Result.map pool (open_all open_one [] size)

  let create_exn ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority ~size name =
    Error.get_exn (create ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority ~size name)

  (* --- Taking ------------------------------------------------------------------------------------------------------ *)

  let is_free place = place.holder = None

  let find t condition =
    let found place = if condition place then Some place else None in
    Array.fold_left (fun before place -> match before with Some _ -> before | None -> found place) None t.places

  let pick t me =
    match find t (fun place -> is_free place && place.last = me) with
    | Some _ as own -> own
    | None -> find t is_free

  (* Into [taken], whose owner gives it back: nothing can come between the two stores. *)
  let rec take t me taken ~wait =
    if t.is_closed then misuse t.name "the pool is closed";
    let holder = Some me in
    match pick t me with
    | Some place as found ->
        taken := found;
        place.holder <- holder;
        place.last <- me
    | None when not wait -> ()
    | None ->
        if Array.for_all (fun place -> place.holder = Some me) t.places then
          misuse t.name "this thread holds every channel of the pool and would wait for itself: make it larger, or nest no calls";
        Condition.wait t.changed t.lock;
        take t me taken ~wait

  (* --- Giving back ------------------------------------------------------------------------------------------------- *)

  (* Slots that hold nothing say so. *)
  let give_up channel =
    for slot = 0 to B.slots channel - 1 do
      match B.abandon channel slot with () -> () | exception Invalid_argument _ -> ()
    done

  (* May be called again after it raised: it goes by [taken], which is emptied as the place becomes free. *)
  let give_back t taken =
    match !taken with
    | None -> ()
    | Some place ->
        give_up place.channel;
        locked t (fun () ->
            Condition.broadcast t.changed;
            place.holder <- None;
            taken := None;
            if t.is_closed then B.close place.channel)

  (* --- Holding ----------------------------------------------------------------------------------------------------- *)

  let ( let* ) = Result.bind

  let pause_s = 0.0005

  (* As if it had just been opened. Requests of one batch end in any order, and a channel waits for the next slot only: the
     others are looked at. *)
  let rec prepare channel =
    let* () = if B.gone channel = None then Ok () else B.reopen channel in
    if B.is_quiet channel then begin
      if (B.model channel).carried <> [] then B.reset channel;
      Ok ()
    end
    else
      let* _ = B.claim_wait channel in
      if not (B.is_quiet channel) then Thread.delay pause_s;
      prepare channel

  let hold t f taken ~wait =
    locked t (fun () -> take t (Thread.id (Thread.self ())) taken ~wait);
    match !taken with
    | None -> Error Error.Full
    | Some place -> Result.map (fun () -> f place.channel) (prepare place.channel)

  (* Not by [Fun.protect], in which a signal's handler may raise before it has begun to give back. One that raises while it is
     given back has it begun again. *)
  let holding t ~wait f =
    let taken = ref None in
    match hold t f taken ~wait with
    | result ->
        (try give_back t taken
         with exn ->
           give_back t taken;
           raise exn);
        result
    | exception exn ->
        let backtrace = Printexc.get_raw_backtrace () in
        (try give_back t taken with _ -> give_back t taken);
        Printexc.raise_with_backtrace exn backtrace

  let with_channel t f = holding t ~wait:true f
  let with_channel_exn t f = Error.get_exn (with_channel t f)
  let try_with_channel t f = holding t ~wait:false f

  (* --- Beside them ------------------------------------------------------------------------------------------------- *)

  let size t = Array.length t.places
  let count condition t = Array.fold_left (fun sum place -> if condition place then sum + 1 else sum) 0 t.places
  let free t = locked t (fun () -> if t.is_closed then 0 else count is_free t)

  let close t =
    locked t (fun () ->
        t.is_closed <- true;
        Array.iter (fun place -> if is_free place then B.close place.channel) t.places;
        Condition.broadcast t.changed)
end
