//! The ledger's schema of before, as version 0.1.0 has left it on disks.

/// What made a file of schema version 1 or 2.
pub fn schema(version: usize) -> String {
    let marks =
        format!("PRAGMA journal_mode = WAL; PRAGMA application_id = {}; PRAGMA user_version = {version};", 0x6662_7231);
    let wall = if version > 1 { "ALTER TABLE ledger ADD COLUMN wall INTEGER NOT NULL DEFAULT 0;" } else { "" };
    format!("{TABLES}{wall}{marks}")
}

const TABLES: &str = "
    CREATE TABLE command (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        device           TEXT NOT NULL,
        message_id       TEXT,
        digest           BLOB NOT NULL,
        name             TEXT,
        state            TEXT NOT NULL,
        attempts         INTEGER NOT NULL,
        deliveries       INTEGER NOT NULL,
        received_at      INTEGER NOT NULL,
        finished_at      INTEGER,
        expires_at       INTEGER,
        input            TEXT,
        value            TEXT,
        error_code       TEXT,
        error_message    TEXT,
        modbus_exception INTEGER,
        seen             INTEGER NOT NULL,
        history          TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX command_identity ON command (device, message_id, digest);
    CREATE TABLE outbox (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        device     TEXT NOT NULL,
        message_id TEXT,
        body       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX outbox_device ON outbox (device, seq);
    CREATE TABLE ledger (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        uuid TEXT NOT NULL,
        age  INTEGER NOT NULL,
        ended_well INTEGER NOT NULL
    ) STRICT;
";
