#!/usr/bin/env bash
# Brings the tests' data into the cache: scripts/data.sh [conformance|models|all]. Instant when it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/setup.sh" venv requirements.txt)/bin/python
what=${1:-all}
if [ "$what" != models ]; then "$python" "$here/dump_conformance.py"; fi
if [ "$what" = all ]; then "$python" "$here/dump_contrib.py"; "$python" "$here/dump_types.py"; fi
if [ "$what" != conformance ]; then
  fetched=0
  "$python" "$here/fetch_models.py" || fetched=$?
  "$python" "$here/make_references.py"
  exit "$fetched"
fi
