-- The schema of the first release, as its program made it.
CREATE TABLE command (
    id               INTEGER PRIMARY KEY AUTOINCREMENT, -- order of first receipt
    device           TEXT NOT NULL,
    message_id       TEXT,                              -- NULL: came without one
    digest           BLOB NOT NULL,                     -- of the property `command` and the body
    name             TEXT,                              -- the command, as the message named it
    state            TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    deliveries       INTEGER NOT NULL,
    received_at      INTEGER NOT NULL,                  -- wall clock, ms since 1970
    finished_at      INTEGER,                           -- likewise; NULL until final
    expires_at       INTEGER,                           -- `$.exp`, likewise
    input            TEXT,                              -- the value, JSON; kept until final
    value            TEXT,                              -- the result, JSON
    error_code       TEXT,
    error_message    TEXT,
    modbus_exception INTEGER,
    seen             INTEGER NOT NULL,                  -- ledger age in s when last delivered
    history          TEXT NOT NULL                      -- one JSON object a line
) STRICT;
CREATE UNIQUE INDEX command_identity ON command (device, message_id, digest);
CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    device     TEXT NOT NULL,
    message_id TEXT,                                    -- of the command, for the correlation id
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_device ON outbox (device, seq);
CREATE TABLE ledger (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    uuid TEXT NOT NULL,                                 -- names the ledger in result events' ids
    age  INTEGER NOT NULL,                              -- seconds that a daemon has run on it
    ended_well INTEGER NOT NULL                         -- 0 while a daemon runs on it, and after a crash
) STRICT;
ALTER TABLE ledger ADD COLUMN wall INTEGER NOT NULL DEFAULT 0;
PRAGMA application_id = 0x66627231;
PRAGMA user_version = 2;
