//! The daemon's side of the admin socket.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{statvfs, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Operator, Reply, Request, LINE_BYTES_MAX};
use crate::complaint::Complaint;
use crate::handles;

/// Operators that are served at the same time.
const CLIENTS_MAX: usize = 16;
/// How long a client may take to say what it wants, or to take the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a client that has closed half of its end has closed the rest.
const HALF_CLOSED_PERIOD: Duration = Duration::from_millis(200);

/// A socket, as people know it.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// What it is.
    what: &'static str,
    /// The key that says where it is.
    key: &'static str,
}

/// How operators' commands reach the daemon.
const ADMIN: Named = Named { what: "the admin socket", key: "admin.socket" };
/// Where metrics are told.
pub const METRICS: Named = Named { what: "the socket for metrics", key: "metrics.listen" };
/// Where the page is shown.
pub const WEB: Named = Named { what: "the socket of the page", key: "web.listen" };

/// Why there is no socket, in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unbound {
    /// Only a person can put it right.
    #[error("{0}")]
    Lasting(Complaint),
    /// It may be in order at the next try: the disk is full, no handle is left, another daemon has not ended yet.
    #[error("{0}")]
    Passing(Complaint),
}

impl Unbound {
    fn of(path: &Path, named: &Named, error: &io::Error) -> Unbound {
        let Named { what, key } = named;
        let what = format!("{what} {} can't be made: {error}", path.display());
        let why = Complaint::new(what, format!("check `{key}` and its folder"));
        let lasts = matches!(
            error.raw_os_error().map(Errno::from_raw_os_error),
            Some(
                Errno::NOTDIR
                    | Errno::ISDIR
                    | Errno::ACCESS
                    | Errno::PERM
                    | Errno::ROFS
                    | Errno::NAMETOOLONG
                    | Errno::LOOP
                    | Errno::EXIST
                    | Errno::INVAL
                    | Errno::OPNOTSUPP
            )
        );
        match lasts {
            true => Unbound::Lasting(why),
            false => Unbound::Passing(why),
        }
    }
}

/// Makes the admin socket, in place of one that a dead daemon left.
///
/// # Errors
/// Whether that can pass.
pub fn bind(path: &Path) -> Result<UnixListener, Unbound> {
    bind_as(path, &ADMIN)
}

/// Makes a socket for owner and group, in place of one that a dead daemon left.
///
/// # Errors
/// Whether that can pass.
pub fn bind_as(path: &Path, named: &Named) -> Result<UnixListener, Unbound> {
    let trouble = |error: io::Error| Unbound::of(path, named, &error);
    // systemd makes the folder of the default path; who runs the daemon by hand gets it all the same.
    if let Some(folder) = folder_of(path) {
        std::fs::create_dir_all(folder).map_err(trouble)?;
    }
    if stands_there(path, named)? {
        // Whoever answers is another daemon. One that is dead leaves a socket that refuses.
        match is_served(path) {
            Ok(false) => std::fs::remove_file(path).map_err(trouble)?,
            Ok(true) => {
                let Named { what, key } = named;
                let what = format!("another daemon serves {what} {}", path.display());
                return Err(Unbound::Passing(Complaint::new(what, format!("give each its own `{key}`"))));
            }
            Err(error) => return Err(trouble(error)),
        }
    }
    let listener = UnixListener::bind(path).map_err(trouble)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(trouble)?;
    Ok(listener)
}

/// What would keep [`bind`] from making the socket until a person has changed it, as far as that shows without making
/// anything. `may_change` says whether files can be made in a folder.
///
/// # Errors
/// [`Unbound::Lasting`].
pub fn foresee(path: &Path, may_change: impl Fn(&Path) -> io::Result<()>) -> Result<(), Unbound> {
    let look = || {
        SocketAddrUnix::new(path).map_err(|error| Unbound::of(path, &ADMIN, &error.into()))?;
        stands_there(path, &ADMIN)?;
        let mut folders = path.ancestors().skip(1).map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        });
        // The first that is there is the one in which something is made.
        let is_there = |folder: &&Path| folder.symlink_metadata().is_ok();
        let Some(folder) = folders.find(is_there) else { return Ok(()) };
        let made = match folder.metadata() {
            Ok(found) if found.is_dir() => is_writable(folder).and_then(|()| may_change(folder)),
            Ok(_) => Err(Errno::NOTDIR.into()),
            // A link that leads nowhere: no folder can be made under its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Errno::EXIST.into()),
            Err(error) => Err(error),
        };
        made.map_err(|error| Unbound::of(path, &ADMIN, &error))
    };
    match look() {
        Err(Unbound::Passing(_)) => Ok(()),
        seen => seen,
    }
}

fn is_writable(folder: &Path) -> io::Result<()> {
    match statvfs(folder)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        true => Err(Errno::ROFS.into()),
        false => Ok(()),
    }
}

fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

/// Whether a socket stands there already.
fn stands_there(path: &Path, named: &Named) -> Result<bool, Unbound> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => {
            let what = format!("{} is there already and is not a socket", path.display());
            Err(Unbound::Lasting(Complaint::new(what, format!("check `{}`", named.key))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Unbound::of(path, named, &error)),
    }
}

/// Whether somebody listens at a socket. Never waits: whose queue is full is there, however stuck it may be.
fn is_served(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        // It may be of another type, or have gone meanwhile: nobody's.
        Err(Errno::CONNREFUSED | Errno::PROTOTYPE | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Serves operators for as long as it is polled.
pub async fn serve<F, A>(listener: UnixListener, answer: F)
where
    F: Fn(Operator, Request) -> A + Clone + Send + 'static,
    A: Future<Output = Reply> + Send,
{
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    // A handle to give up when the last one is taken, so that an operator learns what is wrong.
    let mut spare = spare_handle();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, answer).await {
                        tracing::debug!(%error, "an operator went away");
                    }
                    drop(place);
                });
            }
            Err(error) if handles::are_used_up(&error) && spare.take().is_some() => {
                tracing::warn!(%error, "the limit of open files is reached; operators are answered all the same");
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket takes nobody");
                tokio::time::sleep(Duration::from_secs(1)).await;
                spare = spare.or_else(spare_handle);
            }
        }
    }
}

fn spare_handle() -> Option<std::fs::File> {
    std::fs::File::open("/dev/null").ok()
}

pub(super) async fn converse<F, A>(mut stream: UnixStream, answer: F) -> io::Result<()>
where
    F: Fn(Operator, Request) -> A,
    A: Future<Output = Reply>,
{
    let uid = stream.peer_cred()?.uid();
    let (mut read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new((&mut read).take(LINE_BYTES_MAX));
    timeout(CLIENT_PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let reply = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => {
            let operator = Operator { uid, gone: CancellationToken::new() };
            let gone = operator.gone.clone();
            let mut answered = pin!(answer(operator, request));
            tokio::select! {
                biased;
                reply = &mut answered => reply,
                () = hangs_up(read.as_ref()) => {
                    gone.cancel();
                    answered.await
                }
            }
        }
        Err(error) => Reply::Error(format!("this request is not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    timeout(CLIENT_PATIENCE, write.write_all(&text)).await?
}

/// Waits until a client has closed its end. One that only has nothing more to say, and shuts half of it, waits still.
async fn hangs_up(stream: &UnixStream) {
    let mut rest = [0; 256];
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => break,
            // What else it says is no part of its request.
            Ok(_) => match stream.try_read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
    loop {
        match stream.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => tokio::time::sleep(HALF_CLOSED_PERIOD).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_whose_owner_answers_nobody_is_another_daemons_and_one_that_refuses_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let address = SocketAddrUnix::new(&path).unwrap();
        let socket = || net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let stuck = socket();
        net::bind(&stuck, &address).unwrap();
        net::listen(&stuck, 1).unwrap();
        let mut queue = Vec::new();
        loop {
            let client = socket();
            match net::connect(&client, &address) {
                Ok(()) => queue.push(client),
                Err(error) => break assert_eq!(error, Errno::AGAIN, "its queue is full"),
            }
        }
        let why = bind(&path).unwrap_err();
        assert!(why.to_string().contains("another daemon serves the admin socket"), "{why}");
        assert!(matches!(why, Unbound::Passing(_)), "it may be about to end");
        drop((stuck, queue));
        bind(&path).expect("a dead daemon's socket is taken over");
    }
    #[test]
    fn what_a_person_must_change_is_told_from_what_passes() {
        let of = |error: Errno| Unbound::of(Path::new("/run/x/admin.sock"), &ADMIN, &error.into());
        for error in [Errno::NOTDIR, Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NAMETOOLONG, Errno::LOOP] {
            assert!(matches!(of(error), Unbound::Lasting(_)), "{error:?}");
        }
        let passing = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
        for error in passing.into_iter().chain([Errno::ADDRINUSE, Errno::IO, Errno::NOENT, Errno::AGAIN]) {
            assert!(matches!(of(error), Unbound::Passing(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn what_is_foreseen_is_what_binding_ends_with_and_nothing_is_left_behind() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let long = "x".repeat(300);
        for (path, lasts) in [
            ("new/deeper/admin.sock", false),
            ("folder/admin.sock", false),
            ("file", true),
            ("folder", true),
            ("file/admin.sock", true),
            ("dangling/admin.sock", true),
            ("loop/admin.sock", true),
            (&long, true),
        ] {
            let before = std::fs::read_dir(place.path()).unwrap().count();
            let foreseen = foresee(&at(path), |_| Ok(()));
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), before, "{path}");
            assert_eq!(foreseen.is_err(), lasts, "{path}: {foreseen:?}");
            let bound = bind(&at(path));
            assert_eq!(matches!(bound, Err(Unbound::Lasting(_))), lasts, "{path}: {bound:?}");
        }
        let denied = |_: &Path| Err(Errno::ACCESS.into());
        assert!(matches!(foresee(&at("folder/other.sock"), denied), Err(Unbound::Lasting(_))));
        let full = |_: &Path| Err(Errno::NOSPC.into());
        assert!(foresee(&at("folder/other.sock"), full).is_ok(), "that passes");
    }
}
