#!/usr/bin/env bash
# Builds Vitals and starts a server and a client for this machine in the background.
#
# Usage: scripts/start.sh [--no-build] [--profile release|ci|dev]
#
#   --no-build       take what was built before
#   --profile NAME   Cargo's profile; ci builds faster, release (the default) runs faster
#
# Everything is kept in .vitals/: data, logs, process ids, read-token (an API token for you), admin-password (of the first
# administrator, until it is changed). A second call says that it runs already.
# Environment: VITALS_LISTEN (127.0.0.1:7400), VITALS_HTTP_LISTEN (127.0.0.1:7480), VITALS_STATE_DIR (.vitals), and all
# that the programs read themselves, such as VITALS_INFLUX_URL, _ORG, _BUCKET, _TOKEN, or VITALS_INTERVAL.
# VITALS_SERVER_BIN and VITALS_CLIENT_BIN take other programs and build nothing; they are there for tests.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PROFILE=release
BUILD=yes
STARTED=()

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --no-build) BUILD=no ;;
      --profile) need_value "$1" $# && PROFILE=$2 && shift ;;
      --profile=*) PROFILE=${1#*=} ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  need_cmd curl 'Install it with the package manager, for example: apt-get install curl'

  umask 077
  private_dir "$STATE_DIR"
  private_dir "$STATE_DIR/data"
  private_dir "$LOG_DIR"
  private_dir "$RUN_DIR"
  if have flock; then
    exec 9>"$RUN_DIR/lock"
    flock -n 9 || die "another start.sh is at work in $STATE_DIR" 'Wait until it is done.'
  fi

  if runs server; then
    read_addresses
    if runs client; then
      SERVER=/proc/$(pid_of server)/exe
      make_read_token
      say 'Vitals runs already.'
      where_to_look
      exit 0
    fi
  else
    LISTEN=${VITALS_LISTEN:-127.0.0.1:7400}
    HTTP_LISTEN=${VITALS_HTTP_LISTEN:-127.0.0.1:7480}
    check_port VITALS_LISTEN "$LISTEN"
    check_port VITALS_HTTP_LISTEN "$HTTP_LISTEN"
  fi
  find_programs

  local since
  since=$(now_ms)
  trap undo EXIT
  runs server || start_server
  make_read_token
  runs client || start_client
  await_sample "$since"
  rm -f "$STATE_DIR/join-token"
  trap - EXIT
  say "Vitals runs and has this machine's first reading."
  where_to_look
}

check_port() {
  silent "$2" || die "$2 is taken by another program$(holder_of "$2")" \
    "Stop it, or choose another address: $1=127.0.0.1:PORT scripts/start.sh"
}

# Builds, and sets SERVER and CLIENT.
find_programs() {
  local dir
  SERVER=${VITALS_SERVER_BIN:-}
  CLIENT=${VITALS_CLIENT_BIN:-}
  [ -z "$SERVER" ] || [ -z "$CLIENT" ] || return 0
  if [ "$BUILD" = yes ]; then
    need_cargo
    have cc || have clang || have gcc || die 'a C compiler is missing (SQLite and zstd are built from source)' \
      'Install one, for example: apt-get install gcc libc6-dev'
    say "Building server and client (profile $PROFILE); the first time takes some minutes."
    # One after the other: built together the client would get what only the server needs of their common library.
    (cd "$REPO" && cargo build --locked --profile "$PROFILE" -p vitals-server 9>&- &&
      cargo build --locked --profile "$PROFILE" -p vitals-client 9>&-) ||
      die 'the build failed: see the messages above'
  fi
  dir=$(target_dir)/$(profile_dir "$PROFILE")
  SERVER=${SERVER:-$dir/vitals-server}
  CLIENT=${CLIENT:-$dir/vitals-client}
  if [ ! -x "$SERVER" ] || [ ! -x "$CLIENT" ]; then
    die "there is no build in $dir" 'Leave out --no-build.'
  fi
}

# Keeps a log from growing without end over many starts.
turn_log() {
  local log=$LOG_DIR/$1.log
  [ ! -e "$log" ] || [ "$(wc -c <"$log")" -lt 10000000 ] || mv "$log" "$log.1"
}

start_server() {
  say "Starting the server on $LISTEN (clients) and $HTTP_LISTEN (API)."
  [ -z "${VITALS_INFLUX_URL:-}" ] || say "It writes to InfluxDB at ${VITALS_INFLUX_URL##*@}."
  turn_log server
  launch server env VITALS_DATA_DIR="$STATE_DIR/data/server" VITALS_LISTEN="$LISTEN" VITALS_HTTP_LISTEN="$HTTP_LISTEN" \
    "$SERVER" run
  STARTED+=(server)
  printf '%s\n' "$LISTEN" "$HTTP_LISTEN" >"$RUN_DIR/addresses"
  wait_for 30 ready_or_dead || {
    last_lines server
    die "the server does not answer on $(http_at "$HTTP_LISTEN")/readyz within 30 s"
  }
  check_lives server
}

# The port may be another program's that was faster, so an answer counts only while ours lives.
ready_or_dead() { stopped server || is_good "$(http_at "$HTTP_LISTEN")/readyz"; }

# ask_server COMMAND...: the commands ask the server that runs. What they say beside their output is shown if they fail.
ask_server() {
  "$SERVER" "$@" --data-dir "$STATE_DIR/data/server" 2>"$RUN_DIR/asked" || {
    sed 's/^/  | /' "$RUN_DIR/asked" >&2
    return 1
  }
}

# An API token for whoever uses these scripts; kept as long as the server takes it. One that was lost holds no more.
make_read_token() {
  local token=$STATE_DIR/read-token
  if [ -s "$token" ] && is_good "$(http_at "$HTTP_LISTEN")/api/v1/hosts"; then return; fi
  ask_server api-token revoke start.sh >/dev/null 2>&1 || true
  ask_server api-token create --name start.sh --access read >"$token.new" ||
    die 'the server makes no API token' "Its log: $LOG_DIR/server.log"
  mv "$token.new" "$token"
}

# has_joined: the client was let in, and the server knows it.
has_joined() {
  grep -q '^host = ' "$STATE_DIR/data/client/trust" 2>/dev/null && host_name "$(http_at "$HTTP_LISTEN")" >/dev/null 2>&1
}

# A host that has joined needs no token any more.
start_client() {
  local at token=$STATE_DIR/join-token more=()
  at=$(connectable "$LISTEN")
  say 'Starting the client.'
  turn_log client
  if ! has_joined; then
    ask_server token create --address "$at" >"$token" ||
      die 'the server makes no join token' "Its log: $LOG_DIR/server.log"
    more+=(VITALS_TOKEN_FILE="$token")
  fi
  launch client env VITALS_DATA_DIR="$STATE_DIR/data/client" ${more[@]+"${more[@]}"} "$CLIENT" run --server "$at"
  STARTED+=(client)
}

await_sample() {
  say "Waiting for this machine's first reading."
  wait_for 30 sample_or_dead "$1" || {
    last_lines client
    die "no reading of this machine (id $(host_id || echo 'not made yet')) can be read back within 30 s" \
      "The server's log: $LOG_DIR/server.log"
  }
  check_lives server
  check_lives client
}

sample_or_dead() {
  stopped server || stopped client || read_back "$(http_at "$HTTP_LISTEN")" "$1"
}

check_lives() {
  runs "$1" || {
    last_lines "$1"
    die "the $1 ended right after its start"
  }
}

# What a failed start began, it ends.
undo() {
  local name
  for name in client server; do
    case " ${STARTED[*]-} " in
      *" $name "*) end "$name" 10 || true ;;
    esac
  done
}

where_to_look() {
  local api id name ask password=$STATE_DIR/admin-password
  api=$(http_at "$HTTP_LISTEN")
  id=$(host_id || echo ID)
  name=$(host_name "$api" 2>/dev/null || uname -n)
  # On standard input, because everybody sees what stands among a process's arguments.
  ask="sed 's/^/Authorization: Bearer /' $(printf %q "$STATE_DIR/read-token") | curl -s -H @-"
  case $api in
    https:*) ask+=" --cacert $(printf %q "$(page_certificate)")" ;;
  esac
  cat <<END

  this host   $name
  all hosts   $ask '$api/api/v1/hosts'
  latest      $ask '$api/api/v1/hosts/$id/latest'
  its CPU     $ask '$api/api/v1/hosts/$id/series?field=cpu.usage_active'
  state       scripts/status.sh
  logs        scripts/logs.sh
  stop        scripts/stop.sh
END
  # The server removes it when the password is changed.
  if [ -e "$STATE_DIR/data/server/admin-password" ]; then
    ln -sfn data/server/admin-password "$password"
    say "  log in as   admin, first with the password in $password"
  else
    rm -f "$password"
  fi
}

main "$@"
