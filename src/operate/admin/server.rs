//! The daemon's side of the admin socket.

use std::future::Future;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Operator, Reply, Request, LINE_BYTES_MAX};
use crate::handles;

/// Operators that are served at the same time.
const CLIENTS_MAX: usize = 16;
/// How long a client may take to say what it wants, or to take the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a client that has closed half of its end has closed the rest.
const HALF_CLOSED_PERIOD: Duration = Duration::from_millis(200);

/// Makes the socket, in place of one that a dead daemon left.
///
/// # Errors
/// A sentence that says what is wrong with the path.
pub fn bind(path: &Path) -> Result<UnixListener, String> {
    let trouble = |error: std::io::Error| {
        format!("the admin socket {} can't be made: {error}; check `admin.socket` and its folder", path.display())
    };
    // systemd makes the folder of the default path; who runs the daemon by hand gets it all the same.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(trouble)?;
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(trouble(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!("{} is there already and is no socket; check `admin.socket`", path.display()));
        }
        // Whoever answers is another daemon. One that is dead leaves a socket that refuses.
        Ok(_) => match is_served(path) {
            Ok(false) => std::fs::remove_file(path).map_err(trouble)?,
            Ok(true) => {
                return Err(format!(
                    "another daemon serves the admin socket {}; give each its own `admin.socket`",
                    path.display()
                ));
            }
            Err(error) => return Err(trouble(error)),
        },
    }
    let listener = UnixListener::bind(path).map_err(trouble)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(trouble)?;
    Ok(listener)
}

/// Whether somebody listens at a socket. Never waits: whose queue is full is there, however stuck it may be.
fn is_served(path: &Path) -> std::io::Result<bool> {
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

pub(super) async fn converse<F, A>(mut stream: UnixStream, answer: F) -> std::io::Result<()>
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
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
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
        assert!(why.contains("another daemon serves the admin socket"), "{why}");
        drop((stuck, queue));
        bind(&path).expect("a dead daemon's socket is taken over");
    }
}
