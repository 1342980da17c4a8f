#!/usr/bin/env bash
# Tests the HTTP API against its own OpenAPI document: a real server with some hosts on loopback, and schemathesis, which
# tries each operation with an administrator's API token and with requests of every kind that it can think of.
#
# Usage: scripts/api.sh [--profile dev|ci|release] [--no-build] [--examples N] [--seed N] [--install]
#
#   --profile NAME   Cargo's profile; dev is the default, because cargo test has built most of it
#   --no-build       take what was built before
#   --examples N     random requests for each operation at most (15)
#   --seed N         of what is random (14)
#   --install        only install schemathesis and what checks the document, with pip below ~/.cache/vitals
#                    (VITALS_CACHE_DIR), where all clones find them
#
# An answer with a 5xx, a status, content type or header that the document does not name, a body other than it says, a
# wrong request that is taken, a login that is not asked for, or a 405 without its Allow fails. That a right request is
# taken is not asked for: which password is among the first that anybody tries, no document can say.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SCHEMATHESIS=4.32.5
VALIDATOR=0.9.0
# So long one run may take, in seconds.
MOST=120
PROFILE=dev
BUILD=yes
EXAMPLES=15
SEED=14

main() {
  local install=no
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --profile) need_value "$1" $# && PROFILE=$2 && shift ;;
      --no-build) BUILD=no ;;
      --examples) need_value "$1" $# && need_whole "$1" "$2" && EXAMPLES=$2 && shift ;;
      --seed) need_value "$1" $# && need_whole "$1" "$2" && SEED=$2 && shift ;;
      --install) install=yes ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  TOOLS=$CACHE_DIR/tools/api-$SCHEMATHESIS-$VALIDATOR
  install_tools
  [ "$install" = no ] || exit 0
  need_cmd curl 'Run scripts/test.sh tools first.'
  need_cmd jq 'Run scripts/test.sh tools first.'
  find_programs

  SCRATCH=$(mktemp -d)
  PIDS=()
  trap clean_up EXIT
  # Nothing that is configured on this machine, or by whoever runs this, may change what is tested.
  local name
  for name in $(compgen -e | grep '^VITALS_' | grep -v '^VITALS_CACHE_DIR$' || true); do unset "$name"; done
  : >"$SCRATCH/empty.toml"
  export VITALS_CONFIG=$SCRATCH/empty.toml VITALS_CLIENT_CONFIG=$SCRATCH/empty.toml
  start_server
  start_hosts
  check_document
  # All but what would take away the token that it is tried with: that one is tried alone, where no answer names an id.
  tried all --exclude-operation-id revoke_api_token
  tried alone --phases examples,coverage,fuzzing --include-operation-id revoke_api_token
  check_server
  say "$OPERATIONS operations tried with $REQUESTS requests as their document says (seed $SEED)"
}

clean_up() {
  local code=$? pid
  for pid in ${PIDS[@]+"${PIDS[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait
  if [ $code -ne 0 ] && [ -s "$SCRATCH/server.log" ]; then
    note '  the last lines of the server:'
    tail -n 15 "$SCRATCH/server.log" | sed 's/^/  | /' >&2
  fi
  rm -rf "$SCRATCH"
}

install_tools() {
  # Written last: an installation that was cut off is never taken for whole.
  [ ! -e "$TOOLS/whole" ] || return 0
  have python3 || install_packages python3 python3-venv
  # Debian's python3 can do it only with another package.
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
  note "Installing schemathesis $SCHEMATHESIS; about a minute."
  rm -rf "$CACHE_DIR/tools"/api-*
  mkdir -p "$CACHE_DIR/tools"
  python3 -m venv "$TOOLS"
  if ! "$TOOLS/bin/pip" --quiet --disable-pip-version-check --no-input install \
    "schemathesis==$SCHEMATHESIS" "openapi-spec-validator==$VALIDATOR" >&2; then
    rm -rf "$TOOLS"
    die 'pip could not install schemathesis' 'Is there a network, or a PIP_INDEX_URL?'
  fi
  : >"$TOOLS/whole"
}

find_programs() {
  local dir program
  if [ "$BUILD" = yes ]; then
    need_cargo
    note "Building (profile $PROFILE); the first time takes some minutes."
    (cd "$REPO" && cargo build --locked --profile "$PROFILE" -p vitals-server &&
      cargo build --locked --profile "$PROFILE" -p vitals-client) || die 'the build failed: see the messages above'
  fi
  dir=$(target_dir)/$(profile_dir "$PROFILE")
  SERVER=$dir/vitals-server
  CLIENT=$dir/vitals-client
  for program in "$SERVER" "$CLIENT"; do
    [ -x "$program" ] || die "there is no $program" 'Leave out --no-build.'
  done
}

start_server() {
  local line
  "$SERVER" run --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --data-dir "$SCRATCH/data" 2>"$SCRATCH/server.log" &
  PIDS+=($!)
  wait_for 30 grep -qs 'vitals-server runs' "$SCRATCH/server.log" || die 'the server does not start'
  line=$(grep 'vitals-server runs' "$SCRATCH/server.log")
  CLIENTS=$(sed -n 's/.* clients="\{0,1\}\([^ "]*\).*/\1/p' <<<"$line")
  API=http://$(sed -n 's/.* http="\{0,1\}\([^ "]*\).*/\1/p' <<<"$line")
  # In the environment, where no list of processes shows it.
  API_TOKEN=$("$SERVER" api-token create --name api.sh --access admin --data-dir "$SCRATCH/data" 2>>"$SCRATCH/server.log")
  export API_TOKEN
}

ask() { curl --silent --fail --noproxy '*' --max-time 10 --header @- "$API$1" <<<"Authorization: Bearer $API_TOKEN"; }

# Some hosts that speak all the time, with figures, so that there is something to be asked for.
start_hosts() {
  "$SERVER" token create --uses 5 --label env=prod --address "$CLIENTS" --data-dir "$SCRATCH/data" \
    >"$SCRATCH/token" 2>>"$SCRATCH/server.log"
  "$CLIENT" simulate --hosts 5 --interval 1s --token-file "$SCRATCH/token" --server "$CLIENTS" \
    >/dev/null 2>"$SCRATCH/client.log" &
  PIDS+=($!)
  wait_for 30 heard || die 'the simulated hosts are not heard'
}

heard() { [ "$(ask /api/v1/hosts | jq '[.hosts[] | select(.state == "up")] | length')" = 5 ]; }

# It is OpenAPI 3.1, and says of each operation what it does, what comes back and who may.
check_document() {
  local bad
  ask /api/openapi.json >"$SCRATCH/openapi.json"
  "$TOOLS/bin/openapi-spec-validator" --schema 3.1 "$SCRATCH/openapi.json" >"$SCRATCH/out" 2>&1 ||
    { cat "$SCRATCH/out" && die 'the document is not OpenAPI 3.1'; }
  bad=$(jq -r '[.paths | to_entries[] | .key as $path | .value | to_entries[] | .key as $method | .value |
    select(((.description // .summary // "") == "") or ((.operationId // "") == "") or
      any(.responses[]; (.description // "") == "") or ((.responses | keys | any(startswith("2"))) | not)) |
    "\($method) \($path)"] | join(", ")' "$SCRATCH/openapi.json")
  [ -z "$bad" ] || die "operations without a description, an id, or a description of an answer: $bad"
  OPERATIONS=$(jq '[.paths[] | keys[]] | length' "$SCRATCH/openapi.json")
  REQUESTS=0
}

# tried NAME ARGUMENT...: runs schemathesis with these; adds to REQUESTS.
tried() {
  local name=$1 code=0 count
  shift
  cat >"$SCRATCH/$name.toml" <<'END'
[auth.openapi.bearer]
bearer = "${API_TOKEN}"
END
  mkdir -p "$SCRATCH/$name"
  (cd "$SCRATCH/$name" && NO_PROXY='*' timeout "$MOST" "$TOOLS/bin/schemathesis" --config-file "$SCRATCH/$name.toml" \
    run "$SCRATCH/openapi.json" --url "$API" --seed "$SEED" --max-examples "$EXAMPLES" --generation-database none \
    --checks all --exclude-checks positive_data_acceptance --warnings off --continue-on-failure --no-color \
    "$@") >"$SCRATCH/$name.out" 2>&1 || code=$?
  if [ $code -ne 0 ]; then
    cat "$SCRATCH/$name.out"
    [ $code -ne 124 ] || die "schemathesis did not end within $MOST s"
    die 'the API does not do what its document says' 'Each failure above has a curl line that shows it again.'
  fi
  count=$(sed -n 's/^ *\([0-9]*\) generated.*/\1/p' "$SCRATCH/$name.out")
  REQUESTS=$((REQUESTS + ${count:-0}))
}

# Nothing of it went wrong unseen: the server still works, and no task of it ended in a panic.
check_server() {
  heard_by_now=$(ask /readyz) || die "the server is not ready any more: ${heard_by_now:-}"
  ! grep -i panic "$SCRATCH/server.log" || die 'something in the server panicked'
}

main "$@"
