//! A ledger of many rows, made in little time: by SQL, in one transaction, the indexes last.

use std::path::Path;

use rusqlite::Connection;

/// Devices that the rows are of: `device-0` and so on.
pub const DEVICES: u32 = 250;

/// Rows as they are after a week: nearly all have succeeded, one in a hundred has not, some are not over.
pub fn fill(path: &Path, rows: u32) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;").unwrap();
    let indexes: Vec<(String, String)> = {
        let named = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'command'";
        let mut named = db.prepare(named).unwrap();
        named.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    indexes.iter().for_each(|(name, _)| db.execute_batch(&format!("DROP INDEX {name}")).unwrap());
    db.execute_batch(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, finished_at,
            requested, value, error_code, error_message, seen, history)
         SELECT printf('device-%d', i % {DEVICES}),
            CASE WHEN i % 10 = 0 THEN 'heartbeat' ELSE printf('a0eebc99-9c0b-4ef8-bb6d-%012d', i) END,
            CAST(printf('%032d', i) AS BLOB), 'set-speed',
            CASE WHEN i % 1000 = 0 AND i <= 100000 THEN 'accepted' WHEN i % 100 = 7 THEN 'in_doubt' ELSE 'succeeded' END,
            1, 1, 1800000000000 + i, CASE WHEN i % 1000 = 0 AND i <= 100000 THEN NULL ELSE 1800000000500 + i END,
            '42.5', '42.5', CASE WHEN i % 100 = 7 THEN 'timeout' END, CASE WHEN i % 100 = 7 THEN 'no answer' END,
            1000000 + i / 100,
            '{{\"at\":\"2026-11-22T10:00:00.123Z\",\"event\":\"received\"}}' || char(10) ||
            '{{\"at\":\"2026-11-22T10:00:00.141Z\",\"event\":\"succeeded\"}}' || char(10)
         FROM n;
         UPDATE ledger SET age = 1000000 + {rows} / 100;"
    ))
    .unwrap();
    indexes.iter().for_each(|(_, sql)| db.execute_batch(sql).unwrap());
    db.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    db.close().unwrap();
}
