//! What a program says, within bounds of size and time.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is kept of its complaints.
const COMPLAINTS_MAX: usize = 2 << 10;

/// What it has said.
pub(super) struct Said {
    /// The last of its standard output.
    pub(super) output: Vec<u8>,
    /// Whether something was cut off before that.
    pub(super) is_cut: bool,
    /// What it complained of; empty where it did not.
    pub(super) complaint: String,
}

/// Runs a program to its end, and keeps the last `most` bytes of what it prints.
///
/// # Errors
/// A sentence: it is not there, or takes too long.
pub(super) fn said(program: &str, args: &[String], most: usize) -> Result<Said, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What is read is for whoever looks at it anywhere.
    command.env("LC_ALL", "C.UTF-8").env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0");
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program} can't be run: {error}"),
    })?;
    let (tell, told) = channel();
    let streams = (child.stdout.take(), child.stderr.take());
    let (Some(output), Some(complaint)) = streams else { return Err(format!("{program} has no output")) };
    let readers: [(usize, Box<dyn Read + Send>, usize); 2] =
        [(0, Box::new(output), most), (1, Box::new(complaint), COMPLAINTS_MAX)];
    for (which, stream, most) in readers {
        let tell = tell.clone();
        thread::spawn(move || drop(tell.send((which, last_of(stream, most)))));
    }
    drop(tell);
    let end = Instant::now() + PATIENCE;
    let mut parts = [(Vec::new(), false), (Vec::new(), false)];
    for _ in 0..parts.len() {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((which, part)) => parts[which] = part,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} took longer than {} s", PATIENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
    let [(output, is_cut), (complaint, _)] = parts;
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    let complaint = match status.success() {
        true => complaint,
        false => format!("{complaint} ({status})").trim_start().to_owned(),
    };
    Ok(Said { output, is_cut, complaint })
}

/// The last bytes of a stream, and whether there were more.
fn last_of(mut stream: Box<dyn Read + Send>, most: usize) -> (Vec<u8>, bool) {
    let (mut kept, mut buffer, mut is_cut) = (Vec::new(), [0; 8 << 10], false);
    // A stream that breaks has ended, too.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * most {
            kept.drain(..kept.len() - most);
            is_cut = true;
        }
    }
    if kept.len() > most {
        kept.drain(..kept.len() - most);
        is_cut = true;
    }
    (kept, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_story_is_kept() {
        let (kept, is_cut) =
            last_of(Box::new(io::Cursor::new((0..=255).cycle().take(100_000).collect::<Vec<u8>>())), 100);
        assert!(is_cut && kept.len() == 100 && kept.last() == Some(&u8::try_from(99_999 % 256).unwrap()));
        assert_eq!(last_of(Box::new(io::Cursor::new(b"all".to_vec())), 3), (b"all".to_vec(), false));
    }

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told() {
        let run = |script: &str| said("sh", &["-c".to_owned(), script.to_owned()], 100);
        let told = run("echo out; echo no >&2; exit 3").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((told.output.as_slice(), told.complaint.as_str()), (&b"out\n"[..], "no (exit status: 3)"));
        assert_eq!(run("echo out").unwrap_or_else(|why| panic!("{why}")).complaint, "");
        let why = said("/nowhere/program", &[], 1).err().unwrap();
        assert!(why.contains("is not installed"), "{why}");
    }
}
