"""Makes types.npz: what numpy writes for each type and layout, for the tests of the reader. python make.py"""
import ml_dtypes
import numpy as np

base = np.arange(6).reshape(2, 3)
arrays = {k: base.astype(k) for k in ("int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
                                      "complex64 complex128 bool").split()}
arrays["fortran"] = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
arrays["big"] = base.astype(">f4")
arrays["big_complex"] = (base * (1 + 2j)).astype(">c8")
arrays["scalar"] = np.array(3.5, dtype=np.float32)
arrays["empty"] = np.zeros((0, 4), dtype=np.int64)
arrays["text"] = np.array([["ab", "\u00fc\u4e16"], ["", "d"]])
arrays["octets"] = np.array([b"one", b"three"])
arrays["a/b.c"] = np.array([1, 2], dtype=np.int64)
small = np.array([1, 0, -1, 3])
for k in "bfloat16 float8_e4m3fn float8_e5m2 int4 float4_e2m1fn".split():
    arrays[k] = small.astype(getattr(ml_dtypes, k))
arrays["uint4"] = np.array([1, 0, 15, 3]).astype(ml_dtypes.uint4)
np.savez_compressed("types.npz", **arrays)
np.savez("objects.npz", o=np.array([{}, "x"], dtype=object))
