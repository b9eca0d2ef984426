#!/usr/bin/env bash
# What weir is trained with, for scripts/pgo.sh. `pgo-train.sh <weir> <counts>` has a weir with counters in it forward calls of
# every API to its own simulated provider, and show the demo: small calls and large ones, whole and streamed, with the cache and
# without. Each writes what it counted into the folder: run-all.profraw is of the weir that did as it does by default.
set -euo pipefail
weir=$(realpath "$1") calls=$(realpath "$(dirname "$0")/pgo.jsonl")
counts=$(realpath "$2") here=$(mktemp -d)
# What was counted is written as they end.
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$here"' EXIT
cd "$here"
export LLVM_PROFILE_FILE=$counts/%p.profraw

# The simulated provider's.
export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
# The address that stands behind $2 in what the one that writes $1 says.
said() {
    for _ in $(seq 100); do
        sed -n "s|.*$2\(127\.0\.0\.1:[0-9]*\).*|\1|p" "$1" | grep . && return
        sleep 0.1
    done
    cat "$1" >&2
    return 1
}

"$weir" simulate --listen 127.0.0.1:0 >provider &
url=http://$(said provider http://)
{
    echo 'listen: 127.0.0.1:0'
    echo 'admin: { listen: 127.0.0.1:0 }'
    echo 'providers:'
    for name in openai anthropic gemini cohere ollama; do echo "  $name: { base_url: '$url' }"; done
    echo "  bedrock: { base_url: '$url', aws_sign: true, aws_region: us-east-1 }"
} >weir.yaml

for n in $(seq 200); do sed "s/{n}/$n/" "$calls"; done >calls.jsonl
# Prompts of a megabyte.
for n in $(seq 20); do head --lines=1 "$calls" | sed "s/{n}/$n/"; done | awk '
    BEGIN { for (n = 0; n < 20000; n++) long = long "The fox says \\\\\"no\\\\\" to the lazy dog, and runs. " }
    { sub(/Say/, long "Say"); print }' >long.jsonl

for cache in off all; do
    LLVM_PROFILE_FILE=$counts/run-$cache.profraw "$weir" run --config weir.yaml --set cache.mode=$cache \
        --set state_dir="$here/state" >log.$cache 2>&1 &
    run=$!
    app=$(said log.$cache '"weir.side":"app".*"server.address":"')
    for file in calls.jsonl long.jsonl; do
        "$weir" warm "$file" --to "$app" --again --rate 1000 --concurrency 16 --max-usd 1000 \
            --header 'Authorization: Bearer x' --header 'x-api-key: x' --header 'x-goog-api-key: x' | tail --lines=1
    done
    kill $run
    wait $run
done
# Whoever stops reading too early would end it before it has written what it counted.
"$weir" demo --rate 1000 --duration 20s >demo
grep '^books ' demo
