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
for model in models/digits.onnx "${ORTX_CACHE:-$HOME/.cache/ortx}"/models/*/model.onnx; do
  "$release/ortx" bench "$model" || echo "bench: $model failed"
done
