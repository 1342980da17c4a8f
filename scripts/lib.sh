# shellcheck shell=bash
# What the scripts share. To be sourced after `set -euo pipefail`.

# shellcheck disable=SC2034 # used by those who source this
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Everything that start.sh keeps.
STATE_DIR=${VITALS_STATE_DIR:-$REPO/.vitals}
LOG_DIR=$STATE_DIR/logs
RUN_DIR=$STATE_DIR/run
# What is built once for all clones: influxd and cargo's tools.
# Where HOME is not set, bash still knows what ~ is.
CACHE_DIR=${VITALS_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-~}/.cache}/vitals}

# --- words -----------------------------------------------------------------

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die WHAT [REMEDY]: says what failed and what to do about it.
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '  %s\n' "$2" >&2
  exit 1
}

# wrong_use WHAT: the caller got the command line wrong.
wrong_use() {
  printf 'error: %s\n  See %s --help\n' "$1" "$0" >&2
  exit 2
}

# help_of FILE: prints the comment at the top of a script, which is its help.
help_of() { awk 'NR == 1 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$1"; }

# need_value OPTION COUNT: an option that takes a value has one.
need_value() { [ "$2" -ge 2 ] || wrong_use "$1 needs a value"; }

have() { command -v "$1" >/dev/null 2>&1; }

# need_cmd COMMAND REMEDY
need_cmd() { have "$1" || die "$1 is missing" "$2"; }

# need_whole OPTION VALUE: a number without a sign or a point.
need_whole() { [[ $2 =~ ^[0-9]+$ ]] || wrong_use "$1 takes a whole number, not $2"; }

need_cargo() { need_cmd cargo 'Install Rust from https://rustup.rs, open a new shell and try again.'; }

# install_packages PACKAGE...: with apt-get where that may be done, else says what to install.
install_packages() {
  local log
  if ! have apt-get || [ "$(id -u)" -ne 0 ]; then
    die "missing: $*" "Install with the package manager, on Debian and Ubuntu: sudo apt-get install $*"
  fi
  note "Installing with apt-get: $*"
  log=$(mktemp)
  if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" | sed 's/^/  | /' >&2
    rm -f "$log"
    die "apt-get could not install: $*"
  fi
  rm -f "$log"
}

# duration SECONDS: for people.
duration() {
  local s=$1
  if [ "$s" -lt 60 ]; then
    printf '%d s' "$s"
  elif [ "$s" -lt 3600 ]; then
    printf '%d min %d s' $((s / 60)) $((s % 60))
  elif [ "$s" -lt 86400 ]; then
    printf '%d h %d min' $((s / 3600)) $((s % 3600 / 60))
  else
    printf '%d d %d h' $((s / 86400)) $((s % 86400 / 3600))
  fi
}

# wait_for SECONDS COMMAND...: tries a command ten times a second until it succeeds, or gives up.
wait_for() {
  local tries=$(($1 * 10))
  shift
  until "$@"; do
    [ "$tries" -gt 0 ] || return 1
    tries=$((tries - 1))
    sleep 0.1
  done
}

private_dir() { mkdir -p "$1" && chmod 0700 "$1"; }

# target_dir: where cargo puts what it builds for this workspace.
target_dir() {
  local dir
  dir=$(cargo metadata --no-deps --offline --format-version 1 --manifest-path "$REPO/Cargo.toml" 2>/dev/null |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p') || true
  printf '%s\n' "${dir:-${CARGO_TARGET_DIR:-$REPO/target}}"
}

# profile_dir PROFILE: its directory below target_dir.
profile_dir() {
  case $1 in
    dev) echo debug ;;
    *) echo "$1" ;;
  esac
}

# build_example NAME PROFILE yes|no: builds server, client and an example of the server's, or takes what is built. Sets
# BUILT, where the programs are, and EXAMPLE.
build_example() {
  local program
  BUILT=$(target_dir)/$(profile_dir "$2")
  EXAMPLE=$BUILT/examples/$1
  if [ "$3" = yes ]; then
    need_cargo
    note "Building (profile $2); the first time takes some minutes."
    (cd "$REPO" && cargo build --locked --profile "$2" -p vitals-server -p vitals-client --bins &&
      cargo build --locked --profile "$2" -p vitals-server --example "$1") ||
      die 'the build failed: see the messages above'
  fi
  for program in "$BUILT/vitals-server" "$BUILT/vitals-client" "$EXAMPLE"; do
    [ -x "$program" ] || die "there is no $program" 'Leave out --no-build.'
  done
}

# --- processes -------------------------------------------------------------
# A file in RUN_DIR holds a process's id and when it began. Both together name one process for ever, so that a number
# that the system gave to another one meanwhile is never taken for ours.

# began PID: a word that no other process with this number has; fails if there is none, or just its zombie.
began() {
  if [ -r "/proc/$1/stat" ]; then
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in parentheses can hold anything, so what follows the last one counts: state is the 1st, start the 20th.
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    echo "${20}@$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo boot)"
  elif [ ! -d /proc/self ]; then
    ps -o lstart= -p "$1" | tr -s ' ' _ | grep .
  else
    return 1
  fi
}

pid_file() { echo "$RUN_DIR/$1.pid"; }

# remember NAME PID
remember() { printf '%s %s\n' "$2" "$(began "$2" || echo gone)" >"$(pid_file "$1")"; }

# pid_of NAME: its process id if it runs; fails if not.
pid_of() {
  local pid start
  read -r pid start 2>/dev/null <"$(pid_file "$1")" || return 1
  [ "$(began "$pid" 2>/dev/null)" = "$start" ] || return 1
  echo "$pid"
}

runs() { pid_of "$1" >/dev/null; }
stopped() { ! runs "$1"; }

# launch NAME COMMAND...: starts it detached from this shell and terminal, its output appended to its log.
launch() {
  local name=$1 detach=()
  shift
  if have setsid; then detach=(setsid); fi
  # Descriptor 9 is the lock of start.sh: a child that kept it open would hold it for ever.
  nohup ${detach[@]+"${detach[@]}"} "$@" </dev/null >>"$LOG_DIR/$name.log" 2>&1 9>&- &
  remember "$name" $!
  disown
}

# signal NAME SIGNAL: to that very process, if it still runs.
signal() {
  local pid
  pid=$(pid_of "$1") || return 0
  kill -s "$2" "$pid" 2>/dev/null || true
}

# end NAME SECONDS: asks it to end, waits, and kills it if it did not listen.
end() {
  signal "$1" TERM
  if ! wait_for "$2" stopped "$1"; then
    warn "the $1 did not end within $2 s of SIGTERM and is killed; its log: $LOG_DIR/$1.log"
    signal "$1" KILL
    wait_for 5 stopped "$1" || die "the $1 (process $(pid_of "$1")) cannot be killed"
  fi
  rm -f "$(pid_file "$1")"
}

# age_of NAME: seconds since it was started.
age_of() { echo $(($(date +%s) - $(modified "$(pid_file "$1")"))); }

# modified FILE: in seconds since 1970, on Linux and on BSD.
modified() { stat -c %Y "$1" 2>/dev/null || stat -f %m "$1"; }

# last_lines NAME [COUNT]: the end of its log, for an error.
last_lines() {
  note "  the last lines of $LOG_DIR/$1.log:"
  tail -n "${2:-15}" "$LOG_DIR/$1.log" 2>/dev/null | sed 's/^/  | /' >&2 || true
}

# --- ports and the API -------------------------------------------------------

# connectable ADDRESS: where to reach a listener of this address from here.
connectable() {
  case $1 in
    0.0.0.0:* | '*:'*) echo "127.0.0.1:${1##*:}" ;;
    '[::]:'*) echo "[::1]:${1##*:}" ;;
    *) echo "$1" ;;
  esac
}

# answers ADDRESS: something listens there.
answers() {
  local addr host
  addr=$(connectable "$1")
  host=${addr%:*}
  host=${host#[}
  host=${host%]}
  (exec 3<>"/dev/tcp/$host/${addr##*:}") 2>/dev/null
}
silent() { ! answers "$1"; }

# holder_of ADDRESS: who listens there, if the system tells.
holder_of() {
  have ss || return 0
  ss -Hltnp "sport = :${1##*:}" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/ (\1, process \2)/p' | head -n 1
}

# http_at ADDRESS: the URL of a server that listens there: HTTP on loopback, HTTPS elsewhere.
http_at() {
  local at
  at=$(connectable "$1")
  case $1 in
    127.* | '[::1]:'* | localhost:*) echo "http://$at" ;;
    *) echo "https://$at" ;;
  esac
}

# page_certificate: of the page and the API, which the server of start.sh made for itself.
page_certificate() { echo "$STATE_DIR/data/server/tls/page.crt"; }

# asking ARGUMENT...: curl, with the API token of start.sh where there is one, which no list of processes shows, and with
# the certificate that its server made for itself.
asking() {
  local more=()
  [ ! -r "$(page_certificate)" ] || more+=(--cacert "$(page_certificate)")
  if [ -r "$STATE_DIR/read-token" ]; then
    curl --silent --noproxy '*' --max-time 5 ${more[@]+"${more[@]}"} --header @- "$@" \
      <<<"Authorization: Bearer $(cat "$STATE_DIR/read-token")"
  else
    curl --silent --noproxy '*' --max-time 5 ${more[@]+"${more[@]}"} "$@"
  fi
}

# fetch URL: the body of a good answer; fails on any other.
fetch() { asking --fail "$1"; }
is_good() { fetch "$1" >/dev/null 2>&1; }

# Where start.sh made the server listen: sets LISTEN and HTTP_LISTEN.
read_addresses() {
  LISTEN=${VITALS_LISTEN:-127.0.0.1:7400}
  HTTP_LISTEN=${VITALS_HTTP_LISTEN:-127.0.0.1:7480}
  if [ -r "$RUN_DIR/addresses" ]; then
    { read -r LISTEN && read -r HTTP_LISTEN; } <"$RUN_DIR/addresses" || true
  fi
}

# host_id: this machine's id, which the client that start.sh starts was given at its first start.
host_id() { sed -n 's/^host = \([0-9a-f]\{32\}\)$/\1/p' "$STATE_DIR/data/client/identity" 2>/dev/null | grep .; }

# host_name URL: what the server at URL calls this machine; it may know it by another name than this machine does.
host_name() {
  local answer
  answer=$(fetch "$1/api/v1/hosts/$(host_id)" | tr -d '\n') || return 1
  if have jq; then jq -r .name <<<"$answer"; else sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' <<<"$answer"; fi
}

# read_back URL SINCE_MS: the server at URL gives at least one point of this host's CPU since then.
read_back() {
  local id
  id=$(host_id) || return 1
  fetch "$1/api/v1/hosts/$id/series?field=cpu.usage_active&from=$2" 2>/dev/null |
    tr -d ' \n' | grep -Eq '"points":\[[[{]'
}

# now_ms: BSD's date knows no parts of a second; what is older than the second is no reading from before a start there.
now_ms() {
  local ms
  ms=$(date +%s%3N)
  case $ms in
    *[!0-9]*) echo "$(($(date +%s) + 1))000" ;;
    *) echo "$ms" ;;
  esac
}

# version_of PROGRAM: what it says about itself, of a running one too (/proc/PID/exe).
version_of() { "$1" --version 2>/dev/null | head -n 1; }
