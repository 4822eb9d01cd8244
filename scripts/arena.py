"""Working memory of the bench models, ours beside onnxruntime's: `python scripts/arena.py`, for some of them `NAME...`; `--write`
puts the table into docs/performance.md. ORTX names the command, target/release/ortx otherwise; BENCH_MODELS the models' folder.

Ours is what `ortx inspect --plan` says of the arena. onnxruntime's is by how much its arena grows in the first run, where
each tensor is allocated by itself, or in the second, where its memory pattern asks for one block, whichever is less; it
extends the arena by what is asked for, and says so in its log. Weights are in neither, outputs are in onnxruntime's.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

ORTX = os.environ.get("ORTX", "target/release/ortx")
MODELS = pathlib.Path(os.environ.get("BENCH_MODELS", "~/.cache/ortx-bench/models")).expanduser()
TABLE = pathlib.Path(__file__).resolve().parent.parent / "docs/performance.md"
HEAD = "| model | arena | largest live set | ratio | largest workspace | scratch a thread | onnxruntime |\n|---|---|---|---|---|---|---|\n"


def arrays(npz):
    import numpy as np

    every = {k: v for k, v in np.load(npz).items() if not k.startswith("out__")}
    return {k.removeprefix("in__"): v for k, v in every.items()}


def ours(model, npz):
    shapes = [f"{k}={','.join(map(str, v.shape))}" for k, v in arrays(npz).items() if v.shape]
    args = [x for s in shapes for x in ("--shape", s)]
    out = subprocess.run([ORTX, "inspect", "--plan", "--json", *args, model], capture_output=True, text=True, check=True)
    found = json.loads(out.stdout)
    [first, *_] = found.get("plan", found)["segments"]
    return first["arena_bytes"][0], first["live_bytes"], first["workspace_bytes"], first["scratch_bytes"]


def child(model, npz):
    import onnxruntime as ort

    ort.set_default_logger_severity(0)
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(as_requested))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {k: v for k, v in arrays(npz).items() if k in [i.name for i in session.get_inputs()]}
    for _ in range(2):
        print("a run begins", file=sys.stderr, flush=True)
        session.run(None, feed)


def onnxruntimes(model, npz):
    out = subprocess.run([sys.executable, __file__, "--child", model, npz], capture_output=True, text=True, check=True)
    runs = out.stderr.split("a run begins")[1:]
    grown = [sum(map(int, re.findall(r"Extended allocation by (\d+) bytes", run))) for run in runs]
    return min(g for g in grown if g > 0 or g == grown[0])


def row(folder, npz, several):
    model = str(folder / "model.onnx")
    arena, live, workspace, scratch = ours(model, str(npz))
    kib = [f"{n / 1024:,.0f}" for n in (arena, live, workspace, scratch, onnxruntimes(model, str(npz)))]
    name = folder.name
    if several:
        tokens = arrays(npz)["input_ids"].shape[-1]
        name += ", a token" if tokens == 1 else f", {tokens} tokens"
    return f"| {name} | {kib[0]} | {kib[1]} | {arena / max(live, 1):.2f} | {' | '.join(kib[2:])} |\n"


def main(names):
    rows = HEAD
    print(HEAD, end="", flush=True)
    for folder in sorted(f for f in MODELS.iterdir() if not names or f.name in names):
        inputs = sorted(folder.glob("io_*.npz"))
        for npz in inputs:
            rows += row(folder, npz, len(inputs) > 1)
            print(rows.splitlines()[-1], flush=True)
    return rows


if sys.argv[1:2] == ["--child"]:
    child(*sys.argv[2:])
elif sys.argv[1:] == ["--write"]:
    table = re.compile(re.escape(HEAD.split(" ratio ")[0]) + r".*\n(?:\|.*\n)+")
    rows = main([])
    text, count = table.subn(lambda _: rows, TABLE.read_text())
    assert count == 1, f"{count} tables of working memory in {TABLE}"
    TABLE.write_text(text)
else:
    main(sys.argv[1:])
