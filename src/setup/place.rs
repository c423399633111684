//! Where a first configuration goes. It gets its name when it has been checked, and only if the name is free.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{chown, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::text::Draft;
use crate::config;
use crate::exit::Exit;

/// What the package installs, with no hub in it.
const INSTALLED: &str = include_str!("../../config/fieldbridge.toml");
/// The group of the service.
const GROUP: &str = "fieldbridge";
/// The configuration holds no secret, and the service's user must read it whoever has written it.
pub(super) const CONFIGURATION_MODE: u32 = 0o644;

/// A place that is free, or holds only what the package has installed.
pub(super) struct Place {
    path: PathBuf,
    folder: PathBuf,
    is_installed: bool,
}

impl Place {
    /// Looks whether a configuration may be written there. The error is a sentence.
    pub(super) fn free(path: &Path) -> Result<Place, String> {
        let path = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_installed = match fs::read(&path) {
            Ok(text) if text == INSTALLED.as_bytes() => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => false,
            _ => {
                let path = path.display();
                return Err(format!("{path} is there already, and is not overwritten; give another --output"));
            }
        };
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Place { path, folder, is_installed })
    }

    /// Writes configuration and key. Returns what was made.
    pub(super) fn write(&self, draft: &Draft, key: Option<String>) -> Result<Vec<PathBuf>, Exit> {
        let trouble = |path: &Path, error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run this with sudo",
                io::ErrorKind::AlreadyExists => "; move it away, or name it by --key-file",
                _ => "",
            };
            Exit::No(format!("{} can't be written: {error}{hint}", path.display()))
        };
        let mut made = Vec::new();
        if let Some(key) = &key {
            let path = self.folder.join(draft.key_file());
            if !is_plain(&draft.device) {
                return Err(Exit::No(no_file_after(&draft.device)));
            }
            write_key(&path, key).map_err(|error| trouble(&path, error))?;
            made.push(path);
        }
        let named = self.write_configuration(draft).map_err(|failed| match failed {
            Failed::Io(error) => trouble(&self.path, error),
            Failed::Wrong(problems) => Exit::Config(problems),
        });
        if let Err(exit) = named {
            made.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(exit);
        }
        made.push(self.path.clone());
        Ok(made)
    }

    fn write_configuration(&self, draft: &Draft) -> Result<(), Failed> {
        let new = self.path.with_extension("toml.new");
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        let done = file.write_all(draft.text(&self.folder).as_bytes()).and_then(|()| file.sync_all());
        let done = done.and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(CONFIGURATION_MODE)));
        let named = done.map_err(Failed::Io).and_then(|()| {
            config::load(&new, config::shipped::elsewhere()).map_err(|problems| {
                let own = |mut problem: config::Problem| {
                    problem.source = problem.source.replace(".toml.new", ".toml");
                    problem
                };
                Failed::Wrong(problems.into_iter().map(own).collect())
            })?;
            // A link is refused where a name has been given meanwhile; renaming would overwrite.
            match self.is_installed {
                true => Ok(fs::rename(&new, &self.path)?),
                false => Ok(fs::hard_link(&new, &self.path)?),
            }
        });
        let _ = fs::remove_file(&new);
        named
    }
}

enum Failed {
    Io(io::Error),
    Wrong(Vec<config::Problem>),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Io(error)
    }
}

/// A key's file is named after its device.
pub(super) fn is_plain(device: &str) -> bool {
    !device.starts_with('.') && device.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c))
}

/// That none can be.
pub(super) fn no_file_after(device: &str) -> String {
    format!("no file can be named after the device id {device:?}; put its key into a file, and name that by --key-file")
}

/// A new file that only its owner reads and, if root writes it where the service is installed, the service's group.
pub(super) fn write_key(path: &Path, key: &str) -> io::Result<()> {
    let group = service_group().filter(|_| rustix::process::geteuid().is_root());
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::create_dir_all(folder)?;
        own(folder, group, 0o750, 0o700)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{key}\n").as_bytes())?;
    file.sync_all()?;
    own(path, group, 0o640, 0o600)
}

fn own(path: &Path, group: Option<u32>, shared: u32, alone: u32) -> io::Result<()> {
    if let Some(group) = group {
        chown(path, None, Some(group))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(if group.is_some() { shared } else { alone }))
}

fn service_group() -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields[0] == GROUP)?.get(2)?.parse().ok()
}
