sidecaml-probe looks at a daemon's models from the side of an OCaml program.

  $ export SERVE="$PWD/support/serve.py"
  $ . support/daemon.sh
  $ start_daemon digits dynamic_mlp every_rank every_type fails_inside packed positions slow texts

What there is:

  $ sidecaml-probe --version
  0.1.0
  $ sidecaml-probe models
  digits  onnx  ready
  dynamic_mlp  onnx  ready
  every_rank  onnx  ready
  every_type  onnx  ready
  fails_inside  onnx  ready
  packed  onnx  ready
  positions  onnx  ready
  slow  onnx  ready
  texts  onnx  ready
  $ sidecaml-probe describe dynamic_mlp
  dynamic_mlp (onnx, ready, up to 64 slots)
    input  x float32[N,64]
    output y float32[N,10]
  $ sidecaml-probe describe digit
  sidecaml-probe: UNKNOWN_MODEL: no model is called 'digit': did you mean 'digits'?
  [1]

A program may be called anything, even what is no UTF-8:

  $ odd="$PWD/$(printf 'caf\351')"
  $ cp "$(command -v sidecaml-probe)" "$odd"
  $ "$odd" describe digits
  digits (onnx, ready, up to 64 slots)
    input  image float32[1,64]
    output scores float32[1,10]
  $ rm "$odd"

Running on zeros, which is the default, and on files; an output goes to a file, and comes back as an input:

  $ sidecaml-probe run digits
  scores float32[1,10]
    0 0 0 0 0 0 0 0 0 0
  $ "$SIDECAML_PYTHON" -c 'import numpy; numpy.save("image.npy", numpy.full((1, 64), 0.25, numpy.float32))'
  $ sidecaml-probe run digits --input image=image.npy --output scores=scores.npy
  scores float32[1,10]
    0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5
  $ "$SIDECAML_PYTHON" -c 'import numpy; s = numpy.load("scores.npy"); print(s.dtype, s.shape, s.sum())'
  float32 (1, 10) 5.0
  $ sidecaml-probe run digits --slots 2 --timeout-ms 60000 --policy block --lock hold
  slot 0
  scores float32[1,10]
    0 0 0 0 0 0 0 0 0 0
  slot 1
  scores float32[1,10]
    0 0 0 0 0 0 0 0 0 0

Every rank and type, there and back through numpy:

  $ sidecaml-probe run every_rank
  y0 float64[]
    0
  y1 float64[2]
    0 0
  y2 float64[2,2]
    0 0 0 0
  y3 float64[2,2,2]
    0 0 0 0 0 0 0 0
  y4 float64[2,2,2,2]
    0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
  $ cat >types.py <<'END'
  > import numpy
  > for name in "float32 float64 float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split():
  >     array = numpy.array([[0, 1, 2], [3, -1, -2]]).astype(name)
  >     numpy.save(f"{name}.npy", array)
  > bfloat16 = (numpy.array([[0, 1, 2], [3, -1, -2]], "<f4").view("<u4") >> 16).astype("<u2")
  > numpy.save("bfloat16.npy", bfloat16.view("V2"))
  > one = {"float8e4m3fn": 0x38, "float8e4m3fnuz": 0x40, "float8e5m2": 0x3C, "float8e5m2fnuz": 0x40}
  > for name, code in one.items():
  >     numpy.save(f"{name}.npy", numpy.array([[0, code, code], [code, 0, 0x80 + code]], "u1").view("V1"))
  > END
  $ "$SIDECAML_PYTHON" types.py
  $ types="float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz"
  $ sidecaml-probe run every_type $(for t in $types; do echo --input x_$t=$t.npy --output y_$t=back_$t.npy; done)
  y_float32 float32[2,3]
    0 1 2 3 -1 -2
  y_float64 float64[2,3]
    0 1 2 3 -1 -2
  y_float16 float16[2,3]
    0 1 2 3 -1 -2
  y_bfloat16 bfloat16[2,3]
    0 1 2 3 -1 -2
  y_int8 int8[2,3]
    0 1 2 3 -1 -2
  y_int16 int16[2,3]
    0 1 2 3 -1 -2
  y_int32 int32[2,3]
    0 1 2 3 -1 -2
  y_int64 int64[2,3]
    0 1 2 3 -1 -2
  y_uint8 uint8[2,3]
    0 1 2 3 255 254
  y_uint16 uint16[2,3]
    0 1 2 3 65535 65534
  y_uint32 uint32[2,3]
    0 1 2 3 4294967295 4294967294
  y_uint64 uint64[2,3]
    0 1 2 3 18446744073709551615 18446744073709551614
  y_bool bool[2,3]
    false true true true true true
  y_float8e4m3fn float8e4m3fn[2,3]
    0 1 1 1 0 -1
  y_float8e4m3fnuz float8e4m3fnuz[2,3]
    0 1 1 1 0 -1
  y_float8e5m2 float8e5m2[2,3]
    0 1 1 1 0 -1
  y_float8e5m2fnuz float8e5m2fnuz[2,3]
    0 1 1 1 0 -1
  $ cat >compare.py <<'END'
  > import sys, numpy
  > for name in sys.argv[1:]:
  >     there, back = numpy.load(f"{name}.npy"), numpy.load(f"back_{name}.npy")
  >     same = (there.dtype, there.shape, there.tobytes()) == (back.dtype, back.shape, back.tobytes())
  >     print(name, "came back" if same else f"is {back!r} instead of {there!r}")
  > END
  $ "$SIDECAML_PYTHON" compare.py $types
  float32 came back
  float64 came back
  float16 came back
  bfloat16 came back
  int8 came back
  int16 came back
  int32 came back
  int64 came back
  uint8 came back
  uint16 came back
  uint32 came back
  uint64 came back
  bool came back
  float8e4m3fn came back
  float8e4m3fnuz came back
  float8e5m2 came back
  float8e5m2fnuz came back

Packed types come and go as the bytes that hold them, and are shown as numbers:

  $ "$SIDECAML_PYTHON" -c 'import numpy; numpy.save("small.npy", numpy.array([[1, -2, 3]], numpy.int8))'
  $ sidecaml-probe run packed --input small=small.npy --output again=again.npy
  y int8[1,3]
    0 0 0
  again int4[1,3]
    1 -2 3
  $ "$SIDECAML_PYTHON" -c 'import numpy; print(numpy.load("again.npy"))'
  [225   3]
  $ sidecaml-probe run packed --dims N=1 --input x=again.npy
  sidecaml-probe: input "x" is packed, and dimension "N" dynamic: no file is read for it
  [1]

Strings are shown, and have no such file:

  $ sidecaml-probe run texts --dims N=2
  y string[2]
    "" ""
  $ sidecaml-probe run texts --dims N=2 --input x=small.npy
  sidecaml-probe: input "x" has strings, which no .npy file is read for
  [1]
  $ sidecaml-probe run texts --dims N=2 --output y=y.npy
  sidecaml-probe: output "y" has strings, which no .npy file is written for
  [1]

Dynamic dimensions are given, or taken from the files:

  $ sidecaml-probe run dynamic_mlp
  sidecaml-probe: BAD_DIMS: dimension 'N' of the model is dynamic: give its maximum in `dims` at open; give it by --dims NAME=SIZE
  [1]
  $ sidecaml-probe run dynamic_mlp --dims N=3 | head -n 1
  y float32[3,10]
  $ "$SIDECAML_PYTHON" -c 'import numpy; numpy.save("five.npy", numpy.zeros((5, 64), numpy.float32))'
  $ sidecaml-probe run dynamic_mlp --input x=five.npy | head -n 1
  y float32[5,10]
  $ sidecaml-probe run dynamic_mlp --dims N=2 --input x=five.npy
  sidecaml-probe: Sidecaml.set_dims: model "dynamic_mlp": input x float32[N,64] was opened with room for [2,64]; [5,64] is larger: open it with larger dims
  [1]

Timing:

  $ sidecaml-probe time digits --count 200 | sed -E 's/[0-9]+\.[0-9]+ us/T us/g'
  digits  200 calls  p50 T us  p90 T us  p99 T us  p99.9 T us  max T us
       in the model  p50 T us  p90 T us  p99 T us  p99.9 T us  max T us
  $ sidecaml-probe time digits --count 20 --policy spin --timeout-ms 60000 | sed -E 's/[0-9]+\.[0-9]+ us/T us/g'
  digits  20 calls  p50 T us  p90 T us  p99 T us  p99.9 T us  max T us
      in the model  p50 T us  p90 T us  p99 T us  p99.9 T us  max T us

What is wrong is said, and where:

  $ sidecaml-probe run digits --input imag=image.npy
  sidecaml-probe: model "digits" has no input "imag": its inputs are image
  [1]
  $ sidecaml-probe run digits --input image=missing.npy
  sidecaml-probe: missing.npy: No such file or directory
  [1]
  $ sidecaml-probe run digits --input image=types.py
  sidecaml-probe: types.py: it is no .npy file
  [1]
  $ sidecaml-probe run digits --input image=five.npy
  sidecaml-probe: five.npy holds float32[5,64], input image float32[1,64] cannot take it
  [1]
  $ sidecaml-probe run digits --output score=scores.npy
  sidecaml-probe: model "digits" has no output "score": its outputs are scores
  [1]
  $ sidecaml-probe run fails_inside 2>&1 | sed -E 's/(ENGINE: ).*/\1.../'
  sidecaml-probe: ENGINE: ...
  $ sidecaml-probe run digits --slots 1000
  sidecaml-probe: TOO_MANY_SLOTS: model 'digits' allows 64 slots a channel and 1000 were asked for: ask for fewer, or raise its max_slots
  [1]
  $ sidecaml-probe run digits --slots 0 2>/dev/null
  [2]
  $ sidecaml-probe run digits --input image 2>/dev/null
  [2]
  $ sidecaml-probe models --socket /nonexistent/socket
  sidecaml-probe: CONNECT: no sidecaml daemon answers at /nonexistent/socket (No such file or directory): start one with `sidecaml serve`, or name its socket ($SIDECAML_SOCKET)
  [1]

The programs of the README and of the tutorial:

  $ ../examples/readme.exe
  1.000000
  $ ../examples/tutorial.exe
  in time: 0.25
  both: 0.5 and 1
  rows: 5 in, 5 out
  rows: 32 in, 32 out
  rows: 1 in, 1 out
  packed in 2 bytes: 1 -2 3
  text: haha
  text: cafécafé
  found: 40
  $ ../examples/throughput.exe 3000 2>/dev/null
  3000 of 3000 answers are right

  $ stop_daemon
