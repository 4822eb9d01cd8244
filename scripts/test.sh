#!/usr/bin/env bash
# Everything that `make test` and CI check. Each step says what it is; the end lists them with times and what was skipped.
# A failing step does not stop the others. Arguments, if any, name the only steps to run: scripts/test.sh lint cargo
set -uo pipefail
cd "$(dirname "$0")/.." || exit
only=" $* "
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
failed=0
summary=()
skipped=()

# step NAME "what it does" COMMAND...
step() {
  local name=$1 what=$2 start=$SECONDS verdict=ok
  shift 2
  [ "$only" = "  " ] || [[ $only == *" $name "* ]] || return 0
  printf '\n=== %s: %s\n' "$name" "$what"
  "$@" </dev/null 2>&1 | tee "$log/$name" || { verdict=FAILED; failed=1; }
  summary+=("$(printf '  %-12s %-6s %4d s   %s' "$name" "$verdict" $((SECONDS - start)) "$what")")
}

setup() {
  command -v cargo >/dev/null || { echo "setup: no cargo: Rust 1.89 or newer is required (https://rustup.rs)"; return 1; }
  scripts/setup.sh system || return 1
  if ! scripts/setup.sh have venv; then
    echo "setup: skipped: conformance cases, real models and the bindings for Go, Python and .NET: Python 3.11 cannot make a venv here"
    return 0
  fi
  hosts=$(scripts/setup.sh venv requirements-hosts.txt) || echo "setup: skipped: Go and .NET could not be installed, so the tests of bindings/ may be"
  scripts/setup.sh venv requirements.txt >/dev/null
}

data() {
  scripts/setup.sh have venv || { echo "data: skipped: no venv for the packages that make the data"; return 0; }
  scripts/data.sh
}

lint() {
  cargo fmt --version >/dev/null 2>&1 || { echo "lint: skipped: no rustfmt"; return 0; }
  cargo fmt --all --check || return 1
  cargo clippy --version >/dev/null 2>&1 || { echo "lint: skipped: no clippy"; return 0; }
  cargo clippy -q --workspace --all-targets -- -D warnings
}

# The output of passing tests too, since they print there what they skipped and why.
cargo_tests() {
  local hosts
  # What cannot be there is skipped with a word, not failed.
  scripts/setup.sh have venv || export ORTX_TEST_OFFLINE=1
  if hosts=$(scripts/setup.sh venv requirements-hosts.txt 2>/dev/null); then
    PATH=$hosts/bin:$PATH
    ORTX_DOTNET=$(ls "$hosts"/lib/python3*/site-packages/dotnetcore2/bin/dotnet 2>/dev/null)
    export PATH ORTX_DOTNET GOTOOLCHAIN=local
  fi
  local python
  python=$(scripts/setup.sh venv requirements.txt 2>/dev/null) && export ORTX_PYTHON=$python/bin/python
  cargo test --workspace -- --show-output
}

# What people get from `make install`: found by pkg-config, linked shared and static, run.
install_check() {
  local stage=$log/stage flags
  make --no-print-directory install DESTDIR="$stage" PREFIX=/usr >/dev/null || return 1
  find "$stage" -type f -o -type l | sed "s#^$stage#  #" | sort
  command -v pkg-config >/dev/null || { echo "install: skipped: no pkg-config"; return 0; }
  export PKG_CONFIG_PATH=$stage/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage
  flags=$(pkg-config --cflags --libs ortx) || return 1
  # shellcheck disable=SC2086
  cc -std=c99 -Wall -Wextra -Wpedantic -Werror c_examples/digits.c -o "$log/shared" $flags || return 1
  LD_LIBRARY_PATH=$stage/usr/lib "$log/shared" models/digits.onnx models/digits_test.bin | tail -1
  readelf -d "$log/shared" | grep -o 'libortx\.so\.0' || { echo "install: the program does not ask for the soname libortx.so.0"; return 1; }
  # shellcheck disable=SC2046
  cc -std=c99 c_examples/digits.c -o "$log/static" $(pkg-config --cflags ortx) "$stage/usr/lib/libortx.a" \
    $(pkg-config --static --libs-only-l ortx | sed 's/-lortx//') || return 1
  "$log/static" models/digits.onnx models/digits_test.bin | tail -1
}

step setup "tools and Python packages" setup
step data "conformance cases, real models, reference answers" data
step lint "format and clippy, warnings are errors" lint
step build "the library, the command, the examples, optimised" make --no-print-directory build
step install "make install, then a C program against what it installed" install_check
step cargo "unit, documentation, conformance, model, ABI and host tests" cargo_tests

# Reasons that steps and tests printed, once each.
mapfile -t skipped < <(grep -hiE '(^|[ :])skipped[: ]|skipped will be' "$log"/* 2>/dev/null | grep -vE '^test result|^=== ' | sed 's/^ *//' | sort -u)
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
if [ ${#skipped[@]} -gt 0 ]; then
  printf 'skipped here:\n'
  printf '  %s\n' "${skipped[@]}"
else
  printf 'nothing was skipped\n'
fi
grep -h '^conformance: ' "$log"/* 2>/dev/null | tail -1
# The sum of cargo's own closing lines.
grep -h '^test result:' "$log"/* 2>/dev/null | awk '
  { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i; if ($(i + 1) == "ignored;") s += $i } }
  END { if (NR) printf "%d passed, %d failed, %d skipped\n", p, f, s }'
[ $failed = 0 ] && echo "all steps passed" || echo "FAILED (see above)"
exit $failed
