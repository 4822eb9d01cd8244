#!/usr/bin/env bash
# Gets the tools that the tests need, outside the clone, saying what it does.
#
#   scripts/setup.sh system            compilers, valgrind, OpenCL, mono through apt where this runs as root; else names what is missing
#   scripts/setup.sh venv FILE         a venv with the packages of scripts/FILE (pinned, hashes checked); prints its path
#   scripts/setup.sh have NAME         exit status 0 if that tool is there (valgrind, mono, opencl, g++, ...)
#
# Everything lands in ${ORTX_CACHE:-~/.cache/ortx}, keyed by the hash of what was asked for: a second run is instant.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${ORTX_CACHE:-$HOME/.cache/ortx}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

have() {
  case $1 in
    opencl) PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1' && ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 ;;
    venv) python3 -c 'import venv, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { have ensurepip || have pip; } ;;
    ensurepip | pip) python3 -c "import $1" >/dev/null 2>&1 ;;
    mono) command -v mcs >/dev/null 2>&1 && command -v mono >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# name of the tool, the Debian packages that bring it, what is skipped without it
tools='gcc|gcc libc6-dev|nothing works: a C compiler is required
python3|python3|nothing works: Python 3.11 or newer is required
venv|python3-venv|the conformance cases, the real models, and the bindings for Go, Python and .NET
g++|g++|the C++ examples
pkg-config|pkg-config|the check of make install
valgrind|valgrind|the leak checks of the C programs
opencl|pocl-opencl-icd ocl-icd-libopencl1|the tests of the OpenCL backend on a device
mono|mono-mcs mono-runtime libmono-system-core4.0-cil|the C# binding'

system() {
  local missing=() packages=() line name debs effect
  while IFS='|' read -r name debs effect; do
    have "$name" || { missing+=("$name"); read -ra line <<<"$debs"; packages+=("${line[@]}"); }
  done <<<"$tools"
  [ ${#missing[@]} -gt 0 ] || { say "system tools: all there"; return 0; }
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing with apt: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    mkdir -p "$cache"
    if { apt-get update -q && apt-get install -qy --no-install-recommends "${packages[@]}"; } >"$cache/apt.log" 2>&1 </dev/null; then
      say "apt: done"
    else
      # One package that cannot be had must not take the others with it.
      for name in "${packages[@]}"; do
        apt-get install -qy --no-install-recommends "$name" >>"$cache/apt.log" 2>&1 </dev/null || say "apt: no $name (see $cache/apt.log)"
      done
    fi
  fi
  while IFS='|' read -r name debs effect; do
    have "$name" || say "missing $name (Debian: $debs): skipped will be $effect"
  done <<<"$tools"
  have gcc || have cc || die "no C compiler"
}

venv() {
  local list=$here/$1 key dir python
  [ -f "$list" ] || die "no such list: $list"
  have python3 || die "Python 3.11 or newer is required"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is required, found $(python3 -V)"
  have venv || die "python3 lacks its venv module (Debian: apt-get install python3-venv)"
  key=$({ cat "$list"; python3 -VV; } | sha256sum | cut -c1-16)
  dir=$cache/venv/$key
  python=$dir/bin/python
  mkdir -p "$cache/venv"
  (
    flock 9
    if [ ! -f "$dir/complete" ] || ! "$python" -c '' 2>/dev/null; then
      say "making a venv for $1 in $dir: $(grep -o '^[a-z][^ ]*' "$list" | paste -sd' ')"
      rm -rf "$dir"
      # Debian's Python without python3-venv has no pip to put into the venv: the system's installs into it instead.
      local pip=("$python" -m pip)
      if have ensurepip; then
        python3 -m venv "$dir" >&2
      else
        python3 -m venv --without-pip "$dir" >&2
        pip=(python3 -m pip --python "$python")
      fi
      "${pip[@]}" install -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r "$list" >&2 </dev/null ||
        die "pip could not install $list"
      touch "$dir/complete"
      say "venv ready"
    fi
  ) 9>"$cache/venv/$key.lock"
  printf '%s\n' "$dir"
}

case ${1:-} in
  system) system ;;
  venv) venv "${2:-requirements.txt}" ;;
  have) have "${2:?}" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
