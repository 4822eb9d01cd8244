"""What the module promises, checked: checks.py MODELS DIGITS.onnx DIGITS.bin. tests/it/hosts.rs runs it and writes MODELS."""

import gc
import struct
import sys
import threading
import warnings

import numpy as np

import ortx

MODELS, MODEL, DIGITS = sys.argv[1:]


def fails(code, word, call):
    try:
        call()
    except ortx.Error as e:
        assert e.code == code and word in str(e) and e.message in str(e), repr(e)
        return
    raise AssertionError("no error")


def digits():
    """scripts/train_digits.py tells the file's layout."""
    with open(DIGITS, "rb") as f:
        assert f.read(8) == b"DIGITS01"
        count, height, width, levels = struct.unpack("<4I", f.read(16))
        rows = np.frombuffer(f.read(), np.uint8).reshape(count, -1)
    return rows[:, 0], (rows[:, 1:] / np.float32(levels)).astype(np.float32).reshape(count, 1, height, width)


def check_digits():
    labels, images = digits()
    session = ortx.Session(MODEL)
    (answers,) = session.run({"image": images})
    right = (answers.argmax(axis=1) == labels).sum()
    print(f"ortx {ortx.version} from Python: {right} of {len(labels)} held-out digits right")
    assert right >= 0.98 * len(labels)
    # A view that is not contiguous is copied on its way in.
    (every_other,) = session.run([images[::2]], outputs=["probabilities"])
    assert np.allclose(every_other, answers[::2], atol=1e-6)
    # Views outlive the session, and are not to be written.
    del session, every_other
    gc.collect()
    assert np.isclose(answers.sum(), len(labels), atol=1e-3) and not answers.flags.writeable


def check_errors():
    fails(ortx.Code.NOT_FOUND, "no such file", lambda: ortx.Session("no such file.onnx"))
    fails(ortx.Code.INVALID_MODEL, "", lambda: ortx.Session(b"\x08\x08"))
    fails(ortx.Code.INVALID_ARGUMENT, "colour", lambda: ortx.Session(MODEL, colour="red"))
    fails(ortx.Code.NOT_FOUND, "opencl:99", lambda: ortx.Session(MODEL, devices=["opencl:99!"]))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        session = ortx.Session(MODEL, threads=1, devices=["opencl:99"])
    assert "opencl:99" in str(heard[0].message) and len(heard) == 1
    image = np.zeros((1, 1, 8, 8), np.float32)
    fails(ortx.Code.INVALID_ARGUMENT, "'image'", lambda: session.run([image.astype(np.float64)]))
    fails(ortx.Code.INVALID_ARGUMENT, "1 inputs", lambda: session.run([]))
    fails(ortx.Code.CANCELLED, "time", lambda: session.run([image], timeout=0))
    token = ortx.CancelToken()
    token.cancel()
    fails(ortx.Code.CANCELLED, "cancelled", lambda: session.run([image], cancel=token))
    token.reset()
    session.run([image], cancel=token)
    for wrong, error in (({"picture": image}, KeyError), ([image.astype("datetime64[s]")], TypeError)):
        try:
            session.run(wrong)
        except error:
            continue
        raise AssertionError(error)
    # All that was lent has come back, also from calls that failed.
    del session
    gc.collect()
    assert not ortx._lent, ortx._lent


def check_kinds():
    session = ortx.Session(MODELS + "/strings.onnx")
    (joined,) = session.run({"a": np.array(["a", "ä", "x\0"], object), "b": np.array(["b", "", "y"])})
    assert joined.tolist() == ["ab", "ä", "x\0y"], joined
    assert session.properties() == {"classes": "cat,dog", "empty": ""}
    session = ortx.Session(MODELS + "/sequence.onnx")
    kind = session.inputs[0]
    assert (kind.name, kind.kind, kind.element.dtype) == ("s", ortx.Type.SEQUENCE, "float")
    x = np.array([1, 2], np.float32)
    (longer,) = session.run([[x, x[:1]], x])
    assert [e.tolist() for e in longer] == [[1, 2], [1], [1, 2]], longer
    (maps,) = ortx.Session(MODELS + "/maps.onnx").run([np.array([[0.25, 0.75]], np.float32)])
    assert maps == [{"cat": 0.25, "dog": 0.75}], maps
    for x in ({"cat": 0.5, "dog": 1.5}, {7: 1.0}, None):
        assert ortx._from_value(ortx._to_value(x)) == x
    back = ortx._from_value(ortx._to_value([np.arange(3), np.arange(0)]))
    assert [e.tolist() for e in back] == [[0, 1, 2], []], back
    raw = ortx._from_value(ortx._to_value(ortx.RawTensor(22, [3], b"\x21\x03")))
    assert (raw.dtype, raw.shape, raw.data) == (22, (3,), b"\x21\x03")
    for dtype in ortx._CODES:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        back = ortx._from_value(ortx._to_value(array))
        assert back.dtype == dtype and back.shape == (2, 3) and (back == array).all(), dtype


def check_bindings():
    session = ortx.Session(MODEL)
    assert session.inputs[0].shape[1:] == [1, 8, 8] and isinstance(session.inputs[0].shape[0], str)
    image, answer = np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 10), np.float32)
    binding = ortx.Binding(session)
    fails(ortx.Code.INVALID_ARGUMENT, "image", binding.run)
    binding.set_input("image", image)
    binding.set_output("probabilities", answer)
    binding.run()
    blank = answer.copy()
    image[:] = np.arange(64).reshape(8, 8) % 3 / 2
    binding.run()
    assert not np.allclose(answer, blank) and np.allclose(answer, session.run([image])[0])
    binding.set_output("probabilities", None)
    binding.run()
    assert np.array_equal(binding.output("probabilities"), answer)
    fails(ortx.Code.CANCELLED, "time", lambda: binding.run(timeout=1e-9))
    try:
        binding.set_output("probabilities", np.zeros((10, 2), np.float32).T)
        raise AssertionError("an output that is not contiguous")
    except ValueError:
        pass


def check_threads():
    session, (labels, images) = ortx.Session(MODEL), digits()
    answers = [None] * 4

    def work(i):
        for _ in range(10):
            answers[i] = session.run([images[:16]])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(a, answers[0]) for a in answers)


def check_devices():
    image = np.zeros((1, 1, 8, 8), np.float32)
    for name, description in ortx.devices():
        (answer,) = ortx.Session(MODEL, devices=[name]).run([image])
        assert np.isclose(answer.sum(), 1, atol=1e-4), description


for name, check in list(globals().items()):
    if name.startswith("check_"):
        check()
print("Python: all checks")
