"""ortx from Python: ctypes over libortx, numpy arrays in and out. One file; copy it where it is needed.

    import numpy as np, ortx
    session = ortx.Session("model.onnx", threads=2)
    (y,) = session.run({"x": np.zeros((1, 3), np.float32)})

Tensors are numpy arrays (of str objects for strings), sequences lists, maps dicts, empty optionals None. Arrays go in without
a copy where they are contiguous, and come out as read-only views of ortx's memory. Element types that numpy lacks
(bfloat16, float8) need the package ml_dtypes; those below 8 bits go as RawTensor.

The library is looked for as $ORTX_LIBRARY, else as libortx.so.0 where the system's loader looks. ctypes releases Python's
lock during calls: any number of threads may run one session.
"""

import ctypes
import enum
import os
import threading
import warnings
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

import numpy as np

_ABI = 1
_lib = ctypes.CDLL(os.environ.get("ORTX_LIBRARY") or "libortx.so.0")
_RELEASE = ctypes.CFUNCTYPE(None, c_void_p)


class _DeviceChoice(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("required", c_int32), ("reserved", c_int32)]


class _Setting(ctypes.Structure):
    _fields_ = [("key", c_char_p), ("value", c_char_p)]


class _SessionOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("threads", c_int32),
        ("isa", c_int32),
        ("spin_ns", c_int64),
        ("devices", POINTER(_DeviceChoice)),
        ("device_count", c_size_t),
        ("load", c_int32),
        ("keep_denormals", c_int32),
        ("disable_optimization", c_int32),
        ("reserved", c_int32),
        ("memory_limit", c_uint64),
        ("pool", c_void_p),
        ("settings", POINTER(_Setting)),
        ("setting_count", c_size_t),
    ]


class _RunOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("cancel_token", c_void_p), ("timeout_ns", c_uint64)]


def _declare():
    """Result and argument types; a function that gives a status raises what it says."""
    p, s, out, text = c_void_p, c_size_t, POINTER(c_void_p), c_char_p
    count, number = POINTER(c_size_t), POINTER(c_int32)
    plain = {
        "abi_version": (c_uint32,),
        "version": (text,),
        "threads_available": (c_int32,),
        "dtype_name": (text, c_int32),
        "code_name": (text, c_int32),
        "status_code": (c_int32, p),
        "status_text": (text, p),
        "status_message": (text, p),
        "status_context_count": (s, p),
        "status_context": (text, p, s),
    }
    plain.update({f"{kind}_destroy": (None, p) for kind in "status environment session value cancel_token binding".split()})
    checked = {
        "environment_create": (out,),
        "environment_device_count": (p, count),
        "environment_device_name": (p, s, POINTER(text)),
        "environment_device_description": (p, s, POINTER(text)),
        "session_create_from_file": (p, text, POINTER(_SessionOptions), out),
        "session_create_from_memory": (p, p, s, text, POINTER(_SessionOptions), out),
        "session_input_count": (p, count),
        "session_output_count": (p, count),
        "session_input_name": (p, s, POINTER(text)),
        "session_output_name": (p, s, POINTER(text)),
        "session_input_type": (p, s, out),
        "session_output_type": (p, s, out),
        "session_property_count": (p, count),
        "session_property": (p, s, POINTER(text), POINTER(text)),
        "session_warning_count": (p, count),
        "session_warning": (p, s, POINTER(text)),
        "session_run": (p, POINTER(_RunOptions), POINTER(s), POINTER(p), s, POINTER(s), POINTER(p), s),
        "type_kind": (p, number),
        "type_dtype": (p, number),
        "type_rank": (p, POINTER(c_int64)),
        "type_dim": (p, s, POINTER(c_int64), POINTER(text)),
        "type_element": (p, out),
        "value_kind": (p, number),
        "sequence_create": (POINTER(p), s, out),
        "sequence_count": (p, count),
        "sequence_get": (p, s, out),
        "optional_create": (p, out),
        "optional_get": (p, out),
        "map_create": (p, p, out),
        "map_keys": (p, out),
        "map_values": (p, out),
        "tensor_create_from_copy": (c_int32, POINTER(c_int64), s, p, s, out),
        "tensor_create_borrowed": (c_int32, POINTER(c_int64), s, p, s, _RELEASE, p, out),
        "tensor_create_borrowed_mut": (c_int32, POINTER(c_int64), s, p, s, _RELEASE, p, out),
        "tensor_create_from_strings": (POINTER(c_int64), s, POINTER(text), count, s, out),
        "tensor_dtype": (p, number),
        "tensor_shape": (p, POINTER(c_int64), s, count),
        "tensor_count": (p, count),
        "tensor_byte_size": (p, count),
        "tensor_data": (p, out),
        "tensor_string": (p, s, out, count),
        "cancel_token_create": (out,),
        "cancel_token_cancel": (p,),
        "cancel_token_reset": (p,),
        "binding_create": (p, out),
        "binding_set_input": (p, s, p),
        "binding_set_output": (p, s, p),
        "binding_run": (p, POINTER(_RunOptions)),
        "binding_output": (p, s, out),
    }
    for name, (result, *arguments) in plain.items():
        f = getattr(_lib, "ortx_" + name)
        f.restype, f.argtypes = result, arguments
    for name, arguments in checked.items():
        f = getattr(_lib, "ortx_" + name)
        f.restype, f.argtypes, f.errcheck = c_void_p, arguments, _check


class Code(enum.IntEnum):
    """What went wrong; the numbers are those of ortx.h."""

    INVALID_ARGUMENT = 1
    INVALID_MODEL = 2
    UNSUPPORTED = 3
    NOT_FOUND = 4
    IO = 5
    OUT_OF_MEMORY = 6
    RUN = 7
    CANCELLED = 8
    DEVICE = 9
    INTERNAL = 10


class Error(Exception):
    """A call that failed: `code`, `message`, and `contexts`, the places that the error passed, outermost first."""

    def __init__(self, code, text, message, contexts):
        super().__init__(text)
        self.code, self.message, self.contexts = code, message, contexts


def _check(status, function, arguments):
    if not status:
        return
    try:
        code = _lib.ortx_status_code(status)
        contexts = [_lib.ortx_status_context(status, i).decode() for i in range(_lib.ortx_status_context_count(status))]
        code = Code(code) if code in Code._value2member_map_ else Code.INTERNAL
        raise Error(code, _lib.ortx_status_text(status).decode(), _lib.ortx_status_message(status).decode(), contexts)
    finally:
        _lib.ortx_status_destroy(status)


_declare()
if _lib.ortx_abi_version() != _ABI:
    raise ImportError(f"libortx has ABI version {_lib.ortx_abi_version()}, this module needs {_ABI}")
version = _lib.ortx_version().decode()

_STRING = 8
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip
_ML_DTYPES = {16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz"}
_NUMPY = {code: np.dtype(name) for code, name in _DTYPES.items()}
try:
    import ml_dtypes

    _NUMPY.update({code: np.dtype(getattr(ml_dtypes, name)) for code, name in _ML_DTYPES.items()})
except ImportError:
    pass
_CODES = {dtype: code for code, dtype in _NUMPY.items()}


def _get(kind, function, *arguments):
    """What the function writes to its last argument."""
    result = kind()
    function(*arguments, byref(result))
    return result.value


class _Handle:
    """Owns a handle; ends it when nobody has the object any more."""

    kind = ""

    def __init__(self, pointer):
        self._pointer = pointer

    def __del__(self):
        pointer = getattr(self, "_pointer", None)
        if pointer:
            getattr(_lib, f"ortx_{self.kind}_destroy")(pointer)


class _Value(_Handle):
    kind = "value"


class RawTensor:
    """A tensor as bytes, for element types that numpy lacks: an ORTX_DTYPE_ number, a shape, and packed elements."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, tuple(shape), bytes(data)


# Arrays that the library still needs, by the number that it gives back.
_lent, _lent_lock, _lent_next = {}, threading.Lock(), [1]


@_RELEASE
def _give_back(user):
    with _lent_lock:
        _lent.pop(user, None)


def _shape(shape):
    return (c_int64 * len(shape))(*shape)


def _tensor(array, writable=False):
    """A tensor over the array's memory; the array lives as long as the library needs it."""
    if array.dtype.kind in "UO":
        texts = [str(t).encode() for t in array.ravel()]
        lengths = (c_size_t * len(texts))(*map(len, texts))
        make = _lib.ortx_tensor_create_from_strings
        return _Value(_get(c_void_p, make, _shape(array.shape), array.ndim, (c_char_p * len(texts))(*texts), lengths, len(texts)))
    if array.dtype not in _CODES:
        raise TypeError(f"ortx has no element type {array.dtype}")
    if writable and not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError("an output array must be C-contiguous and writable")
    shape = _shape(array.shape)
    array = np.ascontiguousarray(array)
    with _lent_lock:
        user, _lent_next[0] = _lent_next[0], _lent_next[0] + 1
        _lent[user] = array
    make = _lib.ortx_tensor_create_borrowed_mut if writable else _lib.ortx_tensor_create_borrowed
    return _Value(_get(c_void_p, make, _CODES[array.dtype], shape, len(shape), array.ctypes.data, array.nbytes, _give_back, user))


def _to_value(x, kind=None):
    """A value for a Python object; `kind` is what the model declares."""
    if x is None or kind == Type.OPTIONAL:
        element = None if x is None else _to_value(x)
        return _Value(_get(c_void_p, _lib.ortx_optional_create, element and element._pointer))
    if isinstance(x, RawTensor):
        make = _lib.ortx_tensor_create_from_copy
        return _Value(_get(c_void_p, make, x.dtype, _shape(x.shape), len(x.shape), x.data, len(x.data)))
    if isinstance(x, dict):
        values = list(x.values())
        keys = _tensor(np.array(list(x), dtype=None if x and isinstance(next(iter(x)), str) else np.int64))
        values = _to_value(values) if values and isinstance(values[0], (np.ndarray, list, dict)) else _tensor(np.asarray(values))
        return _Value(_get(c_void_p, _lib.ortx_map_create, keys._pointer, values._pointer))
    if isinstance(x, (list, tuple)) and kind != Type.TENSOR:
        elements = [_to_value(e) for e in x]
        handles = (c_void_p * len(elements))(*(e._pointer for e in elements))
        return _Value(_get(c_void_p, _lib.ortx_sequence_create, handles, len(elements)))
    return _tensor(np.asarray(x))


class _Memory:
    """What numpy needs to look into a tensor; an array that does keeps it alive."""

    def __init__(self, value, shape, size):
        self.value = value
        data = _get(c_void_p, _lib.ortx_tensor_data, value._pointer)
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (data, True)}


def _from_value(value):
    kind = _get(c_int32, _lib.ortx_value_kind, value._pointer)
    if kind == Type.SEQUENCE:
        count = _get(c_size_t, _lib.ortx_sequence_count, value._pointer)
        return [_from_value(_Value(_get(c_void_p, _lib.ortx_sequence_get, value._pointer, i))) for i in range(count)]
    if kind == Type.OPTIONAL:
        element = _get(c_void_p, _lib.ortx_optional_get, value._pointer)
        return None if element is None else _from_value(_Value(element))
    if kind == Type.MAP:
        keys = _from_value(_Value(_get(c_void_p, _lib.ortx_map_keys, value._pointer)))
        values = _from_value(_Value(_get(c_void_p, _lib.ortx_map_values, value._pointer)))
        return dict(zip(keys.tolist(), values))
    dtype = _get(c_int32, _lib.ortx_tensor_dtype, value._pointer)
    rank = _get(c_size_t, _lib.ortx_tensor_shape, value._pointer, None, 0)
    sizes = (c_int64 * rank)()
    _lib.ortx_tensor_shape(value._pointer, sizes, rank, byref(c_size_t()))
    shape = tuple(sizes)
    if dtype == _STRING:
        array = np.empty(_get(c_size_t, _lib.ortx_tensor_count, value._pointer), dtype=object)
        for i in range(array.size):
            text, length = c_void_p(), c_size_t()
            _lib.ortx_tensor_string(value._pointer, i, byref(text), byref(length))
            array[i] = ctypes.string_at(text, length.value).decode()
        return array.reshape(shape)
    memory = np.asarray(_Memory(value, shape, _get(c_size_t, _lib.ortx_tensor_byte_size, value._pointer)))
    if dtype not in _NUMPY:
        return RawTensor(dtype, shape, memory.tobytes())
    return memory.view(_NUMPY[dtype]).reshape(shape)


class Type:
    """What is known of an input or output: `name`, `kind`, `dtype` (ONNX's name, None for other kinds than tensors and
    maps), `shape` (sizes, or the model's names of sizes, or None; itself None where not even the rank is known),
    `element` (the Type of what a sequence or optional holds, or of a map's values)."""

    UNKNOWN, TENSOR, SEQUENCE, OPTIONAL, MAP = range(5)

    def __init__(self, pointer, name=None):
        self.name = name
        self.kind = _get(c_int32, _lib.ortx_type_kind, pointer)
        dtype = _get(c_int32, _lib.ortx_type_dtype, pointer)
        self.dtype = _lib.ortx_dtype_name(dtype).decode() if dtype else None
        rank = _get(c_int64, _lib.ortx_type_rank, pointer)
        self.shape = None if rank < 0 else []
        for axis in range(max(rank, 0)):
            size, symbol = c_int64(), c_char_p()
            _lib.ortx_type_dim(pointer, axis, byref(size), byref(symbol))
            self.shape.append(size.value if size.value >= 0 else symbol.value and symbol.value.decode())
        element = _get(c_void_p, _lib.ortx_type_element, pointer)
        self.element = Type(element) if element else None


def devices():
    """The devices beside the processor: pairs of a name, for `Session(devices=)`, and a description."""
    environment = _Handle(_get(c_void_p, _lib.ortx_environment_create))
    environment.kind = "environment"
    return [
        tuple(_get(c_char_p, f, environment._pointer, i).decode()
              for f in (_lib.ortx_environment_device_name, _lib.ortx_environment_device_description))
        for i in range(_get(c_size_t, _lib.ortx_environment_device_count, environment._pointer))
    ]  # fmt: skip


class CancelToken(_Handle):
    """Stops runs from another thread."""

    kind = "cancel_token"

    def __init__(self):
        super().__init__(_get(c_void_p, _lib.ortx_cancel_token_create))

    def cancel(self):
        _lib.ortx_cancel_token_cancel(self._pointer)

    def reset(self):
        _lib.ortx_cancel_token_reset(self._pointer)


def _run_options(timeout, cancel):
    nanoseconds = 0 if timeout is None else max(int(timeout * 1e9), 1)
    return _RunOptions(ctypes.sizeof(_RunOptions), cancel and cancel._pointer, nanoseconds)


class Session(_Handle):
    """A model, ready to run: a path, or the file's bytes. `devices` are names, with "!" at the end of a required one;
    `settings` are the options of ortx_session_options in ortx.h, as text. `inputs`, `outputs`: lists of Type."""

    kind = "session"

    def __init__(self, model, threads=0, devices=(), folder=None, **settings):
        names = [(d.rstrip("!").encode(), d.endswith("!")) for d in devices]
        options = _SessionOptions(struct_size=ctypes.sizeof(_SessionOptions), threads=threads)
        options.devices = (_DeviceChoice * len(names))(*((name, required, 0) for name, required in names))
        options.device_count = len(names)
        options.settings = (_Setting * len(settings))(*((k.encode(), str(v).encode()) for k, v in settings.items()))
        options.setting_count = len(settings)
        if isinstance(model, (bytes, bytearray)):
            folder = None if folder is None else os.fsencode(folder)
            pointer = _get(c_void_p, _lib.ortx_session_create_from_memory, None, bytes(model), len(model), folder, byref(options))
        else:
            pointer = _get(c_void_p, _lib.ortx_session_create_from_file, None, os.fsencode(model), byref(options))
        super().__init__(pointer)
        for i in range(_get(c_size_t, _lib.ortx_session_warning_count, pointer)):
            warnings.warn(_get(c_char_p, _lib.ortx_session_warning, pointer, i).decode(), stacklevel=2)
        self.inputs, self.outputs = (
            [Type(_get(c_void_p, type_of, pointer, i), _get(c_char_p, name_of, pointer, i).decode())
             for i in range(_get(c_size_t, count, pointer))]
            for count, name_of, type_of in (
                (_lib.ortx_session_input_count, _lib.ortx_session_input_name, _lib.ortx_session_input_type),
                (_lib.ortx_session_output_count, _lib.ortx_session_output_name, _lib.ortx_session_output_type),
            )
        )  # fmt: skip

    def properties(self):
        """The model's key/value pairs."""
        pairs = {}
        for i in range(_get(c_size_t, _lib.ortx_session_property_count, self._pointer)):
            key, value = c_char_p(), c_char_p()
            _lib.ortx_session_property(self._pointer, i, byref(key), byref(value))
            pairs[key.value.decode()] = value.value.decode()
        return pairs

    def run(self, inputs, outputs=None, timeout=None, cancel=None):
        """Runs the model on inputs by name (a dict) or in its order (a list); gives the outputs of these names, or all, as
        a list. `timeout` in seconds; `cancel`, a CancelToken."""
        if isinstance(inputs, dict):
            places = [_place(self.inputs, name, "input") for name in inputs]
            inputs = list(inputs.values())
        else:
            places = list(range(len(inputs)))
        kinds = [self.inputs[p].kind if p < len(self.inputs) else None for p in places]
        values = [_to_value(x, kind) for x, kind in zip(inputs, kinds)]
        wanted = [_place(self.outputs, name, "output") for name in outputs or [o.name for o in self.outputs]]
        results = (c_void_p * len(wanted))()
        _lib.ortx_session_run(
            self._pointer, byref(_run_options(timeout, cancel)), (c_size_t * len(places))(*places),
            (c_void_p * len(values))(*(v._pointer for v in values)), len(values),
            (c_size_t * len(wanted))(*wanted), results, len(wanted),
        )  # fmt: skip
        return [_from_value(v) for v in [_Value(r) for r in results]]


def _place(types, name, what):
    names = [t.name for t in types]
    if name not in names:
        raise KeyError(f"the model has no {what} '{name}'; it has {names}")
    return names.index(name)


class Binding(_Handle):
    """Arrays set once, for repeated runs that copy and allocate nothing. For one thread at a time."""

    kind = "binding"

    def __init__(self, session):
        super().__init__(_get(c_void_p, _lib.ortx_binding_create, session._pointer))
        self._session = session

    def set_input(self, name, x):
        """What is written to a contiguous array between runs is seen by them."""
        place = _place(self._session.inputs, name, "input")
        value = _to_value(x, self._session.inputs[place].kind)
        _lib.ortx_binding_set_input(self._pointer, place, value._pointer)

    def set_output(self, name, array):
        """Runs write to the array; None: to memory of the binding's own."""
        tensor = None if array is None else _tensor(array, writable=True)
        _lib.ortx_binding_set_output(self._pointer, _place(self._session.outputs, name, "output"), tensor and tensor._pointer)

    def run(self, timeout=None, cancel=None):
        _lib.ortx_binding_run(self._pointer, byref(_run_options(timeout, cancel)))

    def output(self, name):
        """An output of the last run."""
        place = _place(self._session.outputs, name, "output")
        return _from_value(_Value(_get(c_void_p, _lib.ortx_binding_output, self._pointer, place)))
