//! Counts the pages that SQLite reads: a VFS between it and the system's, which every connection of this process uses.
//! Only files in a [`FOLDER`] count, because other tests of this process read ledgers too.
// SQLite calls a VFS through C function pointers; there is no other way to stand between.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use rusqlite::ffi;

/// How the name of a folder begins whose files are counted.
pub const FOLDER: &str = "fieldbridge-scale-";

static READ: AtomicU64 = AtomicU64::new(0);
static SYSTEM: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());
/// The methods of each kind of file, as addresses: the system's, and ours that stand before them.
static METHODS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
/// What reads a file of any kind.
static READS: OnceLock<Reads> = OnceLock::new();

type Reads = unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int;

/// The thread that proves the whole file beside the service: its reads are no cost of an operation.
pub const PROVER: &str = "ledger-proof";

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

unsafe fn is_counted(name: *const c_char) -> bool {
    // A file for the moment has no name.
    !name.is_null() && unsafe { CStr::from_ptr(name) }.to_string_lossy().contains(FOLDER)
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
        if code == ffi::SQLITE_OK && !methods.is_null() && is_counted(name) {
            (*file).pMethods = ours(methods);
        }
        code
    }
}

/// # Safety
/// `methods` are a VFS's, which it keeps for good.
unsafe fn ours(methods: *const ffi::sqlite3_io_methods) -> *const ffi::sqlite3_io_methods {
    let mut known = METHODS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ours)) = known.iter().find(|(theirs, _)| *theirs == methods as usize) {
        return *ours as *const ffi::sqlite3_io_methods;
    }
    let mut ours = unsafe { ptr::read(methods) };
    let reads = ours.xRead.expect("every file is read");
    READS.get_or_init(|| reads);
    ours.xRead = Some(read);
    let ours = Box::into_raw(Box::new(ours));
    known.push((methods as usize, ours as usize));
    ours
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, at: i64) -> c_int {
    if std::thread::current().name() != Some(PROVER) {
        READ.fetch_add(1, Ordering::SeqCst);
    }
    let reads = READS.get().expect("a file was opened before it is read");
    unsafe { reads(file, to, amount, at) }
}
