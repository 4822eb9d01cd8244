#!/usr/bin/env python3
"""Writes every case of the ONNX backend test suite into the cache, so that the Rust tests need no Python.

The package computes its node cases when asked, so this imports it (pinned in scripts/requirements.txt), takes the cases
its own runner would take, and writes each in the suite's usual layout:

    KIND/NAME/model.onnx
    KIND/NAME/test_data_set_K/input_I.pb, output_I.pb
    index.tsv    kind, name, rtol, atol, data sets, inputs, outputs

into CACHE/conformance/DIGEST/. tests/conformance.digest holds two digests, and DIGEST is the start of the first:

    content    every byte, but of a floating-point input or output only its type and shape: must agree
    exact      every byte: where it differs, the run says so and goes on, since the last bit of a sine depends on the CPU
               and the C library, and the tests compare within tolerances

To keep even that rare, the generation runs in a child process with numpy, OpenBLAS and libm held to the AVX2 level.
"""

import argparse
import glob
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGEST_FILE = ROOT / "tests" / "conformance.digest"
EXPECTED = {"node": 1884, "simple": 23, "pytorch-operator": 35, "pytorch-converted": 82, "light": 9}
VERSIONS = {"onnx": "1.23.2"}

# What must not depend on the machine: which kernels numpy, OpenBLAS and libm pick, thread counts, hash order.
FIXED_ENV = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
}


def cache_root():
    return pathlib.Path(os.environ.get("ORTX_CACHE") or pathlib.Path.home() / ".cache" / "ortx")


def serialise(value, info):
    """One input or output as the bytes of the message that its declared type asks for."""
    from onnx import TensorProto, numpy_helper

    kind = info.type.WhichOneof("value")
    if kind == "map_type":
        message = numpy_helper.from_dict(value, info.name)
    elif kind == "sequence_type":
        message = numpy_helper.from_list(value, info.name)
    elif kind == "optional_type":
        message = numpy_helper.from_optional(value, info.name)
    elif isinstance(value, TensorProto):
        message = value
    else:
        message = numpy_helper.from_array(value, info.name)
    return message.SerializeToString(deterministic=True)


def node_cases():
    """(name, rtol, atol, model bytes, [(inputs, outputs)]) of the cases that the package computes."""
    from onnx.backend.test.loader import load_model_tests

    for case in load_model_tests(kind="node"):
        graph = case.model.graph
        sets = []
        for inputs, outputs in case.data_sets:
            sets.append((
                [serialise(v, i) for v, i in zip(inputs, graph.input, strict=True)],
                [serialise(v, i) for v, i in zip(outputs, graph.output, strict=True)],
            ))
        yield case.name, case.rtol, case.atol, case.model.SerializeToString(deterministic=True), sets


def numbered(folder, stem):
    """The contents of stem_0.pb, stem_1.pb, ... in `folder`."""
    found = []
    while (path := folder / f"{stem}_{len(found)}.pb").exists():
        found.append(path.read_bytes())
    return found


def stored_cases(kind):
    """The cases whose model and data the package ships as files."""
    from onnx.backend.test.loader import load_model_tests

    for case in load_model_tests(kind=kind):
        folder = pathlib.Path(case.model_dir)
        sets = []
        for data in sorted(folder.glob("test_data_set*")):
            inputs, outputs = numbered(data, "input"), numbered(data, "output")
            assert len(inputs) + len(outputs) == len(glob.glob(str(data / "*.pb"))), f"unnumbered data in {data}"
            sets.append((inputs, outputs))
        yield case.name, case.rtol, case.atol, (folder / "model.onnx").read_bytes(), sets


def light_cases():
    """The whole models: the input is the runner's own ramp, the output a file beside the model."""
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import Runner

    package = pathlib.Path(onnx.__file__).parent.parent
    for case in load_model_tests(kind="real"):
        path = package / case.url
        data = path.read_bytes()
        graph = onnx.load_from_string(data).graph
        held = {i.name for i in graph.initializer}
        inputs = [
            numpy_helper.from_array(Runner.generate_dummy_data(i, seed=0, name=case.model_name), i.name)
            for i in graph.input
            if i.name not in held
        ]
        outputs = [path.with_name(f"{path.stem}_output_{k}.pb").read_bytes() for k in range(len(graph.output))]
        sets = [([i.SerializeToString(deterministic=True) for i in inputs], outputs)]
        yield case.name, case.rtol, case.atol, data, sets


def generate(folder):
    """Writes all cases under `folder`."""
    import ml_dtypes
    import numpy
    import onnx

    if onnx.__version__ != VERSIONS["onnx"]:
        raise SystemExit(f"dump_conformance: needs onnx {VERSIONS['onnx']}, found {onnx.__version__}")
    try:
        import PIL  # noqa: F401

        raise SystemExit("dump_conformance: Pillow is installed here; it changes the image cases, use a clean venv")
    except ImportError:
        pass
    print(f"  onnx {onnx.__version__}, numpy {numpy.__version__}, ml_dtypes {ml_dtypes.__version__}", flush=True)
    # Several cases overflow or divide by zero on purpose.
    warnings.simplefilter("ignore")
    numpy.seterr(all="ignore")

    index = io.StringIO()
    index.write("# kind\tname\trtol\tatol\tdata sets\tinputs\toutputs\n")
    for kind, want in EXPECTED.items():
        start = time.time()
        source = {"node": node_cases, "light": light_cases}.get(kind, lambda kind=kind: stored_cases(kind))
        count = 0
        for name, rtol, atol, model, sets in sorted(source(), key=lambda case: case[0]):
            case = folder / kind / name
            case.mkdir(parents=True)
            (case / "model.onnx").write_bytes(model)
            for k, (inputs, outputs) in enumerate(sets):
                data = case / f"test_data_set_{k}"
                data.mkdir()
                for i, blob in enumerate(inputs):
                    (data / f"input_{i}.pb").write_bytes(blob)
                for i, blob in enumerate(outputs):
                    (data / f"output_{i}.pb").write_bytes(blob)
            ins, outs = (",".join(str(len(s[side])) for s in sets) for side in (0, 1))
            index.write(f"{kind}\t{name}\t{rtol!r}\t{atol!r}\t{len(sets)}\t{ins}\t{outs}\n")
            count += 1
        print(f"  {kind}: {count} cases in {time.time() - start:.1f} s", flush=True)
        if count != want:
            raise SystemExit(f"dump_conformance: {count} cases of kind {kind}, expected {want}")
    (folder / "index.tsv").write_text(index.getvalue())


def outline(message):
    """What of a value the content digest covers: all of it, except the data of floating-point tensors."""
    import onnx
    from onnx import TensorProto

    exact = {"UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "UINT32", "UINT64"}
    exact |= {"UINT4", "INT4", "UINT2", "INT2"}
    if isinstance(message, TensorProto) and TensorProto.DataType.Name(message.data_type) not in exact:
        return f"float tensor {message.data_type} {list(message.dims)}".encode()
    if isinstance(message, onnx.SequenceProto) and message.tensor_values:
        return b"sequence " + b"\0".join(outline(t) for t in message.tensor_values)
    if isinstance(message, onnx.OptionalProto) and message.HasField("tensor_value"):
        return b"optional " + outline(message.tensor_value)
    if isinstance(message, onnx.OptionalProto) and message.HasField("sequence_value"):
        return b"optional " + outline(message.sequence_value)
    return message.SerializeToString(deterministic=True)


def digests(folder):
    """The content digest and the exact digest over the relative names and contents of all files, in order."""
    import onnx

    kinds = {
        "tensor_type": onnx.TensorProto,
        "sequence_type": onnx.SequenceProto,
        "optional_type": onnx.OptionalProto,
    }
    content, exact = hashlib.sha256(), hashlib.sha256()

    def add(name, data, essence):
        for total, part in ((content, essence), (exact, data)):
            total.update(f"{name}\0{len(part)}\0".encode())
            total.update(part)

    index = (folder / "index.tsv").read_bytes()
    add("index.tsv", index, index)
    for path in sorted(folder.glob("*/*/model.onnx")):
        data = path.read_bytes()
        add(path.relative_to(folder).as_posix(), data, data)
        graph = onnx.load_from_string(data).graph
        for side, infos in (("input", graph.input), ("output", graph.output)):
            for value in sorted(path.parent.glob(f"test_data_set_*/{side}_*.pb")):
                kind = infos[int(value.stem.rsplit("_", 1)[1])].type.WhichOneof("value")
                blob = value.read_bytes()
                add(value.relative_to(folder).as_posix(), blob, outline(kinds[kind].FromString(blob)))
    return content.hexdigest(), exact.hexdigest()


def recorded():
    """{"content": digest, "exact": digest} of tests/conformance.digest, empty if there is none."""
    if not DIGEST_FILE.exists():
        return {}
    return dict(line.split() for line in DIGEST_FILE.read_text().splitlines() if line.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="write the digest found to tests/conformance.digest")
    parser.add_argument("--generate", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        return generate(pathlib.Path(args.generate))

    pinned = recorded()
    base = cache_root() / "conformance"
    if pinned and not args.accept and (base / pinned["content"][:16] / "complete").exists():
        print(f"conformance cases: in the cache ({base / pinned['content'][:16]})")
        return 0

    print("conformance cases: generating 2,033 (about ten seconds)", flush=True)
    fresh = base / f".new-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        subprocess.run([sys.executable, __file__, "--generate", str(fresh)], check=True, env={**os.environ, **FIXED_ENV})
        content, exact = digests(fresh)
        if args.accept:
            DIGEST_FILE.write_text(f"content {content}\nexact {exact}\n")
        elif content != pinned.get("content"):
            raise SystemExit(
                f"dump_conformance: the cases' content digest is {content}, tests/conformance.digest says "
                f"{pinned.get('content')}: a pinned package differs from the recorded one."
            )
        elif exact != pinned.get("exact"):
            print("  note: some floats differ in their last bits from the recorded ones (another CPU or C library)")
        (fresh / "complete").write_text(f"{exact}\n")
        target = base / content[:16]
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        print(f"conformance cases: {target}")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
