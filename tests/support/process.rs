//! What the system knows of a process: memory, handles, threads, processor time. And a child that does not outlive its
//! test.

use std::process::Child;
use std::time::Duration;

/// A child that is killed when it is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Clock ticks a second in /proc, on every Linux.
const TICKS: u32 = 100;

/// What a process takes at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Resident memory now and at its highest, in kB.
    pub resident: u64,
    pub peak: u64,
    pub handles: usize,
    pub threads: u64,
    /// Processor time so far, in the program and in the kernel for it.
    pub cpu: Duration,
}

impl Figures {
    /// Of a process that is running.
    pub fn of(pid: u32) -> Figures {
        let status = read(&format!("/proc/{pid}/status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a status has it");
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("it is a number")
        };
        Figures {
            resident: field("VmRSS"),
            peak: field("VmHWM"),
            threads: field("Threads"),
            handles: std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process has handles").count(),
            cpu: cpu(&read(&format!("/proc/{pid}/stat"))),
        }
    }
}

/// Processor time of this process's threads whose name begins so.
pub fn cpu_of_threads(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a process has threads");
    tasks
        .flatten()
        // A thread may have ended by now.
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with(name)))
        .map(|stat| cpu(&stat))
        .sum()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `utime` and `stime` of a stat line; the name before them may have spaces and ends with the last bracket.
fn cpu(stat: &str) -> Duration {
    let (_, fields) = stat.rsplit_once(") ").expect("a stat line has a name");
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number")).sum();
    Duration::from_secs(1) * ticks / TICKS
}
