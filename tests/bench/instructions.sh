#!/usr/bin/env bash
# Counts user-space instructions: per Evaluate request (one connection, 64 in flight, metrics on), per delivery to a watcher (300
# connections), and per answer with all 100 flags by OFREP (one connection of HTTP/2, 16 in flight). Two runs of different length under callgrind; the difference of the instructions over the difference of the work, so that
# start, handshakes and the end cancel. It repeats to within 1 %, however busy the machine is.
#
#   tests/bench/instructions.sh [BINARY]      default: target/release/yardarm
#
# Exits 1 when a request passes the bar, 2 when the count could not be made.
set -euo pipefail

bar=55000
binary=${1:-${CARGO_TARGET_DIR:-target}/release/yardarm}
flags=100
# The first of them, which `bench request` asks about.
key=service-00.feature-00000
watchers=300

fail() {
    echo "instructions.sh: $*" >&2
    exit 2
}

for tool in valgrind h2load; do
    command -v $tool >/dev/null || fail "$tool is missing; apt-get install valgrind nghttp2-client"
done
[ -x "$binary" ] || fail "no executable at $binary; cargo build --release, or name another"

dir=$(mktemp -d)
children=()
cleanup() {
    for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT

# appears FILE PID SECONDS: waits until a process has written its ready file.
appears() {
    for _ in $(seq $(($3 * 20))); do
        [ -s "$1" ] && return
        kill -0 "$2" 2>/dev/null || fail "a server ended before it was ready: $(tail -5 "$dir"/*.log)"
        sleep 0.05
    done
    fail "a server was not ready within $3 s: $(tail -5 "$dir"/*.log)"
}

# address NAME FILE: an address out of a ready file.
address() {
    grep -o "\"$1\":\"[^\"]*\"" "$2" | cut -d'"' -f4
}

"$binary" control --listen 127.0.0.1:0 --data "$dir/control" --ready-file "$dir/control.json" >"$dir/control.log" 2>&1 &
children+=($!)
appears "$dir/control.json" $! 20
control=http://$(address grpc "$dir/control.json")
"$binary" bench flags --count $flags >"$dir/flags.json"
"$binary" flag apply --control-plane "$control" --env default --yes -f "$dir/flags.json" >"$dir/apply.log" 2>&1 || fail "$(cat "$dir/apply.log")"
"$binary" bench request >"$dir/request"

# requests COUNT: that many are answered by the sidecar.
requests() {
    h2load -n "$1" -c 1 -m 64 -t 1 -d "$dir/request" -H 'content-type: application/grpc' -H 'te: trailers' \
        "http://$sidecar/yardarm.v1.Evaluation/Evaluate" >"$dir/h2load.log"
    # h2load counts HTTP 200, and a gRPC error comes with one: the answers must have a decision in them too.
    grep -q " $1 succeeded, 0 failed" "$dir/h2load.log" || fail "not every request succeeded: $(grep requests: "$dir/h2load.log")"
    local bytes
    bytes=$(sed -n 's/^traffic:.*(\([0-9]*\)) data$/\1/p' "$dir/h2load.log")
    [ "$bytes" -ge $(($1 * 40)) ] || fail "the answers are empty: $bytes bytes of data for $1 requests"
}

# bulks COUNT: that many times every flag is answered by OFREP.
bulks() {
    printf '%s' '{"context":{"targetingKey":"user-00000000","email":"user-0@customer.net","plan":"free","country":"DE","seats":10,' \
        '"appVersion":"2.4.1"}}' >"$dir/context"
    h2load -n "$1" -c 1 -m 16 -t 1 -d "$dir/context" -H 'content-type: application/json' \
        "http://$ofrep/ofrep/v1/evaluate/flags" >"$dir/h2load.log"
    grep -q " $1 succeeded, 0 failed" "$dir/h2load.log" || fail "not every request succeeded: $(grep requests: "$dir/h2load.log")"
    local bytes
    bytes=$(sed -n 's/^traffic:.*(\([0-9]*\)) data$/\1/p' "$dir/h2load.log")
    [ "$bytes" -ge $(($1 * flags * 100)) ] || fail "the answers have not $flags flags: $bytes bytes of data for $1 requests"
}

# deliveries CHANGES: that many changes come to every watcher.
deliveries() {
    "$binary" bench watch --sidecar "$sidecar" --control "$control" --watchers $watchers --changes "$1" >/dev/null
}

# decides: the sidecar answers as `bench request` is going to ask, from the split of a flag that exists.
decides() {
    "$binary" eval "$key" --sidecar "$sidecar" --control-plane "$control" --env default --output json --key user-00000000 \
        --attr email=user-0@customer.net --attr plan=free --attr country=DE --attr seats:=10 --attr appVersion=2.4.1 >"$dir/decision" 2>&1 &&
        grep -q '"reason":"SPLIT"' "$dir/decision"
}

# instructions WORK AMOUNT: into `counted`, what a sidecar spends from its start to its end, with that work in between. (Not on standard
# output: `$(...)` is a shell of its own, and the sidecar that it started would be missing in `children`.)
instructions() {
    local name="$1-$2" ready=
    valgrind --quiet --tool=callgrind --callgrind-out-file="$dir/$name.out" "$binary" sidecar --threads 1 \
        --control-plane "$control" --env default --pod "$name" --data "$dir/$name" \
        --listen 127.0.0.1:0 --management 127.0.0.1:0 --ofrep 127.0.0.1:0 --sync 127.0.0.1:0 --ready-file "$dir/$name.json" >"$dir/$name.log" 2>&1 &
    local pid=$!
    children+=("$pid")
    appears "$dir/$name.json" $pid 60
    sidecar=$(address tcp "$dir/$name.json")
    ofrep=$(address ofrep "$dir/$name.json")
    for _ in $(seq 200); do
        "$binary" healthcheck --management "$(address management "$dir/$name.json")" >/dev/null 2>&1 && ready=yes && break
        sleep 0.1
    done
    [ -n "$ready" ] || fail "the sidecar never held a state: $(tail -5 "$dir/$name.log")"
    # An error is as long as a decision and cheaper: what is counted must be decisions.
    decides || fail "no decision by a split but this: $(cat "$dir/decision")"
    "$1" "$2"
    kill -TERM $pid
    wait $pid || fail "the sidecar did not end well: $(tail -5 "$dir/$name.log")"
    counted=$(sed -n 's/^\(summary\|totals\): *\([0-9]*\).*/\2/p' "$dir/$name.out" | head -1)
    [ -n "$counted" ] || fail "callgrind wrote no sum into $name.out"
}

# difference WORK FEW MANY: into `counted`, what the work between the two amounts costs.
difference() {
    local few
    instructions "$1" "$2"
    few=$counted
    instructions "$1" "$3"
    counted=$((counted - few))
}

difference requests 2000 12000
per_request=$((counted / 10000))
difference deliveries 3 13
per_delivery=$((counted / (10 * watchers)))
difference bulks 100 600
per_bulk=$((counted / 500))

verdict=pass
[ "$per_request" -le $bar ] || verdict=MISS
echo "instructions per Evaluate $per_request (bar $bar: $verdict), per delivery to a watcher $per_delivery, per $flags flags by OFREP $per_bulk ($binary)"
[ $verdict = pass ]
