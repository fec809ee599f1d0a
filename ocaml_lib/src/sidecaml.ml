module Error = Error
module Dtype = Dtype
module Convert = Convert
module Strings = Strings
module Model = Model
module Backend = Backend
module Ipc = Ipc
module In_process = In_process
module Mock = Mock
module Breaker = Breaker
module Resilient = Resilient
include Ipc
