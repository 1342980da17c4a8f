# Reads Rust sources and prints what their code names. house.sh holds that against its rules.
#
#   FILE LINE ident NAME      each identifier
#   FILE LINE module PATH     each path that begins at the crate's root, `use` groups spelled out: crate::store::Store
#
# Comments, strings and characters are no code. FILE has to be given from the repository's root.

FNR == 1 { start_file() }
{ strip($0 "\n") }
END { finish_file() }

function start_file() {
  finish_file()
  file = FILENAME
  depth = 0 # of block comments, which nest
  closer = "" # what ends the string that is open
  escapes = 0 # whether that string knows escapes
  line = 1
  n_tokens = 0
}

# Takes the tokens out of a line.
function strip(text,    at, found) {
  line = FNR
  while (text != "") {
    if (depth > 0) {
      if (!match(text, /\/\*|\*\//)) return
      depth += (substr(text, RSTART, 2) == "/*") ? 1 : -1
      text = substr(text, RSTART + 2)
    } else if (closer != "" && escapes) {
      if (!match(text, /^([^"\\]|\\.)*"/)) return
      text = substr(text, RLENGTH + 1)
      closer = ""
    } else if (closer != "") {
      at = index(text, closer)
      if (!at) return
      text = substr(text, at + length(closer))
      closer = ""
    } else if (match(text, /^[ \t\r\n]+/)) {
      text = substr(text, RLENGTH + 1)
    } else if (substr(text, 1, 2) == "//") {
      return
    } else if (substr(text, 1, 2) == "/*") {
      depth = 1
      text = substr(text, 3)
    } else if (match(text, /^[bc]?(r#*)?"/)) {
      closer = substr(text, 1, RLENGTH)
      text = substr(text, RLENGTH + 1)
      escapes = (closer !~ /r/)
      gsub(/[^#]/, "", closer)
      closer = "\"" closer
    } else if (match(text, /^b?'(\\.[^']*|[^'\\]|[\200-\377]+)'/)) {
      text = substr(text, RLENGTH + 1)
    } else if (match(text, /^(r#)?[A-Za-z_][A-Za-z0-9_]*/)) {
      found = substr(text, 1, RLENGTH)
      text = substr(text, RLENGTH + 1)
      sub(/^r#/, "", found)
      token(found)
      print file, line, "ident", found
    } else if (substr(text, 1, 2) == "::") {
      token("::")
      text = substr(text, 3)
    } else if (match(text, /^[0-9][A-Za-z0-9_.]*/)) {
      token("0")
      text = substr(text, RLENGTH + 1)
    } else {
      token(substr(text, 1, 1))
      text = substr(text, 2)
    }
  }
}

function token(text) {
  n_tokens++
  tokens[n_tokens] = text
  lines[n_tokens] = line
}

# Spells out every path of the file.
function finish_file(    i) {
  if (file == "") return
  module = file
  sub(/^.*\/src\//, "", module)
  sub(/\.rs$/, "", module)
  sub(/(^|\/)(mod|lib|main)$/, "", module)
  gsub(/\//, "::", module)
  for (i = 1; i <= n_tokens; i++) {
    if (tokens[i] == "use") i = tree(i + 1, "")
    else if (starts(tokens[i]) && tokens[i + 1] == "::" && tokens[i - 1] != "::") i = tree(i, "")
  }
}

function starts(word) { return word == "crate" || word == "self" || word == "super" || word ~ /^vitals_(server|client|wire)$/ }

# Reads one path, or one tree of a `use`, from token `i` on, and gives the last token that it took.
function tree(i, prefix,    path) {
  path = prefix
  while (i <= n_tokens) {
    if (tokens[i] ~ /^[A-Za-z_]/ && tokens[i] != "as") {
      path = path (path == "" ? "" : "::") tokens[i]
      if (tokens[i + 1] != "::") { emit(path, lines[i]); return skip_as(i) }
      i += 2
    } else if (tokens[i] == "::") {
      i++
    } else if (tokens[i] == "{") {
      i++
      while (i <= n_tokens && tokens[i] != "}") {
        if (tokens[i] == ",") { i++; continue }
        i = tree(i, path) + 1
      }
      return i
    } else {
      # `*`, or what ends a path of an expression, such as the `<` of a turbofish.
      if (tokens[i] == "*") { emit(path, lines[i]); return i }
      if (path == prefix) return i
      emit(path, lines[i])
      return i - 1
    }
  }
  return i
}

function skip_as(i) { return tokens[i + 1] == "as" ? i + 2 : i }

# Prints a path from the crate's root on. `super` goes up from the file's module; an inline module is taken for its file.
function emit(path, at,    here, crate_name) {
  if (path !~ /^(crate|self|super|vitals_[a-z]+)(::|$)/) return
  here = module
  if (path ~ /^crate/) { sub(/^crate(::)?/, "", path); here = "" }
  else if (path ~ /^vitals_/) {
    crate_name = file
    sub(/\/.*/, "", crate_name)
    if (path !~ "^vitals_" crate_name "(::|$)") return
    sub(/^vitals_[a-z]+(::)?/, "", path)
    here = ""
  }
  while (path ~ /^(self|super)(::|$)/) {
    if (path ~ /^super/) { if (here ~ /::/) sub(/::[^:]*$/, "", here); else here = "" }
    sub(/^(self|super)(::)?/, "", path)
  }
  path = here (here != "" && path != "" ? "::" : "") path
  if (path != "") print file, at, "module", "crate::" path
}
