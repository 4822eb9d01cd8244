#!/usr/bin/env python3
"""Writes cases of the operators that onnxruntime added (com.microsoft), with onnxruntime's answers, into the cache:

    CACHE/contrib/KEY/NAME/model.onnx, test_data_set_0/input_I.pb, output_I.pb
    CACHE/contrib/KEY/index.tsv    name, rtol, atol, data sets

KEY is the hash of the files of scripts/contrib/, which hold the cases, a file a family. Attributes, shapes and numbers are drawn
at random from fixed seeds.

    dump_contrib.py [WORD]         with a word: only the cases of the modules whose name has it, made but not written (a check)
"""

import importlib
import os
import pathlib
import sys

here = pathlib.Path(__file__).parent / "contrib"
files = sorted(here.glob("*.py"))


def key():
    """64-bit FNV-1a of all files, by name; tests/it/contrib.rs makes the same."""
    h = 0xCBF29CE484222325
    for b in b"".join(f.read_bytes() for f in files):
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def main():
    root = pathlib.Path(os.environ.get("ORTX_CACHE") or pathlib.Path.home() / ".cache" / "ortx") / "contrib" / key()
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if (root / "index.tsv").exists() and not word:
        return
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(here.parent))
    for f in files:
        if f.stem not in ("cases", "__init__") and word in f.stem:
            importlib.import_module(f"contrib.{f.stem}")
    cases = importlib.import_module("contrib.cases")
    if word:
        print(f"{len(cases.cases)} cases, not written")
    else:
        cases.write(root)


if __name__ == "__main__":
    sys.exit(main())
