#!/usr/bin/env bash
# Measures what Vitals costs and prints each figure beside its budget and its aim. Nothing fails because it is slow.
#
# Usage: scripts/bench.sh [--profile NAME] [--no-build] [PART...]
#
#   size     size of the client's binary
#   start    from the client's start to its first acknowledged sample
#   client   CPU and memory of a client that samples this machine every 5 s, without walks over processes
#   server   CPU, memory and time to acknowledge of a server that 10,000 hosts send to every 5 s over TLS, with its store and
#            an InfluxDB that answers 204 to everything
#   plain    the same over plain TCP
#   storm    10,000 hosts connect at once, beside 200 that are connected
#   lines    a sample to line protocol
#   restart  a server that starts with 1 GB of journal that neither history nor InfluxDB has read: until it shows a host
#            live, and how fast a real InfluxDB gets what waits
#   away     a server that is back after an hour, with 1,000 hosts that each bring an hour of samples: until it shows all
#            of them live, until it has all, and how late live samples are meanwhile
#
# Without PART all of them, in about 20 minutes and the time of a release build. Environment: BENCH_CLIENT_SECONDS (120),
# BENCH_HOSTS (10000), BENCH_WARM_SECONDS (30), BENCH_SECONDS (60), BENCH_STARTS (5), BENCH_JOURNAL_MIB (1000),
# BENCH_AWAY_HOSTS (1000), BENCH_AWAY (1h).
# BENCH_SERVER_BIN, BENCH_CLIENT_BIN, BENCH_ANSWER_BIN and BENCH_FILL_BIN take other programs and build nothing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PARTS=(size start client server plain storm lines restart away)
PROFILE=release
BUILD=yes
ROWS=()
declare -A RSS_A_HOST=()
INTERVAL=5

main() {
  local chosen=() part
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --profile) need_value "$1" $# && PROFILE=$2 && shift ;;
      --no-build) BUILD=no ;;
      *)
        case " ${PARTS[*]} " in
          *" $1 "*) chosen+=("$1") ;;
          *) wrong_use "there is no part $1; there are: ${PARTS[*]}" ;;
        esac
        ;;
    esac
    shift
  done
  [ ${#chosen[@]} -gt 0 ] || chosen=("${PARTS[@]}")
  [ -r /proc/self/smaps_rollup ] || die 'this needs Linux with /proc/PID/smaps_rollup'
  need_cmd jq 'Install it with the package manager, for example: apt-get install jq'
  need_cmd curl 'Install it with the package manager, for example: apt-get install curl'

  SCRATCH=$(mktemp -d)
  trap clean_up EXIT
  # What lib.sh keeps of processes goes to a directory of this run.
  STATE_DIR=$SCRATCH
  LOG_DIR=$SCRATCH/logs
  RUN_DIR=$SCRATCH/run
  mkdir -p "$LOG_DIR" "$RUN_DIR"
  local name
  for name in $(compgen -e | grep '^VITALS_' || true); do unset "$name"; done
  find_programs
  # Ten thousand connections are as many open files.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

  for part in "${chosen[@]}"; do
    note "== $part"
    "bench_$part"
  done
  table
}

clean_up() {
  local name
  for name in simulate steady client server answer; do
    end "$name" 10 2>/dev/null || true
  done
  rm -rf "$SCRATCH"
}

find_programs() {
  local dir
  SERVER=${BENCH_SERVER_BIN:-}
  CLIENT=${BENCH_CLIENT_BIN:-}
  ANSWER=${BENCH_ANSWER_BIN:-}
  FILL=${BENCH_FILL_BIN:-}
  [ -z "$SERVER" ] || [ -z "$CLIENT" ] || [ -z "$ANSWER" ] || [ -z "$FILL" ] || return 0
  if [ "$BUILD" = yes ]; then
    need_cargo
    note "Building (profile $PROFILE)."
    # One after the other: built together the client would get what only the server needs of their common library.
    (cd "$REPO" && cargo build --locked --profile "$PROFILE" -p vitals-server --example answer204 --example fill_journal &&
      cargo build --locked --profile "$PROFILE" -p vitals-server &&
      cargo build --locked --profile "$PROFILE" -p vitals-client) ||
      die 'the build failed: see the messages above'
  fi
  dir=$(target_dir)/$(profile_dir "$PROFILE")
  SERVER=${SERVER:-$dir/vitals-server}
  CLIENT=${CLIENT:-$dir/vitals-client}
  ANSWER=${ANSWER:-$dir/examples/answer204}
  FILL=${FILL:-$dir/examples/fill_journal}
  [ -x "$SERVER" ] && [ -x "$CLIENT" ] && [ -x "$ANSWER" ] && [ -x "$FILL" ] && return
  die "there is no build in $dir" 'Leave out --no-build.'
}

# --- measuring -----------------------------------------------------------------

# cpu_ms PID: CPU time that the process and its threads, ended ones too, have used, in steps of 10 ms.
cpu_ms() {
  local stat
  stat=$(cat "/proc/$1/stat")
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  echo $(((${12} + ${13}) * 1000 / $(getconf CLK_TCK)))
}

# cpu_ns PID: the same of its present threads alone, to the nanosecond.
cpu_ns() { cat "/proc/$1"/task/*/schedstat | awk '{ n += $1 } END { printf "%d\n", n }'; }

# thread_of PID NAME: the directory of a thread.
thread_of() {
  local task
  for task in "/proc/$1"/task/*; do
    if [ "$(cat "$task/comm")" = "$2" ]; then echo "$task" && return; fi
  done
  die "process $1 has no thread called $2"
}

# thread_ns THREAD: CPU time of one thread, to the nanosecond.
thread_ns() { cut -d ' ' -f 1 "$1/schedstat"; }

# written THREAD-OR-PROCESS: bytes that it made the disk write.
written() { awk '/^write_bytes:/ { print $2 }' "$1/io"; }

# metric NAME: of the server that runs, summed over labels.
metric() { fetch "$API/metrics" | awk -v name="$1" '{ n = $1; sub(/\{.*/, "", n) } n == name { sum += $2 } END { printf "%d\n", sum }'; }

# rss_kb PID: memory that is resident, in KiB.
rss_kb() { awk '/^Rss:/ { print $2 }' "/proc/$1/smaps_rollup"; }

# calc EXPRESSION [FORMAT]
calc() { awk "BEGIN { printf \"${2:-%.2f}\", $1 }"; }

# row FIGURE MEASURED UNIT [BUDGET [AIM]]: a line of the table; budget and aim are upper limits in the same unit. A
# budget that is missed is OVER, an aim that is missed is only said.
row() {
  local verdict
  verdict=$(awk -v a="$2" -v budget="${4:-}" -v aim="${5:-}" 'BEGIN {
    if (budget == "" && aim == "") exit
    if (a == "") print "not measured"
    else if (budget != "" && a + 0 > budget + 0) print "OVER"
    else if (aim != "" && a + 0 > aim + 0) print (budget == "" ? "" : "ok, ") "aim missed"
    else print "ok"
  }')
  ROWS+=("$(printf '%-58s %10s %-6s %8s %8s  %s' "$1" "$2" "$3" "${4:-}" "${5:-}" "$verdict")")
  note "   $1: $2 $3"
}

table() {
  say ''
  printf '%-58s %10s %-6s %8s %8s\n' figure measured '' 'at most' aim
  printf '%s\n' "${ROWS[@]}" | sed 's/ *$//'
  say ''
  say "on $(nproc) processors ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), Linux $(uname -r), profile $PROFILE, load $(cut -d ' ' -f 1 /proc/loadavg)"
}

# --- programs ------------------------------------------------------------------

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if silent "127.0.0.1:$port"; then break; fi
  done
  echo "$port"
}

# make_tokens: what hosts join with at LISTEN, and what this script asks with. The server of $SCRATCH/server runs, or will.
make_tokens() {
  export VITALS_TOKEN_FILE=$SCRATCH/join-token
  "$SERVER" token create --data-dir "$SCRATCH/server" --uses 1000000 --address "$LISTEN" \
    >"$VITALS_TOKEN_FILE" 2>>"$LOG_DIR/server.log" || program_failed server
  "$SERVER" api-token create --data-dir "$SCRATCH/server" --name bench --access read \
    >"$STATE_DIR/read-token" 2>>"$LOG_DIR/server.log" || program_failed server
}

# start_server [ENVIRONMENT...]: sets LISTEN and API.
start_server() {
  LISTEN=127.0.0.1:$(free_port)
  HTTP_LISTEN=127.0.0.1:$(free_port)
  API=http://$HTTP_LISTEN
  rm -rf "$SCRATCH/server"
  make_tokens
  launch server env "$@" VITALS_DATA_DIR="$SCRATCH/server" VITALS_LISTEN="$LISTEN" VITALS_HTTP_LISTEN="$HTTP_LISTEN" "$SERVER" run
  wait_for 30 is_good "$API/readyz" || program_failed server
}

# start_client [ARGUMENT...]
start_client() {
  rm -rf "$SCRATCH/client"
  : >"$LOG_DIR/client.log"
  launch client env VITALS_DATA_DIR="$SCRATCH/client" VITALS_INTERVAL=${INTERVAL}s "$CLIENT" run --server "$LISTEN" "$@"
}

program_failed() {
  last_lines "$1"
  die "the $1 did not do what it should"
}

# --- parts ---------------------------------------------------------------------

bench_size() {
  local bytes
  if have strip; then
    strip -o "$SCRATCH/stripped" "$CLIENT"
    bytes=$(wc -c <"$SCRATCH/stripped")
  else
    bytes=$(wc -c <"$CLIENT")
  fi
  row 'client: stripped binary' "$(calc "$bytes / 1e6")" MB 5
}

first_settled() { grep -q 'message="first sample settled"' "$LOG_DIR/client.log"; }

bench_start() {
  local i times=()
  start_server
  for ((i = 0; i < ${BENCH_STARTS:-5}; i++)); do
    start_client
    wait_for 20 first_settled || program_failed client
    times+=("$(sed -n 's/.*message="first sample settled".* after_ms=\([0-9]*\).*/\1/p' "$LOG_DIR/client.log" | head -n 1)")
    end client 10
  done
  end server 20
  row "client: start to first acknowledged sample, longest of ${#times[@]}" \
    "$(printf '%s\n' "${times[@]}" | sort -n | tail -n 1 | awk '{ printf "%.2f", $1 / 1000 }')" s 1.5
}

bench_client() {
  client_costs client
  # What runs on any Linux of this architecture, and is what a fleet should get: it brings its own small C library.
  local triple program=$CLIENT
  triple=$(uname -m)-unknown-linux-musl
  if [ -z "${BENCH_CLIENT_BIN:-}" ] && [ -d "$(rustc --print target-libdir --target "$triple")" ]; then
    CLIENT=$(target_dir)/$triple/$(profile_dir "$PROFILE")/vitals-client
    if [ "$BUILD" = yes ]; then
      (cd "$REPO" && cargo build --locked --profile "$PROFILE" -p vitals-client --target "$triple") || die 'the build failed: see the messages above'
    fi
    [ ! -x "$CLIENT" ] || client_costs 'static client'
  else
    note "   the static client is left out: rustup target add $triple"
  fi
  CLIENT=$program
}

# client_costs NAME: of the program at CLIENT.
client_costs() {
  local name=$1 pid seconds=${BENCH_CLIENT_SECONDS:-120} before after disk
  start_server
  # The walk over processes is a matter of its own, every 30 s unless switched off.
  cat >"$SCRATCH/client.toml" <<'END'
[collect]
process_walk_interval = 0
END
  start_client --config "$SCRATCH/client.toml"
  wait_for 20 first_settled || program_failed client
  # The first samples open files and grow buffers.
  sleep $((INTERVAL * 3))
  pid=$(pid_of client) || program_failed client
  before=$(cpu_ns "$pid")
  disk=$(written "/proc/$pid")
  sleep "$seconds"
  after=$(cpu_ns "$pid")
  disk=$(($(written "/proc/$pid") - disk))
  row "$name: CPU a sample, $((seconds / INTERVAL)) samples at $INTERVAL s" \
    "$(calc "($after - $before) / 1e6 / ($seconds / $INTERVAL)")" ms 0.6
  row "$name: RSS" "$(calc "$(rss_kb "$pid") / 1024")" MiB 5
  row "$name: written to disk while connected" "$disk" B 0
  end client 10
  end server 20
}

bench_server() { loaded_server server; }

bench_plain() { loaded_server plain VITALS_INSECURE=true; }

# loaded_server NAME [ENVIRONMENT...]: of server and clients both.
loaded_server() {
  local name=$1
  shift
  local hosts=${BENCH_HOSTS:-10000} warm=${BENCH_WARM_SECONDS:-30} seconds=${BENCH_SECONDS:-60}
  local server simulate address idle loaded busy sim_busy took limit journal journal_ns journal_bytes
  limit=$(ulimit -n)
  if [ "$limit" != unlimited ] && [ "$limit" -lt $((hosts + 1000)) ]; then
    warn "only $limit files may be open, so $((limit - 1000)) hosts are played instead of $hosts; raise it with ulimit -n as root"
    hosts=$((limit - 1000))
  fi
  # It ends with its input, which is this pipe.
  rm -f "$SCRATCH/answer-input"
  mkfifo "$SCRATCH/answer-input"
  "$ANSWER" <"$SCRATCH/answer-input" >"$LOG_DIR/answer.log" 2>&1 &
  remember answer $!
  exec 8>"$SCRATCH/answer-input"
  wait_for 10 grep -q '^listening on' "$LOG_DIR/answer.log" || program_failed answer
  address=$(sed -n 's/^listening on //p' "$LOG_DIR/answer.log")

  start_server "$@" VITALS_INFLUX_URL="http://$address" VITALS_INFLUX_ORG=bench VITALS_INFLUX_BUCKET=bench VITALS_INFLUX_TOKEN=bench
  server=$(pid_of server) || program_failed server
  idle=$(rss_kb "$server")
  env "$@" "$CLIENT" simulate --hosts "$hosts" --interval "${INTERVAL}s" --seconds $((warm + seconds + INTERVAL)) --server "$LISTEN" --json \
    >"$SCRATCH/simulate.json" 2>"$LOG_DIR/simulate.log" 8>&- &
  simulate=$!
  remember simulate "$simulate"
  sleep "$warm"
  runs simulate || program_failed simulate
  journal=$(thread_of "$server" journal)
  busy=$(cpu_ms "$server")
  sim_busy=$(cpu_ms "$simulate")
  journal_ns=$(thread_ns "$journal")
  journal_bytes=$(written "$journal")
  took=$(date +%s%N)
  sleep "$seconds"
  runs server || program_failed server
  runs simulate || program_failed simulate
  busy=$(($(cpu_ms "$server") - busy))
  journal_ns=$(($(thread_ns "$journal") - journal_ns))
  journal_bytes=$(($(written "$journal") - journal_bytes))
  sim_busy=$(($(cpu_ms "$simulate") - sim_busy))
  took=$((($(date +%s%N) - took) / 1000000))
  loaded=$(rss_kb "$server")
  wait "$simulate" || program_failed simulate
  exec 8>&-
  end server 30
  wait_for 5 stopped answer || true

  row "$name: hosts that $INTERVAL s apart sent" "$(jq .welcomed "$SCRATCH/simulate.json")" hosts
  row "$name: samples taken a second, mean with the start" "$(jq '.taken / .seconds | round' "$SCRATCH/simulate.json")" /s
  row "$name: CPU of one core" "$(calc "$busy * 100 / $took" %.1f)" % '' 20
  row "$name: the journal alone, CPU of one core" "$(calc "$journal_ns / 1e4 / $took" %.1f)" % 5
  row "$name: the journal alone, written to disk" "$(calc "$journal_bytes / 1e3 / $took")" MB/s 1.2
  row "$name: RSS" "$(calc "$loaded / 1024" %.0f)" MiB
  RSS_A_HOST[$name]=$(calc "($loaded - $idle) * 1.024 / $hosts" %.1f)
  row "$name: RSS a host" "${RSS_A_HOST[$name]}" kB '' 40
  if [ -n "${RSS_A_HOST[server]-}" ] && [ -n "${RSS_A_HOST[plain]-}" ]; then
    row 'RSS a host: what TLS takes beside plain TCP' "$(calc "${RSS_A_HOST[server]} - ${RSS_A_HOST[plain]}" %.1f)" kB
  fi
  row "$name: sample to acknowledgement, p50" "$(jq '.ack_p50_ms * 10 | round / 10' "$SCRATCH/simulate.json")" ms
  row "$name: sample to acknowledgement, p99" "$(jq '.ack_p99_ms * 10 | round / 10' "$SCRATCH/simulate.json")" ms 150
  row "$name: samples dropped or still waiting at the end" "$(jq '([.dropped[]] | add // 0) + .waiting' "$SCRATCH/simulate.json")" ''
  row "$name: bytes written to the InfluxDB that answers 204" "$(sed -n 's/.*body_bytes=\([0-9]*\).*/\1/p' "$LOG_DIR/answer.log" | awk '{ printf "%.1f", $1 / 1e6 }')" MB
  row '  (the simulation itself: CPU of one core)' "$(calc "$sim_busy * 100 / $took" %.1f)" %
}

# All hosts of the simulation have been let in.
all_welcome() { [ "$(live_hosts 2>/dev/null || echo 0)" -ge "$1" ]; }

bench_storm() {
  local hosts=${BENCH_HOSTS:-10000} limit began simulate steady downs
  limit=$(ulimit -n)
  if [ "$limit" != unlimited ] && [ "$limit" -lt $((hosts + 1000)) ]; then hosts=$((limit - 1000)); fi
  start_server
  "$CLIENT" simulate --hosts 200 --seed 2 --name-prefix steady- --interval 1s --seconds 120 --server "$LISTEN" --json \
    >"$SCRATCH/steady.json" 2>"$LOG_DIR/steady.log" &
  steady=$!
  remember steady "$steady"
  wait_for 60 all_welcome 200 || program_failed server
  began=$(($(date +%s%N) / 1000000))
  "$CLIENT" simulate --hosts "$hosts" --interval "${INTERVAL}s" --connects-per-second "$hosts" --seconds 110 --server "$LISTEN" --json \
    >"$SCRATCH/simulate.json" 2>"$LOG_DIR/simulate.log" &
  simulate=$!
  remember simulate "$simulate"
  wait_for 100 all_welcome $((hosts + 200)) || program_failed server
  row "storm: $hosts hosts join at once: until all are live" "$(calc "$(since "$began") / 1000" %.1f)" s 60
  # Now all of them know their secrets, and come back at once.
  end simulate 30
  began=$(($(date +%s%N) / 1000000))
  "$CLIENT" simulate --hosts "$hosts" --interval "${INTERVAL}s" --connects-per-second "$hosts" --seconds 40 --server "$LISTEN" --json \
    >"$SCRATCH/simulate.json" 2>"$LOG_DIR/simulate.log" &
  simulate=$!
  remember simulate "$simulate"
  wait_for 60 all_welcome $((hosts + 200)) || program_failed server
  row "storm: the same come back at once: until all are live" "$(calc "$(since "$began") / 1000" %.1f)" s 60
  wait "$simulate" || true
  wait "$steady" || true
  downs=$(grep -c ' message="host down" ' "$LOG_DIR/server.log" || true)
  row 'storm: hosts shown as down meanwhile' "$downs" '' 0
  row 'storm: those that were connected: sample to acknowledgement, p99' "$(jq '.ack_p99_ms * 10 | round / 10' "$SCRATCH/steady.json")" ms
  row 'storm: samples dropped or still waiting at the end' "$(jq -s '[.[] | ([.dropped[]] | add // 0) + .waiting] | add' "$SCRATCH/simulate.json" "$SCRATCH/steady.json")" ''
  end server 30
}

bench_lines() {
  local out=$SCRATCH/criterion name us
  (cd "$REPO" && cargo bench --locked -p vitals-wire --bench line_protocol -- --noplot lines) >"$out" 2>&1 || {
    tail -n 20 "$out" >&2
    die 'cargo bench failed'
  }
  # `NAME  time: [low estimate high]`; a long name stands in a line of its own.
  while IFS=$'\t' read -r name us; do
    case $name in
      *23*) row "line protocol: $name" "$us" 'µs' 10 3 ;;
      *) row "line protocol: $name" "$us" 'µs' ;;
    esac
  done < <(awk '
    /time: +\[/ {
      name = $0; sub(/ *time:.*/, "", name); if (name ~ /^ *$/) name = last
      sub(/.*time: +\[/, ""); sub(/\].*/, "")
      scale = ($4 == "ns") ? 0.001 : ($4 == "ms") ? 1000 : ($4 == "s") ? 1e6 : 1
      printf "%s\t%.2f\n", name, $3 * scale
    }
    { last = $0 }' "$out")
}

live_hosts() { fetch "$API/api/v1/hosts" | jq '[.hosts[]? | select(.state == "up")] | length'; }

# some_live N: at least so many hosts are up.
some_live() { [ "$(live_hosts 2>/dev/null || echo 0)" -ge "$1" ]; }

# since MS: milliseconds since then, by the clock that $(date) reads.
since() { echo $(($(date +%s%N) / 1000000 - $1)); }

bench_restart() {
  local influxd mib=${BENCH_JOURNAL_MIB:-1000} began lines first waited url
  influxd=$("$REPO/scripts/influxd.sh")
  rm -rf "$SCRATCH/server" "$SCRATCH/influx"
  mkdir -m 700 "$SCRATCH/server" "$SCRATCH/influx"
  "$FILL" "$SCRATCH/server" "$mib" >"$SCRATCH/filled" || die 'the journal could not be filled'
  note "   $(cat "$SCRATCH/filled")"
  url=http://127.0.0.1:$(free_port)
  launch influxd "$influxd" run --engine-path "$SCRATCH/influx/engine" --bolt-path "$SCRATCH/influx/bolt" \
    --sqlite-path "$SCRATCH/influx/sqlite" --http-bind-address "${url#http://}" --reporting-disabled --log-level error
  wait_for 60 is_good "$url/health" || program_failed influxd
  curl -fsS -o /dev/null "$url/api/v2/setup" --data \
    '{"username":"bench","password":"bench-bench","org":"bench","bucket":"bench","token":"bench-token"}'
  LISTEN=127.0.0.1:$(free_port)
  make_tokens
  # Tries each half second at least, as all do.
  launch client env VITALS_DATA_DIR="$SCRATCH/client" VITALS_INTERVAL=1s "$CLIENT" run --server "$LISTEN"
  HTTP_LISTEN=127.0.0.1:$(free_port)
  API=http://$HTTP_LISTEN
  began=$(($(date +%s%N) / 1000000))
  launch server env VITALS_DATA_DIR="$SCRATCH/server" VITALS_LISTEN="$LISTEN" VITALS_HTTP_LISTEN="$HTTP_LISTEN" \
    VITALS_INFLUX_URL="$url" VITALS_INFLUX_ORG=bench VITALS_INFLUX_BUCKET=bench VITALS_INFLUX_TOKEN=bench-token "$SERVER" run
  wait_for 30 is_good "$API/healthz" || program_failed server
  row "restart with $mib MiB of journal: until it answers" "$(since "$began")" ms 2000
  wait_for 60 some_live 1 || program_failed server
  row 'restart: until a host is shown live (it tries again within seconds)' "$(since "$began")" ms
  first=$(metric vitals_influx_lines_total)
  began=$(($(date +%s%N) / 1000000))
  sleep "${BENCH_SECONDS:-60}"
  lines=$(($(metric vitals_influx_lines_total) - first))
  waited=$(since "$began")
  row 'restart: backlog to a real InfluxDB on the same processors' "$(calc "$lines / $waited" %.0f)" klines/s '' ''
  row '  of that not yet there' "$(calc "$(metric vitals_influx_lag_bytes) / 1048576" %.0f)" MiB
  end client 10
  end server 30
  end influxd 20
}

# acknowledged N: so many samples are.
acknowledged() { [ "$(metric vitals_samples_acknowledged_total)" -ge "$1" ]; }

bench_away() {
  local hosts=${BENCH_AWAY_HOSTS:-1000} away=${BENCH_AWAY:-1h} began live all_in simulate
  start_server
  began=$(($(date +%s%N) / 1000000))
  "$CLIENT" simulate --hosts "$hosts" --interval "${INTERVAL}s" --backlog "$away" --seconds 300 --server "$LISTEN" --json \
    >"$SCRATCH/simulate.json" 2>"$LOG_DIR/simulate.log" &
  simulate=$!
  remember simulate "$simulate"
  wait_for 120 some_live "$hosts" || program_failed server
  live=$(since "$began")
  row "away $away, $hosts hosts: until all are shown live" "$(calc "$live / 1000" %.1f)" s 15
  wait_for 400 acknowledged $((hosts * 720)) || program_failed server
  all_in=$(since "$began")
  row 'away: until all that waited is acknowledged' "$(calc "$all_in / 1000" %.0f)" s 300
  end simulate 30
  wait "$simulate" || true
  row 'away: live sample to acknowledgement meanwhile, p99' "$(jq '.ack_p99_ms * 10 | round / 10' "$SCRATCH/simulate.json")" ms 2000
  row 'away: samples dropped or still waiting at the end' "$(jq '([.dropped[]] | add // 0) + .waiting' "$SCRATCH/simulate.json")" ''
  end server 30
}

main "$@"
