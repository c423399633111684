//! What the service's user may do with a file, judged by owner, group and mode when somebody else looks. Access control
//! lists are not looked at.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The user that the unit runs the daemon as.
pub(super) const SERVICE: &str = "fieldbridge";
/// The group that the unit adds, which serial ports belong to.
const PORTS: &str = "dialout";

/// A user with all of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    uid: u32,
    groups: Vec<u32>,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Read,
    /// Read and write; for a folder, make files in it.
    Change,
}

impl User {
    /// The service's user, if this machine has it.
    pub(super) fn of_the_service() -> Option<User> {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        User::find(&users, &groups)
    }

    /// Reads passwd(5) and group(5).
    fn find(users: &str, groups: &str) -> Option<User> {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let user = users.lines().map(fields).find(|user| user[0] == SERVICE)?;
        let (uid, gid) = (user.get(2)?.parse().ok()?, user.get(3)?.parse().ok()?);
        let others = groups.lines().map(fields).filter_map(|group| {
            let is_member = group.get(3)?.split(',').any(|member| member == SERVICE);
            (is_member || group[0] == PORTS).then(|| group[2].parse().ok()).flatten()
        });
        Some(User { uid, groups: std::iter::once(gid).chain(others).collect() })
    }

    /// Whether it may. The error is a sentence without subject.
    pub(super) fn may(&self, wish: Wish, path: &Path) -> Result<(), String> {
        let real = path.canonicalize().map_err(|error| format!("can't be looked at: {error}"))?;
        for folder in real.ancestors().skip(1) {
            let found = folder.metadata().map_err(|error| format!("can't be looked at: {error}"))?;
            if !self.is_granted(&found, 0o1) {
                return Err(format!("is closed to the user {SERVICE} by the folder {}", folder.display()));
            }
        }
        let found = real.metadata().map_err(|error| format!("can't be looked at: {error}"))?;
        let bits = match wish {
            Wish::Read => 0o4,
            Wish::Change if found.is_dir() => 0o3,
            Wish::Change => 0o6,
        };
        match self.is_granted(&found, bits) {
            true => Ok(()),
            false => Err(format!(
                "is closed to the user {SERVICE} (owner {}, group {}, mode {:04o})",
                found.uid(),
                found.gid(),
                found.mode() & 0o7777
            )),
        }
    }

    /// The first class that fits counts alone (path_resolution(7)).
    fn is_granted(&self, found: &Metadata, bits: u32) -> bool {
        granted(self, found.uid(), found.gid(), found.mode(), bits)
    }
}

fn granted(user: &User, owner: u32, group: u32, mode: u32, bits: u32) -> bool {
    let shift = match () {
        () if user.uid == 0 => return true,
        () if owner == user.uid => 6,
        () if user.groups.contains(&group) => 3,
        () => 0,
    };
    (mode >> shift) & bits == bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_user_is_found_with_its_groups() {
        let users = "root:x:0:0::/root:/bin/sh\nfieldbridge:x:998:997:gateway:/var/lib/fieldbridge:/usr/sbin/nologin\n";
        let groups = "root:x:0:\ndialout:x:20:\nplant:x:50:root,fieldbridge\nother:x:51:root\nbroken\n";
        assert_eq!(User::find(users, groups), Some(User { uid: 998, groups: vec![997, 20, 50] }));
        assert_eq!(User::find("root:x:0:0::/root:/bin/sh\nfieldbridge\n", groups), None);
        assert_eq!(User::find("", ""), None);
    }

    #[test]
    fn owner_group_and_others_are_told_apart() {
        let user = User { uid: 998, groups: vec![997, 20] };
        for (owner, group, mode, bits, is_granted) in [
            (0, 997, 0o640, 0o4, true),
            (0, 0, 0o640, 0o4, false),
            (0, 0, 0o644, 0o4, true),
            (998, 0, 0o400, 0o4, true),
            // The owner's bits count although the group's would do.
            (998, 997, 0o040, 0o4, false),
            (0, 20, 0o660, 0o6, true),
            (0, 20, 0o640, 0o6, false),
            (0, 0, 0o751, 0o1, true),
        ] {
            assert_eq!(granted(&user, owner, group, mode, bits), is_granted, "{owner} {group} {mode:o} {bits:o}");
        }
        assert!(granted(&User { uid: 0, groups: vec![] }, 1, 1, 0, 0o6));
    }
}
