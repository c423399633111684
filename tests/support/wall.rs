//! A wall clock of a test's own for the daemon, by libfaketime. It can jump while the daemon runs.

use std::path::{Path, PathBuf};

use fieldbridge::time::Timestamp;

/// A clock that a daemon can be started under.
pub struct Wall {
    file: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Wall {
    /// Its file lies in `folder`. It shows the right time. The monotonic clock is the machine's.
    pub fn new(folder: &Path) -> Wall {
        let mut wall = Wall::with_monotonic(folder);
        wall.environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()));
        wall
    }

    /// The same, and the monotonic clock jumps with it.
    pub fn with_monotonic(folder: &Path) -> Wall {
        // The one for threads: with the other a thread sees what another is about to read.
        let libraries = ["/usr/lib", "/usr/lib64"].into_iter().flat_map(|folder| {
            let folders = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            folders.chain([PathBuf::from(folder)]).map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        });
        let library = libraries.into_iter().find(|path| path.is_file());
        let library =
            library.expect("this test needs libfaketime: install the package faketime, or run scripts/setup.sh tests");
        let file = folder.join("wall-clock");
        let environment = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
        ];
        let wall = Wall { file, environment };
        wall.show_the_right_time();
        wall
    }

    /// What a daemon's environment needs.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// The clock goes on from this time, in seconds since 1970.
    pub fn jump_to(&self, seconds: i64) {
        self.shift(seconds - Timestamp::now().as_secs());
    }

    /// The clock is so many seconds ahead.
    pub fn shift(&self, seconds: i64) {
        // The daemon may read at any moment: the file is never half written.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("a file can be written");
        std::fs::rename(new, &self.file).expect("a file can be renamed");
    }

    /// The words under which a daemon sees a kernel that calls its clock synchronised, or that does not say so. The
    /// daemon is then a child of what is started.
    pub fn kernel(synchronised: bool) -> [&'static str; 10] {
        super::require("strace", "strace");
        // The answer of a synchronised kernel has no bit set.
        let answer = match synchronised {
            true => "inject=adjtimex,clock_adjtime:retval=0",
            false => "inject=adjtimex,clock_adjtime:error=EPERM",
        };
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=adjtimex,clock_adjtime", "-e", answer]
    }

    pub fn show_the_right_time(&self) {
        self.shift(0);
    }
}
