//! `fieldbridge check`: what is wrong, suspicious or worth a look, in the files and with `--live` in the world.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{interval, Instant};

use super::{environment, print, print_error, status, to_its_end};
use crate::config::{self, Loaded, Problem, Refused, Severity};
use crate::doctor::{self, Finding, Verdict};
use crate::exit::Exit;
use crate::operate::text::{Page, Tone};
use crate::systemd;

/// Of what is alike, so many are told one by one.
const ALIKE_MAX: usize = 3;
/// How often it is told on a terminal for how long has been waited.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

pub(super) fn check(path: &Path, json: bool) -> Result<(), Exit> {
    systemd::seclude();
    let loaded = load(path, json, Problem::to_json, doctor::refusals)?;
    let mut remarks = loaded.notes.clone();
    remarks.extend(doctor::around(&loaded));
    remarks.extend(doctor::dates(&loaded));
    if json {
        print(&document(true, &loaded.files, remarks.iter().map(Problem::to_json).collect()).to_string());
        return Ok(());
    }
    tell(&remarks);
    let config = loaded.config;
    let of = |severity| remarks.iter().filter(|remark| remark.severity == severity).count();
    let beside = match (of(Severity::Warning), of(Severity::Note)) {
        (0, 0) => String::new(),
        (warnings, notes) => {
            format!(" ({}, {})", counted(warnings, "warning", "warnings"), counted(notes, "note", "notes"))
        }
    };
    let hub = match (&config.provisioning, config.hub.host.as_str()) {
        (Some(service), "") => format!("hubs as {} assigns them", service.host),
        (_, host) => format!("hub {host}"),
    };
    let told = format!(
        "the configuration is good: {} on {}, {hub}{beside}",
        counted(config.devices.len(), "device", "devices"),
        counted(config.buses.len(), "bus", "buses"),
    );
    print(&status::page().paint(Tone::Good, &told));
    Ok(())
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

pub(super) fn check_live(path: &Path, json: bool) -> Result<(), Exit> {
    systemd::seclude();
    let loaded = load(path, json, doctor::problem_to_json, |_| Vec::new())?;
    let mut remarks = loaded.notes.clone();
    remarks.extend(doctor::around(&loaded));
    let (files, origins) = (loaded.files.clone(), loaded.origins.clone());
    let (page, progress) = (status::page(), Progress::new(json));
    if !json {
        tell(&remarks);
    }
    let tell = |part: &[Finding]| {
        if !json {
            progress.clear();
            together(part, page).iter().for_each(|line| print(line));
        }
    };
    let found = to_its_end(progress.beside(doctor::check(loaded, tell)))?;
    let of = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
    let failed = of(Verdict::Fail);
    if json {
        let remarks = remarks.iter().map(doctor::problem_to_json);
        let all = remarks.chain(found.iter().map(|finding| finding.to_json_at(&origins))).collect();
        print(&document(failed == 0, &files, all).to_string());
    } else if failed == 0 {
        let (ok, warned) = (of(Verdict::Ok), of(Verdict::Warn));
        let told = format!("{}: {ok} ok, {warned} to look at", counted(found.len(), "check", "checks"));
        print(&page.paint(if warned == 0 { Tone::Good } else { Tone::Doubtful }, &told));
    }
    match failed {
        0 => Ok(()),
        _ => Err(Exit::No(format!("{failed} of {} checks failed", found.len()))),
    }
}

/// Loads what is to be checked, and asks `refusals` about it. With `json` its errors are printed as the document that
/// is asked for.
fn load(
    path: &Path,
    json: bool,
    to_json: fn(&Problem) -> Json,
    refusals: fn(&Loaded) -> Vec<Problem>,
) -> Result<Loaded, Exit> {
    let Refused { problems, notes, files } = match config::load_telling(path, environment()) {
        Ok(loaded) => match refusals(&loaded) {
            problems if problems.is_empty() => return Ok(loaded),
            problems => Refused { problems, notes: loaded.notes, files: loaded.files },
        },
        Err(refused) => refused,
    };
    if json {
        let all = problems.iter().chain(&notes).map(to_json).collect();
        print(&document(false, &files, all).to_string());
    } else {
        tell(&notes);
    }
    Err(Exit::Config(problems))
}

/// What `check --json` prints.
fn document(ok: bool, files: &[PathBuf], findings: Vec<Json>) -> Json {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    serde_json::json!({ "ok": ok, "files": files, "findings": findings })
}

/// Tells of remarks, a few of each kind.
fn tell(remarks: &[Problem]) {
    let colour = std::io::stderr().is_terminal() && status::page().colour;
    let page = Page { colour, ..Page::default() };
    let kind = |remark: &Problem| (remark.severity.as_str(), alike(&remark.key), alike(&remark.complaint.to_string()));
    for (remark, more) in few_of_each(remarks, kind) {
        let tone = if remark.severity == Severity::Note { Tone::Strong } else { Tone::Doubtful };
        let severity = remark.severity.as_str();
        print_error(&format!("{}: {remark}", page.paint(tone, severity)));
        if more > 0 {
            print_error(&format!("{severity}: and {more} more like these; --json has each"));
        }
    }
}

/// Some of each kind, in their order; the last of a kind with how many more there are.
fn few_of_each<T, K: PartialEq>(all: &[T], kind: impl Fn(&T) -> K) -> Vec<(&T, usize)> {
    let mut kinds: Vec<(K, usize)> = Vec::new();
    for one in all {
        let of = kind(one);
        match kinds.iter_mut().find(|(other, _)| *other == of) {
            Some((_, count)) => *count += 1,
            None => kinds.push((of, 1)),
        }
    }
    let mut told = vec![0; kinds.len()];
    let mut few = Vec::new();
    for one in all {
        let of = kind(one);
        let Some(at) = kinds.iter().position(|(other, _)| *other == of) else { continue };
        told[at] += 1;
        if told[at] <= ALIKE_MAX {
            let more = if told[at] == ALIKE_MAX { kinds[at].1 - ALIKE_MAX } else { 0 };
            few.push((one, more));
        }
    }
    few
}

/// A sentence without the names and the numbers by which those of one cause differ.
fn alike(sentence: &str) -> String {
    let mut out = String::new();
    let mut is_quoted = false;
    for word in sentence.split_inclusive(['"', ' ', '.']) {
        let differs = is_quoted || word.contains(|c: char| c.is_ascii_digit());
        out.push_str(if differs { "#" } else { word });
        is_quoted ^= word.ends_with('"');
    }
    out
}

/// What was found of one part, a line each: what is alike together.
fn together(part: &[Finding], page: Page) -> Vec<String> {
    let kind = |finding: &Finding| {
        let (kind, name) = finding.about.split_once(' ').unwrap_or((&finding.about, ""));
        let said = format!("{}; {}", finding.said, finding.remedy.as_deref().unwrap_or_default());
        let said = if name.is_empty() { said } else { said.replace(name, "#") };
        (finding.verdict, kind.to_owned(), said)
    };
    let mut groups: Vec<(_, Vec<&Finding>)> = Vec::new();
    for finding in part {
        let of = kind(finding);
        match groups.iter_mut().find(|(other, _)| *other == of) {
            Some((_, group)) => group.push(finding),
            None => groups.push((of, vec![finding])),
        }
    }
    let line = |finding: &Finding| {
        let text = finding.to_string();
        let tone = match finding.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Warn => Tone::Doubtful,
            Verdict::Fail => Tone::Bad,
        };
        match text.split_once(' ') {
            Some((word, rest)) => format!("{} {rest}", page.paint(tone, word)),
            None => text,
        }
    };
    let lines = groups.into_iter().flat_map(|(_, group)| match group.len() {
        0..=ALIKE_MAX => group.into_iter().map(line).collect::<Vec<_>>(),
        many => {
            let names: Vec<&str> = group
                .iter()
                .take(ALIKE_MAX)
                .map(|one| one.about.split_once(' ').map_or("", |(_, name)| name))
                .collect();
            let kind = group[0].about.split(' ').next().unwrap_or_default();
            let about = format!("{kind} {} and {} more", names.join(", "), many - ALIKE_MAX);
            vec![line(&Finding { about, ..group[0].clone() })]
        }
    });
    lines.collect()
}

/// On a terminal: for how long has been waited.
struct Progress {
    is_shown: bool,
    stands: Cell<bool>,
}

impl Progress {
    fn new(json: bool) -> Progress {
        Progress { is_shown: !json && std::io::stderr().is_terminal(), stands: Cell::new(false) }
    }

    /// Takes the line away that tells.
    fn clear(&self) {
        if self.stands.take() {
            // To the beginning of the line, and clear it (ECMA-48, 8.3.41).
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    async fn beside<T>(&self, work: impl std::future::Future<Output = T>) -> T {
        let begun = Instant::now();
        let mut ticks = interval(PROGRESS_PERIOD);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.clear();
                    return done;
                }
                _ = ticks.tick(), if self.is_shown => {
                    self.stands.set(true);
                    let seconds = begun.elapsed().as_secs();
                    let _ = write!(std::io::stderr(), "\r\x1b[Ktrying buses, peripherals and the hub … {seconds} s");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict, about: &str, said: &str) -> Finding {
        Finding { verdict, about: about.into(), said: said.into(), remedy: None }
    }

    #[test]
    fn sixty_failures_of_one_cause_are_one_line_and_a_few_are_a_line_each() {
        let part: Vec<Finding> = (0..60)
            .map(|n| finding(Verdict::Fail, &format!("identity d-{n:02}"), &format!("no \"d-{n:02}\"")))
            .collect();
        let lines = together(&part, Page::default());
        assert_eq!(lines, ["FAIL  identity d-00, d-01, d-02 and 57 more: no \"d-00\""]);
        assert_eq!(together(&part[..3], Page::default()).len(), 3);
        let other = finding(Verdict::Ok, "clock", "right");
        assert_eq!(together(&[part[0].clone(), other], Page::default())[1], "ok    clock: right");
    }

    #[test]
    fn of_sixty_remarks_of_one_kind_three_are_told_and_how_many_more_there_are() {
        let remarks: Vec<String> = (0..60).map(|n| format!("unit {n} is also of \"d-{n}\"")).collect();
        let few = few_of_each(&remarks, |remark| alike(remark));
        assert_eq!(few.iter().map(|(_, more)| *more).collect::<Vec<_>>(), [0, 0, 57]);
        let two = ["port is not there".to_owned(), "name is empty".to_owned()];
        assert_eq!(few_of_each(&two, |remark| alike(remark)).len(), 2);
    }
}
