(** One request to a model: files in, files or text out. *)

exception Failed of string
(** A sentence for people. *)

type input
(** What to put into an input. *)

val inputs_of_files : Sidecaml.Model.t -> (string * string) list -> input list
(** [inputs_of_files model files] reads [(input, path)] pairs.
    @raise Failed for an unknown input, an unreadable file, or one whose type or dimensions do not fit *)

val dims : input list -> (string * int) list -> (string * int) list
(** [dims inputs given] adds to the dimensions [given] those that the inputs have. *)

val fill : Sidecaml.t -> slot:int -> input list -> unit
(** [fill channel ~slot inputs] writes the inputs into a slot; those not named are zeros. *)

val check_outputs : Sidecaml.Model.t -> (string * string) list -> unit
(** [check_outputs model files] checks the names in [(output, path)] pairs.
    @raise Failed for an unknown one, and for strings, which numpy's files are not written for *)

type output = { name : string; dims : int array; contents : contents }
and contents = Array of Npy.t | Strings of Sidecaml.Strings.t

val outputs : Sidecaml.t -> slot:int -> output list
(** [outputs channel ~slot] are views of a slot's outputs, in the model's order. *)
