//! SQLite's way to the simulated disk: a VFS whose files are those of the disk that the thread has mounted.
//!
//! Everything runs on one thread, and nobody stops in the middle of a transaction, so locks are granted. The log's
//! index is shared by the connections that one life of the process has to one file.
// SQLite calls a VFS through C function pointers and hands out raw pointers; there is no other way to give it one.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Once};

use rusqlite::ffi;

use super::disk::{Handle, SimDisk, VFS};

thread_local! {
    static SHARED: RefCell<HashMap<(usize, u64, u64), Weak<Regions>>> = RefCell::default();
    static MOUNTED: RefCell<Vec<(PathBuf, Arc<SimDisk>)>> = const { RefCell::new(Vec::new()) };
}

/// From now on this thread finds a disk under a folder; `None` takes it away.
pub fn mount(folder: &str, disk: Option<Arc<SimDisk>>) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    MOUNTED.with(|mounted| {
        let mut mounted = mounted.borrow_mut();
        mounted.retain(|(at, _)| at != Path::new(folder));
        mounted.extend(disk.map(|disk| (PathBuf::from(folder), disk)));
    });
}

fn disk_of(path: &Path) -> Option<Arc<SimDisk>> {
    MOUNTED.with(|mounted| mounted.borrow().iter().find(|(at, _)| path.starts_with(at)).map(|(_, disk)| disk.clone()))
}

fn register() {
    let default = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    assert!(!default.is_null());
    let vfs = ffi::sqlite3_vfs {
        iVersion: 1,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: CString::new(VFS).expect("no NUL in it").into_raw(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    // SQLite keeps the pointer for good.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0) };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// What SQLite allots for an open file, with our part behind its own.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    ours: *mut Ours,
}

struct Ours {
    handle: Handle,
    shared: Rc<Regions>,
}

/// Regions of the log's index. They must not move.
type Regions = RefCell<Vec<Box<[u8]>>>;

/// The regions of a file, as whoever else has it open in this life of the process sees them.
fn shared(handle: &Handle) -> Rc<Regions> {
    SHARED.with(|shared| {
        let mut shared = shared.borrow_mut();
        shared.retain(|_, regions| regions.strong_count() > 0);
        if let Some(regions) = shared.get(&handle.key()).and_then(Weak::upgrade) {
            return regions;
        }
        let regions = Rc::<Regions>::default();
        shared.insert(handle.key(), Rc::downgrade(&regions));
        regions
    })
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(granted),
    xUnlock: Some(granted),
    xCheckReservedLock: Some(not_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `file` is one that `open` has filled in and `close` has not seen yet; SQLite calls from one thread.
unsafe fn ours<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Ours {
    unsafe { &mut *(*file.cast::<File>()).ours }
}

/// # Safety
/// `name` is a C string of SQLite's.
unsafe fn path<'a>(name: *const c_char) -> &'a Path {
    Path::new(unsafe { CStr::from_ptr(name) }.to_str().expect("our paths are UTF-8"))
}

fn code(result: io::Result<()>, otherwise: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        Err(_) => otherwise,
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    unsafe { (*file).base.pMethods = ptr::null() };
    if name.is_null() {
        // A temporary file. The ledger's statements need none.
        return ffi::SQLITE_CANTOPEN;
    }
    let name = unsafe { path(name) };
    let make = flags & ffi::SQLITE_OPEN_CREATE != 0;
    let Some(Ok(handle)) = disk_of(name).map(|disk| disk.open(name, make)) else { return ffi::SQLITE_CANTOPEN };
    unsafe {
        (*file).ours = Box::into_raw(Box::new(Ours { shared: shared(&handle), handle }));
        (*file).base.pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let file = file.cast::<File>();
    drop(unsafe { Box::from_raw((*file).ours) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, at: i64) -> c_int {
    let buffer = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), amount as usize) };
    let there = unsafe { ours(file) }.handle.read(buffer, at as usize);
    if there < buffer.len() {
        buffer[there..].fill(0);
        return ffi::SQLITE_IOERR_SHORT_READ;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, amount: c_int, at: i64) -> c_int {
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), amount as usize) };
    code(unsafe { ours(file) }.handle.write(bytes, at as usize), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    code(unsafe { ours(file) }.handle.truncate(size as usize), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    code(unsafe { ours(file) }.handle.sync(), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    unsafe { *size = ours(file).handle.length() as i64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn granted(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn not_reserved(_: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    unsafe { *reserved = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own VFS says on Linux: a write that is cut leaves its neighbours alone.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let mut shared = unsafe { ours(file) }.shared.borrow_mut();
    let page = page as usize;
    while extend != 0 && shared.len() <= page {
        shared.push(vec![0; size as usize].into_boxed_slice());
    }
    let region = shared.get_mut(page).map_or(ptr::null_mut(), |region| region.as_mut_ptr().cast());
    unsafe { *out = region };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(_: *mut ffi::sqlite3_file, _: c_int, _: c_int, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    if delete != 0 {
        unsafe { ours(file) }.shared.borrow_mut().clear();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let name = unsafe { path(name) };
    match disk_of(name).map(|disk| disk.unlink(name, sync_folder != 0)) {
        Some(Ok(())) => ffi::SQLITE_OK,
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
        _ => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int, is: *mut c_int) -> c_int {
    let name = unsafe { path(name) };
    let found = disk_of(name).is_some_and(|disk| disk.open(name, false).is_ok_and(|handle| handle.length() > 0));
    unsafe { *is = c_int::from(found) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

/// The same for every schedule: what SQLite wants it for is that two logs differ.
unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, amount: c_int, out: *mut c_char) -> c_int {
    for at in 0..amount as usize {
        unsafe { *out.add(at) = (at * 37 + 11) as c_char };
    }
    amount
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    unsafe { *days = 2_461_366.5 };
    ffi::SQLITE_OK
}
