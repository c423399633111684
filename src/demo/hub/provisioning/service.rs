//! What the Device Provisioning Service knows: who is enrolled, and which registrations are under way. No I/O.

use std::collections::BTreeMap;

use crate::demo::hub::auth::Auth;

/// A device that may register.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// How it proves who it is, here and at the hub.
    pub auth: Auth,
    /// The hub that it is assigned to; `None`: this one, which makes it then.
    pub hub: Option<String>,
    /// Its id at the hub; `None`: its registration id.
    pub device: Option<String>,
    /// What a registration comes to.
    pub outcome: Outcome,
    /// `connectionProfile` of what is answered, if it has one.
    pub profile: Option<String>,
}

/// What a registration comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The device is assigned to its hub.
    #[default]
    Assigned,
    /// It fails, for want of a hub.
    Failed,
    /// The enrollment is disabled.
    Disabled,
}

impl Enrollment {
    /// For this hub, under the registration id.
    pub fn new(auth: Auth) -> Enrollment {
        Enrollment { auth, hub: None, device: None, outcome: Outcome::Assigned, profile: None }
    }
}

/// A registration under way.
#[derive(Debug)]
pub(in crate::demo::hub) struct Operation {
    pub(super) registration: String,
    /// How often it is answered still that it is not over.
    pub(super) left: u32,
}

/// What the service knows.
#[derive(Debug, Default)]
pub(in crate::demo::hub) struct Service {
    /// By registration id, in lower case.
    pub(super) enrollments: BTreeMap<String, Enrollment>,
    /// Keys of groups.
    pub(super) groups: Vec<Vec<u8>>,
    /// By id, in the order of their making.
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) last_operation: u64,
    /// Until it is told otherwise it answers 429.
    pub(super) throttles: bool,
}
