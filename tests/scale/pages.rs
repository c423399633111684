//! Counts the pages that SQLite reads: a VFS between it and the system's, which every connection of this process uses.
// SQLite calls a VFS through C function pointers; there is no other way to stand between.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void, CString};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::Once;

use rusqlite::ffi;

static READ: AtomicU64 = AtomicU64::new(0);
static SYSTEM: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());
static METHODS: AtomicPtr<ffi::sqlite3_io_methods> = AtomicPtr::new(ptr::null_mut());
static OURS: AtomicPtr<ffi::sqlite3_io_methods> = AtomicPtr::new(ptr::null_mut());

/// The thread that proves the whole file beside the service: its reads are no cost of an operation.
const PROVER: &str = "ledger-proof";

/// From now on pages are counted.
pub fn count() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        assert!(!system.is_null());
        SYSTEM.store(system, Ordering::SeqCst);
        let mut vfs = ptr::read(system);
        vfs.zName = CString::new("counting").expect("no NUL in it").into_raw();
        vfs.pNext = ptr::null_mut();
        vfs.xOpen = Some(open);
        // SQLite keeps the pointer for good.
        let code = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1);
        assert_eq!(code, ffi::SQLITE_OK);
    });
}

/// Pages that were read so far.
pub fn read_so_far() -> u64 {
    READ.load(Ordering::SeqCst)
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe {
        let system = SYSTEM.load(Ordering::SeqCst);
        let code = (*system).xOpen.expect("every VFS opens")(system, name, file, flags, out_flags);
        let methods = (*file).pMethods;
        if code == ffi::SQLITE_OK && !methods.is_null() {
            if OURS.load(Ordering::SeqCst).is_null() {
                let mut ours = ptr::read(methods);
                ours.xRead = Some(read);
                METHODS.store(methods.cast_mut(), Ordering::SeqCst);
                OURS.store(Box::into_raw(Box::new(ours)), Ordering::SeqCst);
            }
            assert_eq!(methods, METHODS.load(Ordering::SeqCst).cast_const(), "all files are of one kind");
            (*file).pMethods = OURS.load(Ordering::SeqCst);
        }
        code
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, at: i64) -> c_int {
    if std::thread::current().name() != Some(PROVER) {
        READ.fetch_add(1, Ordering::SeqCst);
    }
    let methods = METHODS.load(Ordering::SeqCst);
    unsafe { (*methods).xRead.expect("every file is read")(file, to, amount, at) }
}
