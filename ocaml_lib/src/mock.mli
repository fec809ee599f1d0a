(** Models that are OCaml functions, for tests: no daemon, no inference library.

    {[
      let () =
        let inputs = [ { Sidecaml.Model.name = "image"; dtype = "float32"; shape = [| Fixed 1; Fixed 64 |] } ] in
        let outputs = [ { Sidecaml.Model.name = "scores"; dtype = "float32"; shape = [| Fixed 1; Fixed 10 |] } ] in
        Sidecaml.Mock.serve "digits" ~inputs ~outputs (fun m ~slot ->
            let x = Sidecaml.Mock.input2 ~slot m "image" Float32 in
            Bigarray.Array2.fill (Sidecaml.Mock.output2 ~slot m "scores" Float32) x.{0, 0};
            Ok ())
    ]}

    Everything else is as {!In_process} says. *)

include Backend.S

val serve :
  ?max_slots:int ->
  ?state:(string * string) list ->
  inputs:Model.tensor list ->
  outputs:Model.tensor list ->
  string ->
  (t -> slot:int -> (unit, Error.t) result) ->
  unit
(** [serve name ~inputs ~outputs answer] makes a model known, in place of one of that name; channels that are open keep
    what they have. [answer t ~slot] stands for a run: it reads the inputs of the slot and writes its outputs, through
    the functions of this module; no others of them may be called on [t]. An [Error _] is what the call then returns,
    whichever it is. An exception goes through to the caller, and the request is given up. Before each run, outputs have
    the dimensions that the inputs' names tell, or else the largest.

    Raises [Invalid_argument] for a dtype that {!Dtype.of_name} does not know, and for [state] that cannot be.

    @param state outputs that become inputs of the channel's next request, which [answer] sees as any others. Default: none.
    @param max_slots most slots of a channel. Default: 1024. *)

val set_output_dims : ?slot:int -> t -> string -> int array -> unit
(** [set_output_dims ~slot t name dims] says, in a run, how large an output comes out.

    Raises [Invalid_argument] for a name that the model does not have, for [dims] that do not fit, and for others than
    the inputs' names tell. *)

val fit_output : ?slot:int -> t -> string -> int array -> (unit, Error.t) result
(** [fit_output ~slot t name dims] is {!set_output_dims}, but [Error Output_too_large] where the channel has no room for
    [dims]: what a model answers whose outputs are as large as they are. *)

val fit_strings : ?slot:int -> t -> string -> string array -> (unit, Error.t) result
(** [fit_strings ~slot t name strings] writes an output of strings, or is [Error Output_too_large] where the channel has
    no room for their text.

    Raises [Invalid_argument] as {!output_strings} and {!Strings.set_all}. *)

val withdraw : string -> unit
(** [withdraw name] forgets a model. *)
