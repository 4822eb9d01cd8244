#!/usr/bin/env bash
# Times ortx. Beside the bench of the workplace (../shared/bench, or ORTX_BENCH) against its peers on MODELS; without it, the
# real models in the cache through `ortx bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
release=${CARGO_TARGET_DIR:-target}/release
bench=${ORTX_BENCH:-../shared/bench}
python=${BENCH_WORK:-$HOME/.cache/ortx-bench}/venv/bin/python
if [ -f "$bench/bench.py" ]; then
  [ -x "$python" ] || "$bench/setup.sh"
  exec "$python" "$bench/bench.py" "${MODELS:-resnet50,bert_base}" --engines "${ENGINES:-ort:2}" \
    --ext "ortx:2=$release/examples/peer_worker" --rounds "${ROUNDS:-5}"
fi
echo "bench: no $bench, so without peers"
scripts/data.sh models
"$release/ortx" bench models/digits.onnx
cache=${ORTX_CACHE:-$HOME/.cache/ortx}
for model in "$cache"/models/*/model.onnx; do
  name=$(basename "$(dirname "$model")")
  data=$(ls -d "$cache"/references/*/"$name"/test_data_set_0 2>/dev/null | tail -1)
  [ -n "$data" ] || { echo "bench: $name skipped: no inputs in the cache"; continue; }
  "$release/ortx" bench "$model" --test-data "$data" || echo "bench: $name failed"
done
