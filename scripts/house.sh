#!/usr/bin/env bash
# Checks the rules of the house: who may depend on whom, and which one module may name which library.
#
# Usage: scripts/house.sh [--self-test]
#
#   --self-test   breaks each rule in an otherwise empty tree and sees that the check notices
#
# Comments, documentation and strings do not count. What may be named where stands below, in `names`, `modules` and
# `manifests`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$REPO/scripts
# Sources are read byte by byte.
export LC_ALL=C

# Which files may name which crates: WORD|IDENTIFIERS|FILES THAT MAY. Tests of the server look from outside with whatever
# serves them, but for bincode, whose bytes have one author.
names() {
  local outside='|^server/(tests|benches|examples)/'
  cat <<END
bincode|^bincode$|^wire/src/codec(_tests)?\.rs$
sqlite|^(rusqlite|sqlx|libsqlite3_sys|sqlite)$|^server/src/(store|state)(/|(_tests)?\.rs$)$outside
axum|^(axum|axum_.*|utoipa|utoipa_.*|tower_http)$|^server/src/api(/|(_tests)?\.rs$)$outside
http-client|^(reqwest|influxdb2|ureq|isahc)$|^server/src/(influx|notify)(/|(_tests)?\.rs$)$outside
http-server|^(hyper|hyper_util)$|^server/src/api(/|(_tests)?\.rs$)$outside
END
}

# Which modules must not name which others of their crate: WORD|FILES|MODULES.
modules() {
  cat <<'END'
sampler-knows-no-link|^client/src/(sampler|collect)(/|\.rs$|_)|^(link|queue|spool)$
store-knows-no-influx|^server/src/store(/|\.rs$|_)|^influx$
influx-knows-no-store|^server/src/influx(/|\.rs$|_)|^store$
live-waits-for-nobody|^server/src/live(/|\.rs$|_)|^(store|influx|journal)$
session-only-hands-over|^server/src/(connection|session)(/|\.rs$|_)|^(store|influx|api)$
END
}

# Which manifests must not have which dependencies: WORD|MANIFESTS|SECTIONS|DEPENDENCIES.
manifests() {
  cat <<'END'
wire-depends-on-nobody|^wire/Cargo.toml$|dependencies$|^vitals-
client-not-on-server|^client/Cargo.toml$|dependencies$|^vitals-server$
server-not-on-client|^server/Cargo.toml$|^(target\..*\.)?(build-)?dependencies$|^vitals-client$
bincode-in-wire-alone|^(client|server)/Cargo.toml$|dependencies$|^bincode$
libraries-in-server-alone|^(client|wire)/Cargo.toml$|dependencies$|^(rusqlite|axum|utoipa|utoipa-axum|reqwest|influxdb2)$
END
}

main() {
  case ${1:-} in
    -h | --help) help_of "$0" && exit 0 ;;
    --self-test) self_test ;;
    '')
      cd "$REPO"
      check || die "rules of the house are broken: see above" 'DESIGN and ARCHITECTURE.md say where such code belongs.'
      say "The house's rules hold in $(sources | wc -l | tr -d ' ') files."
      ;;
    *) wrong_use "unknown argument: $1" ;;
  esac
}

sources() {
  local dirs=() dir
  for dir in wire client server; do
    [ ! -d "$dir" ] || dirs+=("$dir")
  done
  find "${dirs[@]}" -name '*.rs' -not -path '*/target/*' -not -path '*/node_modules/*' -not -path 'wire/fuzz/*' | sort
}

# Checks the tree in the current directory; prints what breaks a rule, as FILE:LINE: RULE: what.
check() {
  local broken
  broken=$({
    check_sources
    check_manifests
  } | sort -u)
  [ -n "$broken" ] || return 0
  printf '%s\n' "$broken"
  return 1
}

check_sources() {
  sources | tr '\n' '\0' | xargs -0 awk -f "$HERE/house.awk" |
    awk -v names="$(names)" -v modules="$(modules)" '
      BEGIN {
        n = split(names, name, "\n")
        for (i = 1; i <= n; i++) { cut(name[i], rule); word[i] = rule[1]; bad[i] = rule[2]; may[i] = rule[3] }
        m = split(modules, mod, "\n")
        for (i = 1; i <= m; i++) { cut(mod[i], rule); about[i] = rule[1]; where[i] = rule[2]; not[i] = rule[3] }
      }
      # At bars that are no alternatives: those stand in parentheses.
      function cut(text, part,    i, c, level, k) {
        split("", part); k = 1; level = 0; part[1] = ""
        for (i = 1; i <= length(text); i++) {
          c = substr(text, i, 1)
          if (c == "(") level++
          if (c == ")") level--
          if (c == "|" && level == 0 && k < 3) part[++k] = ""
          else part[k] = part[k] c
        }
      }
      $3 == "ident" {
        for (i = 1; i <= n; i++) if ($4 ~ bad[i] && $1 !~ may[i]) print $1 ":" $2 ": " word[i] ": names " $4
      }
      $3 == "module" {
        split($4, step, "::")
        for (i = 1; i <= m; i++) if (step[2] ~ not[i] && $1 ~ where[i]) print $1 ":" $2 ": " about[i] ": names " $4
      }'
}

check_manifests() {
  local rule files sections bad file
  # The bars between a rule's parts are not those of its patterns, which stand in parentheses.
  while IFS=$'\t' read -r rule files sections bad; do
    for file in wire/Cargo.toml client/Cargo.toml server/Cargo.toml; do
      if [ -f "$file" ] && grep -Eq "$files" <<<"$file"; then
        awk -v rule="$rule" -v sections="$sections" -v bad="$bad" '
          { sub(/#.*/, "") }
          /^\[/ {
            section = $0
            gsub(/[][ ]/, "", section)
            name = ""
            # [dependencies.name] is a dependency of its own.
            if (match(section, /dependencies\./)) {
              name = substr(section, RSTART + RLENGTH)
              section = substr(section, 1, RSTART + RLENGTH - 2)
            }
          }
          /^[A-Za-z0-9_"-]+([ .=]|$)/ && name == "" && section ~ /dependencies$/ { key = $0; sub(/[ .=].*/, "", key); gsub(/"/, "", key); hold(key) }
          /^\[/ && name != "" { hold(name) }
          # A renamed dependency says its true name.
          match($0, /package *= *"[^"]*"/) && section ~ /dependencies$/ {
            key = substr($0, RSTART, RLENGTH); gsub(/^package *= *"|"$/, "", key); hold(key)
          }
          function hold(key) { if (section ~ sections && key ~ bad) print FILENAME ":" FNR ": " rule ": " section " has " key }
        ' "$file"
      fi
    done
  done < <(manifests | awk '{
    level = 0; k = 0; out = ""
    for (i = 1; i <= length($0); i++) {
      c = substr($0, i, 1)
      if (c == "(") level++
      if (c == ")") level--
      out = out ((c == "|" && level == 0) ? "\t" : c)
    }
    print out
  }')
}

# --- self-test -----------------------------------------------------------------

FAILED=0

self_test() {
  SCRATCH=$(mktemp -d)
  trap 'rm -rf "$SCRATCH"' EXIT

  # Each rule by each of its ways to be broken.
  breaks bincode wire/src/log/mod.rs 'use bincode::config;'
  breaks bincode server/tests/bytes.rs 'fn f() { bincode::encode(); }'
  breaks bincode server/src/session/mod.rs 'use ::bincode as b;'
  breaks bincode wire/src/log/mod.rs $'const B: &str = "\\\\"; const D: char = \'"\'; fn f<\'a, \'b>(x: &\'a str) { r"\\"; bincode::x() }'
  breaks sqlite server/src/api/mod.rs 'fn f(e: rusqlite::Error) {}'
  breaks sqlite client/src/spool.rs 'use rusqlite::Connection;'
  breaks sqlite server/src/store_like.rs 'use rusqlite::Connection;'
  breaks axum server/src/live/mod.rs '#[derive(utoipa::ToSchema)] struct S;'
  breaks axum server/src/session.rs 'use axum::Router;'
  breaks axum wire/src/sample.rs 'use utoipa::ToSchema;'
  breaks http-client server/src/api/mod.rs 'use reqwest::Client;'
  breaks http-client server/src/store/mod.rs 'fn f() { let url = "http://x"; influxdb2::Client::new(url); }'
  breaks http-client client/src/link/mod.rs 'use reqwest::Client;'
  breaks http-server client/src/link/mod.rs 'use hyper::client;'
  breaks http-server server/src/influx/mod.rs 'use hyper_util::client::legacy::Client;'
  breaks http-server server/src/connection.rs 'use hyper::server::conn::http1;'
  breaks sampler-knows-no-link client/src/sampler/mod.rs 'use crate::link::Link;'
  breaks sampler-knows-no-link client/src/collect/cpu.rs 'use super::super::queue;'
  breaks sampler-knows-no-link client/src/sampler.rs 'use crate::{collect, spool::{self, Spool}};'
  breaks store-knows-no-influx server/src/store/mod.rs 'fn f() { crate::influx::go(); }'
  breaks store-knows-no-influx server/src/store/read.rs 'use vitals_server::influx::Writer;'
  breaks influx-knows-no-store server/src/influx/mod.rs 'use super::store::Store;'
  breaks influx-knows-no-store server/src/influx/writer.rs $'use crate::{\n  journal::{Journal, Entry},\n  store,\n};'
  breaks live-waits-for-nobody server/src/live/mod.rs 'use crate::store::Store;'
  breaks live-waits-for-nobody server/src/live/mod.rs 'type T = Vec<crate::influx::Writer>;'
  breaks live-waits-for-nobody server/src/live.rs 'use crate::journal::*;'
  breaks session-only-hands-over server/src/connection/mod.rs 'use crate::api;'
  breaks session-only-hands-over server/src/session/mod.rs 'pub(crate) use crate::store as history;'
  breaks session-only-hands-over server/src/session/ack.rs 'use super::super::influx::x;'
  breaks wire-depends-on-nobody wire/Cargo.toml $'[dev-dependencies]\nvitals-client.workspace = true'
  breaks client-not-on-server client/Cargo.toml $'[dependencies]\nvitals-server = { path = "../server" }'
  breaks client-not-on-server client/Cargo.toml $'[target.\'cfg(unix)\'.dependencies.vitals-server]\npath = "../server"'
  breaks server-not-on-client server/Cargo.toml $'[dependencies]\nvitals-client.workspace = true'
  breaks server-not-on-client server/Cargo.toml $'[dependencies]\nmine = { package = "vitals-client", path = "../client" }'
  breaks bincode-in-wire-alone server/Cargo.toml $'[dependencies]\nbincode.workspace = true'
  breaks libraries-in-server-alone client/Cargo.toml $'[dependencies]\nrusqlite = "0.41"'

  # What looks like it and is allowed.
  holds wire/src/codec.rs 'use bincode::config::Config;'
  holds wire/src/log/mod.rs $'//! bincode\n/* use bincode::x; /* nested */ bincode */\nconst S: &str = "bincode::encode \\" bincode";\nconst R: &str = r#"bincode " bincode"#;'
  holds wire/src/log/mod.rs $'const A: char = \'é\'; const B: &str = "\\\\"; const C: &[u8] = br"bincode\\"; const D: char = \'\\\'\'; const E: &str = "a\n bincode\n";'
  holds server/src/live/mod.rs $'fn f(c: &AtomicU64, x: &\'static str) { c.store(1, Relaxed); let store = c; m.influx_lag.get(); let q = \'"\'; }'
  holds server/src/store/mod.rs 'use rusqlite::Connection; use crate::journal::JournalReader;'
  holds server/src/state.rs 'use rusqlite::Connection;'
  holds server/src/api/serve.rs 'use hyper::server::conn::http1; use hyper_util::rt::TokioIo;'
  holds server/src/api/mod.rs 'use axum::Router; use utoipa::ToSchema; use crate::{live::Live, store::Store};'
  holds server/src/influx/mod.rs 'use influxdb2::Client; use crate::journal; mod writer; use self::writer::W;'
  holds server/src/session/mod.rs 'use crate::{journal::Journal, live::Live}; mod tests { use super::*; }'
  holds server/tests/store.rs 'use rusqlite::Connection; use reqwest::Client; use vitals_server::store; use axum::Router;'
  holds client/src/link/mod.rs 'use crate::queue::Queue; use crate::sampler::Sampler;'
  holds client/src/collect/mod.rs 'fn f<'"'"'link>(link: &'"'"'link Path) { link.exists(); std::fs::read_link(link); }'
  holds server/Cargo.toml $'[dependencies]\nrusqlite = "0.41"\nvitals-wire.workspace = true\n[dev-dependencies]\nvitals-client.workspace = true'
  holds wire/Cargo.toml $'[package]\nname = "vitals-wire"\n[dependencies]\nbincode.workspace = true'

  # Every rule has been broken above.
  local rule
  for rule in $({ names; modules; manifests; } | cut -d '|' -f 1); do
    grep -qx "$rule" "$SCRATCH/fired" || { note "no case breaks the rule $rule"; FAILED=1; }
  done
  [ $FAILED -eq 0 ] || die 'the check of the rules does not see what it should'
  say "Each of $(sort -u "$SCRATCH/fired" | wc -l | tr -d ' ') rules fires when it is broken, and only then."
}

# tree_with FILE TEXT: an otherwise empty tree.
tree_with() {
  rm -rf "$SCRATCH/tree"
  mkdir -p "$SCRATCH/tree/wire/src" "$SCRATCH/tree/client/src" "$SCRATCH/tree/server/src" "$SCRATCH/tree/$(dirname "$1")"
  touch "$SCRATCH/tree/wire/src/lib.rs"
  printf '%s\n' "$2" >"$SCRATCH/tree/$1"
}

check_in() {
  cd "$1"
  check || true
}

breaks() {
  local found
  tree_with "$2" "$3"
  found=$(check_in "$SCRATCH/tree")
  if grep -q "^$2:[0-9]*: $1: " <<<"$found"; then
    echo "$1" >>"$SCRATCH/fired"
  else
    note "the rule $1 does not see, in $2: $3"
    note "  it found: ${found:-nothing}"
    FAILED=1
  fi
}

holds() {
  local found
  tree_with "$1" "$2"
  found=$(check_in "$SCRATCH/tree")
  [ -z "$found" ] || { note "wrongly found in $1: $2"; note "  $found"; FAILED=1; }
}

main "$@"
