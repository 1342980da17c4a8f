#!/usr/bin/env bash
# Tests start.sh, status.sh, logs.sh and stop.sh with real programs, in a state directory and on ports of its own.
#
# Usage: scripts/test-scripts.sh [--profile dev|ci|release] [--no-build]
#
# The options go to start.sh; dev is the default, because cargo test has built most of it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$REPO/scripts
OPTIONS=(--profile dev)
CHECKS=0

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --profile) need_value "$1" $# && OPTIONS+=("$1" "$2") && shift ;;
      --no-build) OPTIONS+=("$1") ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  need_cmd jq 'Run scripts/test.sh tools first.'
  need_cmd curl 'Run scripts/test.sh tools first.'

  SCRATCH=$(mktemp -d)
  trap clean_up EXIT
  # Nothing that is configured on this machine, or by whoever runs this, may change what is tested.
  local name
  for name in $(compgen -e | grep '^VITALS_' | grep -v '^VITALS_CACHE_DIR$' || true); do unset "$name"; done
  : >"$SCRATCH/empty.toml"
  export VITALS_CONFIG=$SCRATCH/empty.toml
  # lib.sh was read with the state directory of this clone: from here on it is another one, for this script too.
  export VITALS_STATE_DIR=$SCRATCH/state
  STATE_DIR=$VITALS_STATE_DIR
  LOG_DIR=$STATE_DIR/logs
  RUN_DIR=$STATE_DIR/run
  VITALS_LISTEN=127.0.0.1:$(free_port)
  VITALS_HTTP_LISTEN=127.0.0.1:$(free_port)
  export VITALS_LISTEN VITALS_HTTP_LISTEN VITALS_INTERVAL=1s
  API=http://$VITALS_HTTP_LISTEN
  mkdir -p "$LOG_DIR" "$RUN_DIR"

  nothing_runs_before
  without_a_home_they_work_too
  a_failed_build_is_said_plainly
  a_server_that_dies_at_its_start_is_shown_with_its_log
  a_number_that_now_belongs_to_another_process_is_not_killed
  what_does_not_listen_to_sigterm_is_killed
  a_summary_counts_what_the_programs_say
  it_starts_reads_back_and_stops
  beyond_loopback_it_speaks_https
  say "$CHECKS checks of the scripts passed"
}

clean_up() {
  local code=$?
  if [ $code -ne 0 ]; then
    last_lines server
    last_lines client
  fi
  "$HERE/stop.sh" --timeout 5 >/dev/null 2>&1 || true
  [ -z "${OTHER:-}" ] || kill "$OTHER" 2>/dev/null || true
  rm -rf "$SCRATCH"
}

# --- helpers -------------------------------------------------------------------

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if silent "127.0.0.1:$port"; then break; fi
  done
  echo "$port"
}

# run CODE COMMAND...: runs it, keeps what it prints in $SCRATCH/out, and sees that it ends with that code.
run() {
  local want=$1 code=0
  shift
  "$@" >"$SCRATCH/out" 2>&1 || code=$?
  [ "$code" -eq "$want" ] || failed "$* ended with $code, not $want"
  CHECKS=$((CHECKS + 1))
}

# prints TEXT: what ran last printed that.
prints() {
  grep -Fq -- "$1" "$SCRATCH/out" || failed "this is not in the output: $1"
  CHECKS=$((CHECKS + 1))
}

# is FILTER [ARGUMENT...]: jq finds that true of the JSON in $SCRATCH/out.
is() {
  local filter=$1
  shift
  jq -e "$@" "$filter" "$SCRATCH/out" >/dev/null || failed "this does not hold: $filter"
  CHECKS=$((CHECKS + 1))
}

failed() {
  note "in ${FUNCNAME[2]}: $1; the output was:"
  sed 's/^/  | /' "$SCRATCH/out" >&2
  exit 1
}

# program NAME: makes a small program of the text on standard input.
program() {
  mkdir -p "$SCRATCH/bin"
  cat >"$SCRATCH/bin/$1"
  chmod +x "$SCRATCH/bin/$1"
}

# --- scenarios -----------------------------------------------------------------

nothing_runs_before() {
  run 3 "$HERE/status.sh"
  prints 'does not run'
  run 0 "$HERE/stop.sh"
  prints 'Nothing runs.'
  run 1 "$HERE/logs.sh"
  prints 'there are no logs'
  run 2 "$HERE/start.sh" --nonsense
  prints 'unknown argument: --nonsense'
  run 0 "$HERE/start.sh" --help
  prints '--no-build'
}

without_a_home_they_work_too() {
  local script
  for script in start status logs stop influxd test bench fuzz api; do
    run 0 env -u HOME -u XDG_CACHE_HOME -u VITALS_CACHE_DIR "$HERE/$script.sh" --help
  done
  run 3 env -u HOME -u XDG_CACHE_HOME "$HERE/status.sh"
}

a_failed_build_is_said_plainly() {
  program cargo <<<$'#!/bin/sh\necho "error: could not compile" >&2\nexit 101'
  run 1 env -u VITALS_SERVER_BIN -u VITALS_CLIENT_BIN PATH="$SCRATCH/bin:$PATH" "$HERE/start.sh"
  prints 'error: the build failed'
  rm "$SCRATCH/bin/cargo"
}

a_server_that_dies_at_its_start_is_shown_with_its_log() {
  program dies <<<$'#!/bin/sh\necho \'level=error message="cannot open the store"\' >&2\nexit 1'
  run 1 env VITALS_SERVER_BIN="$SCRATCH/bin/dies" VITALS_CLIENT_BIN=/bin/true "$HERE/start.sh"
  prints 'the server ended right after its start'
  prints 'cannot open the store'
  run 3 "$HERE/status.sh"
  rm -f "$LOG_DIR"/*.log
}

a_number_that_now_belongs_to_another_process_is_not_killed() {
  sleep 300 &
  OTHER=$!
  mkdir -p "$RUN_DIR"
  echo "$OTHER 1@another-boot" >"$RUN_DIR/server.pid"
  run 1 "$HERE/status.sh"
  prints 'ENDED by itself'
  run 0 "$HERE/stop.sh"
  prints 'had ended by itself'
  kill -0 "$OTHER" || failed "process $OTHER was killed"
  kill "$OTHER"
  OTHER=
}

what_does_not_listen_to_sigterm_is_killed() {
  program stubborn <<<$'#!/bin/bash\ntrap "echo told" TERM\nwhile :; do sleep 0.1; done'
  launch client "$SCRATCH/bin/stubborn"
  sleep 0.5
  run 0 "$HERE/stop.sh" --timeout 1
  prints 'did not end within 1 s'
  stopped client || failed 'it still runs'
  rm -f "$LOG_DIR"/*.log
}

# counts NUMBER SIDE WHAT: a line of the summary that ran last.
counts() {
  grep -Eq "^ *$1  $2 *  $3\$" "$SCRATCH/out" || failed "this is not in the summary: $1 $2 $3"
  CHECKS=$((CHECKS + 1))
}

a_summary_counts_what_the_programs_say() {
  cat >"$LOG_DIR/server.log" <<'END'
ts=2026-01-01T00:00:01Z level=info message="client connected" host=web id=01 peer=127.0.0.1:1 version=0.1.0
ts=2026-01-01T00:00:01Z level=info message="client connected" host="a b" id=02 peer=127.0.0.1:2 version=0.1.0
ts=2026-01-01T00:00:01Z level=info message="host up" host=web
ts=2026-01-01T00:00:02Z level=warn message="stranger refused" peer=127.0.0.1:3 reason=too_large error="a frame" left_out=41
ts=2026-01-01T00:00:02Z level=warn message="connection turned away" peer=127.0.0.1:4 reason=too_many_connections error="" left_out=0
ts=2026-01-01T00:00:03Z level=debug message="sample refused" host=web reason=too_old time_ms=0
ts=2026-01-01T00:00:04Z level=info message="client disconnected" host=web peer=127.0.0.1:1 reason=closed
ts=2026-01-01T00:00:05Z level=warn message="client refused" host="a b" peer=127.0.0.1:2 reason=timeout error="nothing heard"
ts=2026-01-01T00:00:06Z level=warn message="host down" host="a b" reason="silent for 15 s"
ts=2026-01-01T00:00:07Z level=info message="host off" host=web reason=shutdown
END
  run 0 "$HERE/logs.sh" --summary
  prints '10 lines from 2026-01-01T00:00:01Z to 2026-01-01T00:00:07Z'
  prints 'connections: 2'
  counts 2 server 'client connected'
  prints 'disconnections: 2'
  counts 1 server 'client disconnected reason="closed"'
  counts 1 server 'client refused reason="timeout"'
  prints 'hosts up and down: 3'
  counts 1 server 'host up'
  counts 1 server 'host down reason="silent for 15 s"'
  counts 1 server 'host off reason="shutdown"'
  prints 'dropped or refused: 4'
  counts 1 server 'stranger refused reason="too_large"  \(42 in all\)'
  counts 1 server 'connection turned away reason="too_many_connections"'
  counts 1 server 'sample refused reason="too_old"'
  prints 'warnings: 4'
  counts 2 server 'a b'
  rm "$LOG_DIR/server.log"
}

it_starts_reads_back_and_stops() {
  local name server client id
  # The server knows this machine by the name that the client is told to have, not by its own.
  name='vm 2'
  run 0 env VITALS_HOSTNAME="$name" "$HERE/start.sh" "${OPTIONS[@]}"
  prints "Vitals runs and has this machine's first reading."
  prints "this host   $name"
  prints "$API/api/v1/hosts"
  server=$(pid_of server) || failed 'no server runs'
  client=$(pid_of client) || failed 'no client runs'
  run 0 stat -c '%a %n' "$STATE_DIR" "$STATE_DIR/data" "$LOG_DIR" "$RUN_DIR"
  [ "$(cut -d ' ' -f 1 "$SCRATCH/out" | sort -u)" = 700 ] || failed 'others may look into the state directory'

  run 0 fetch "$API/api/v1/hosts"
  # shellcheck disable=SC2016 # jq's own variable
  is '[.. | objects | .name? // empty] == [$name]' --arg name "$name"
  id=$(jq -r '[.. | objects | .id? // empty][0]' "$SCRATCH/out")
  [ "$(host_id)" = "$id" ] || failed "the client's identity says $(host_id), the server $id"
  run 0 fetch "$API/api/v1/hosts/$id/latest"
  is '[paths(type == "number") | map(tostring) | join(".") | select(test("cpu"))] | length > 0'
  run 0 fetch "$API/api/v1/hosts/$id/series?field=cpu.usage_active"
  is '[.. | objects | .points? // empty | .[] | if type == "array" then .[1] else .value end] | length > 0 and all(. >= 0 and . <= 100)'
  run 0 fetch "$API/metrics"
  [ ! -e "$STATE_DIR/join-token" ] || failed 'a token is kept that nobody needs any more'
  only_who_shows_the_token_is_answered

  local token
  token=$(cat "$STATE_DIR/read-token")
  run 0 "$HERE/start.sh" --no-build
  prints 'Vitals runs already.'
  [ "$(cat "$STATE_DIR/read-token")" = "$token" ] || failed 'a second start made another token'
  prints "this host   $name"
  [ "$(pid_of server) $(pid_of client)" = "$server $client" ] || failed 'a second start began new processes'
  CHECKS=$((CHECKS + 1))

  # The same ports from another state directory.
  run 1 env VITALS_STATE_DIR="$SCRATCH/another" "$HERE/start.sh" --no-build
  prints 'is taken by another program'

  run 0 "$HERE/status.sh"
  prints 'health   well'
  prints "$name"
  run 0 "$HERE/logs.sh" --all
  prints 'server | '
  prints 'client | '
  run 0 "$HERE/logs.sh" --summary
  prints 'connections: '
  grep -Eq '^connections: [1-9]' "$SCRATCH/out" || failed 'no connection was counted'
  run 0 "$HERE/logs.sh" --errors
  [ ! -s "$SCRATCH/out" ] || failed 'there are errors in the logs'

  # A client that is gone is noticed, and started again.
  kill -KILL "$client"
  wait_for 5 stopped client || failed 'the client was not killed'
  run 1 "$HERE/status.sh"
  prints 'ENDED by itself'
  run 0 "$HERE/start.sh" "${OPTIONS[@]}" --no-build
  [ "$(pid_of server)" = "$server" ] || failed 'the server was started again'

  stop_leaves_nothing "$server" "$client"

  # What was stored is there after a restart, under the same id; and it does not pass for the first reading.
  local began_ms
  began_ms=$(now_ms)
  run 0 "$HERE/start.sh" "${OPTIONS[@]}" --no-build
  run 0 fetch "$API/api/v1/hosts/$id/series?field=cpu.usage_active&from=$began_ms"
  is '[.series[].points[]] | length > 0'
  run 0 fetch "$API/api/v1/hosts"
  # shellcheck disable=SC2016
  is '[.. | objects | .id? // empty] == [$id]' --arg id "$id"
  stop_leaves_nothing "$(pid_of server)" "$(pid_of client)"
}

# status_of ARGUMENT...: of the answer that curl gets.
status_of() { curl --silent --noproxy '*' --max-time 5 --output /dev/null --write-out '%{http_code}' "$@"; }

# mode_is MODE FILE
mode_is() {
  local mode
  mode=$(stat -L -c %a "$2") || failed "there is no $2"
  [ "$mode" = "$1" ] || failed "$2 has mode $mode, not $1"
  CHECKS=$((CHECKS + 1))
}

only_who_shows_the_token_is_answered() {
  local lost
  mode_is 600 "$STATE_DIR/read-token"
  mode_is 600 "$STATE_DIR/admin-password"
  run 0 status_of "$API/api/v1/hosts"
  prints 401
  run 0 asking --output /dev/null --write-out '%{http_code}' "$API/api/v1/hosts"
  prints 200

  # What start.sh prints works when pasted, and names the file with the first password, which is right.
  run 0 "$HERE/start.sh" --no-build
  prints "$STATE_DIR/admin-password"
  pasted
  jq -Rs '{name: "admin", password: rtrimstr("\n")}' <"$STATE_DIR/admin-password" >"$SCRATCH/login"
  run 0 status_of --header 'Content-Type: application/json' --data "@$SCRATCH/login" "$API/api/v1/session"
  prints 200

  # The token is lost: there is another, and the lost one holds no more.
  lost=$(cat "$STATE_DIR/read-token")
  rm "$STATE_DIR/read-token"
  run 1 "$HERE/status.sh"
  prints 'scripts/start.sh makes a token'
  run 0 "$HERE/start.sh" --no-build
  mode_is 600 "$STATE_DIR/read-token"
  run 0 fetch "$API/api/v1/hosts"
  run 0 status_of --header @- "$API/api/v1/hosts" <<<"Authorization: Bearer $lost"
  prints 401
}

# pasted: the line for all hosts that start.sh printed last does what it says.
pasted() {
  local line
  line=$(sed -n 's/^  all hosts  *//p' "$SCRATCH/out")
  [ -n "$line" ] || failed 'there is no line to paste'
  run 0 env no_proxy='*' bash -c "$line"
  is '.hosts | length == 1'
}

beyond_loopback_it_speaks_https() {
  local port=${VITALS_HTTP_LISTEN##*:}
  run 0 env VITALS_HTTP_LISTEN="0.0.0.0:$port" VITALS_LISTEN="0.0.0.0:${VITALS_LISTEN##*:}" "$HERE/start.sh" "${OPTIONS[@]}" --no-build
  prints "https://127.0.0.1:$port/api/v1/hosts"
  prints --cacert
  pasted
  run 0 status_of --cacert "$(page_certificate)" "https://127.0.0.1:$port/api/v1/hosts"
  prints 401
  run 60 status_of "https://127.0.0.1:$port/api/v1/hosts"
  run 0 "$HERE/status.sh"
  prints "https://127.0.0.1:$port"
  # A server that knows nothing any more, and a client that has joined the one before: it joins this one.
  run 0 "$HERE/stop.sh"
  rm -r "$STATE_DIR/data/server"
  run 0 "$HERE/start.sh" "${OPTIONS[@]}" --no-build
  prints "Vitals runs and has this machine's first reading."
  stop_leaves_nothing "$(pid_of server)" "$(pid_of client)"
}

stop_leaves_nothing() {
  local pid address
  run 0 "$HERE/stop.sh"
  prints 'Stopped.'
  if grep -q '^warning' "$SCRATCH/out"; then failed 'it did not stop cleanly'; fi
  for pid in "$@"; do
    if began "$pid" >/dev/null; then failed "process $pid is left"; fi
  done
  for address in "$VITALS_LISTEN" "$VITALS_HTTP_LISTEN"; do
    silent "$address" || failed "$address still answers"
  done
  run 3 "$HERE/status.sh"
}

main "$@"
