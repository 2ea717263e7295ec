//! The tables, and how an older file becomes a current one.

use rusqlite::Connection;

use super::StoreError;

/// The schema's version, kept in SQLite's `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE nodes (uuid TEXT PRIMARY KEY, name TEXT UNIQUE, body TEXT NOT NULL);
CREATE TABLE ports (uuid TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE, node_uuid TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX ports_by_node ON ports (node_uuid);
CREATE TABLE marks (node_uuid TEXT NOT NULL, mark TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (node_uuid, mark));
";

/// Sets the connection up and makes the tables of a new file. A file of a newer program is refused.
pub fn prepare(connection: &Connection) -> Result<(), StoreError> {
    // Full synchronisation: what was answered must outlive a power cut of the controller's host, not only a kill.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        VERSION => Ok(()),
        0 => {
            Ok(connection
                .execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?)
        }
        newer => Err(StoreError::Invalid(format!(
            "the database has schema version {newer}, this program knows {VERSION}: use the newer program, or another --state"
        ))),
    }
}
