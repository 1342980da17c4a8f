-- Who may do what. Secrets are kept as their SHA-256, passwords as argon2id.

ALTER TABLE host ADD COLUMN secret_hash BLOB;
-- The secret that it said it will use from its next connection on.
ALTER TABLE host ADD COLUMN next_secret_hash BLOB;
-- It is to make a new secret.
ALTER TABLE host ADD COLUMN rotate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN revoked_ms INTEGER;
-- What an administrator calls it: whatever it calls itself.
ALTER TABLE host ADD COLUMN given_name TEXT;
-- Labels by origin, objects of JSON. Of an administrator's, null takes one of another origin away.
ALTER TABLE host ADD COLUMN client_labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE host ADD COLUMN token_labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE host ADD COLUMN given_labels TEXT NOT NULL DEFAULT '{}';
-- The id that its client says, where that is not its own: the last that took its place.
ALTER TABLE host ADD COLUMN client BLOB;
-- Public keys of the server that it knows, 32 bytes each.
ALTER TABLE host ADD COLUMN learnt BLOB NOT NULL DEFAULT x'';

CREATE TABLE join_token (
  id TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL UNIQUE,
  created_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  expires_ms INTEGER NOT NULL,
  max_uses INTEGER NOT NULL,
  uses INTEGER NOT NULL DEFAULT 0,
  labels TEXT NOT NULL,
  -- The host whose name and history the newcomer takes over.
  replaces BLOB,
  revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

-- A machine that took the place of another: its client says one id, and all of it stands under the host's own.
CREATE TABLE host_alias (
  client BLOB PRIMARY KEY CHECK (length(client) = 16),
  host BLOB NOT NULL REFERENCES host (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Who joined with which, by the id that the client says: once with each token.
CREATE TABLE join_token_use (
  token TEXT NOT NULL REFERENCES join_token (id) ON DELETE CASCADE,
  host BLOB NOT NULL,
  time_ms INTEGER NOT NULL,
  PRIMARY KEY (token, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE person (
  name TEXT PRIMARY KEY,
  password_hash TEXT NOT NULL,
  role TEXT NOT NULL,
  -- Labels that a host must have to be seen, an object of JSON.
  scope TEXT NOT NULL,
  must_change INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE login (
  id_hash BLOB PRIMARY KEY,
  person TEXT NOT NULL REFERENCES person (name) ON DELETE CASCADE,
  created_ms INTEGER NOT NULL,
  seen_ms INTEGER NOT NULL,
  address TEXT NOT NULL,
  agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_token (
  id TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL,
  access TEXT NOT NULL,
  scope TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  expires_ms INTEGER,
  seen_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  who TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (time_ms);
