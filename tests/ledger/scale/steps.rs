//! Counts the steps of SQLite's machine: what is read again and again from pages that are in memory already costs steps
//! only. Every connection of this process to a file in a [`FOLDER`] tells them as each statement ends.
// SQLite takes C function pointers; there is no other way to every connection.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Once;

use rusqlite::ffi;

use super::pages::{FOLDER, PROVER};

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// From now on steps of connections that are opened are counted.
pub fn count() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let code = unsafe { ffi::sqlite3_auto_extension(Some(opened)) };
        assert_eq!(code, ffi::SQLITE_OK);
    });
}

/// Steps that were taken so far.
pub fn taken_so_far() -> u64 {
    TAKEN.load(Ordering::SeqCst)
}

unsafe extern "C" fn opened(db: *mut ffi::sqlite3, _: *mut *mut c_char, _: *const ffi::sqlite3_api_routines) -> c_int {
    unsafe {
        let name = ffi::sqlite3_db_filename(db, c"main".as_ptr());
        if name.is_null() || !CStr::from_ptr(name).to_string_lossy().contains(FOLDER) {
            return ffi::SQLITE_OK;
        }
        let when = ffi::SQLITE_TRACE_PROFILE as c_uint;
        ffi::sqlite3_trace_v2(db, when, Some(ended), std::ptr::null_mut())
    }
}

unsafe extern "C" fn ended(_: c_uint, _: *mut c_void, statement: *mut c_void, _: *mut c_void) -> c_int {
    if std::thread::current().name() != Some(PROVER) {
        // 1: from zero again.
        let steps = unsafe { ffi::sqlite3_stmt_status(statement.cast(), ffi::SQLITE_STMTSTATUS_VM_STEP, 1) };
        TAKEN.fetch_add(steps.max(0) as u64, Ordering::SeqCst);
    }
    0
}
