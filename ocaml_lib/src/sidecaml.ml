module Error = Error
module Dtype = Dtype
module Model = Model
module Backend = Backend
module Ipc = Ipc
include Ipc
