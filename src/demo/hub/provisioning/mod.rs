//! The Device Provisioning Service, at the ports and under the name of the hub that it assigns devices to: which are
//! enrolled, and what becomes of their registrations. No I/O.
//!
//! Written from the service's documentation and from Microsoft's clients, which work against it
//! (`tests/hub/sdk_agreement/provisioning.rs`). Not modelled: TPMs, custom allocation, certificates by signing
//! requests, policies of provisioning anew (a device that is registered again is assigned to what its enrollment says
//! now).

pub(super) mod https;
pub(super) mod mqtt;
pub(super) mod service;

use base64::prelude::{Engine, BASE64_STANDARD};
use ring::hmac;
use serde_json::{json, Value as Json};

use self::service::Operation;
pub use self::service::{Enrollment, Outcome};
use super::auth::{Auth, Proof};
use super::state::{new_key, Now, State};
use super::{ClientCert, SimHub};

/// Seconds after which a device is to ask again.
const RETRY_AFTER: u32 = 1;
/// Operations that are remembered.
const OPERATIONS_MAX: usize = 1000;

/// An answer: a status as in HTTP, after how many seconds to ask again, and what is said.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub retry_after: Option<u32>,
    pub body: Json,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Register,
    Look { operation: String },
}

impl Reply {
    fn failed(status: u16, code: u32, message: &str) -> Reply {
        let retry_after = (status == 429).then_some(RETRY_AFTER);
        Reply { status, retry_after, body: json!({ "errorCode": code, "trackingId": "0", "message": message }) }
    }
}

impl State {
    /// Whether who registers under this id in this scope has shown who it is.
    pub(super) fn knows_registrant(&self, scope: &str, id: &str, proof: &Proof<'_>, now: Now) -> Result<(), String> {
        if scope != self.options.id_scope {
            return Err(format!("no id scope {scope:?}"));
        }
        let registration = id.to_lowercase();
        let by_key = |key: &[u8]| {
            let audience = format!("{scope}/registrations/{id}");
            super::auth::check_registration(&audience, proof.token, key, &self.options, now.wall)
        };
        match self.service.enrollments.get(&registration).map(|enrollment| &enrollment.auth) {
            Some(Auth::Key(key)) => by_key(key),
            Some(auth) => super::auth::check_proof(auth, id, proof, &self.options, now.wall).map(drop),
            None => {
                let keys = self.service.groups.iter().map(|group| derived(group, id));
                let known = keys.into_iter().find_map(|key| by_key(&key).ok());
                known.ok_or_else(|| format!("no enrollment for {id:?}"))
            }
        }
    }

    /// Answers to who has shown who it is.
    pub(super) fn provision(&mut self, id: &str, asked: &Asked) -> Reply {
        if self.service.throttles {
            return Reply::failed(429, 429_001, "Too many requests");
        }
        let polls = self.options.registration_polls;
        let service = &mut self.service;
        let operation = match asked {
            Asked::Register => {
                service.last_operation += 1;
                let operation = format!("5.{:016x}", service.last_operation);
                if service.operations.len() >= OPERATIONS_MAX {
                    service.operations.pop_first();
                }
                let registration = id.to_owned();
                service.operations.insert(operation.clone(), Operation { registration, left: polls });
                return assigning(&operation);
            }
            Asked::Look { operation } => operation,
        };
        let known = service.operations.get_mut(operation).filter(|known| known.registration == id);
        let Some(known) = known else { return Reply::failed(404, 404_202, "Operation not found") };
        if known.left > 0 {
            known.left -= 1;
            return assigning(operation);
        }
        self.conclude(id, operation)
    }

    /// What a registration has come to.
    fn conclude(&mut self, id: &str, operation: &str) -> Reply {
        let enrollment = self.service.enrollments.get(&id.to_lowercase()).cloned();
        let enrollment = enrollment.or_else(|| {
            let group = self.service.groups.first()?;
            Some(Enrollment::new(Auth::Key(derived(group, id))))
        });
        let Some(enrollment) = enrollment else { return Reply::failed(404, 404_201, "Registration not found") };
        let mut registration = json!({ "registrationId": id, "createdDateTimeUtc": "2026-01-01T00:00:00Z" });
        let status = match enrollment.outcome {
            Outcome::Assigned => {
                let device = enrollment.device.unwrap_or_else(|| id.to_owned());
                let hub = enrollment.hub.unwrap_or_else(|| self.options.host.clone());
                if hub == self.options.host {
                    self.add_device(&device, enrollment.auth);
                }
                registration["assignedHub"] = hub.into();
                registration["deviceId"] = device.into();
                registration["substatus"] = "initialAssignment".into();
                "assigned"
            }
            Outcome::Failed => {
                registration["errorCode"] = 400_209.into();
                registration["errorMessage"] = "Custom allocation failed; no hub is linked".into();
                "failed"
            }
            Outcome::Disabled => "disabled",
        };
        registration["status"] = status.into();
        if let Some(profile) = enrollment.profile {
            registration["connectionProfile"] = profile.into();
        }
        let body = json!({ "operationId": operation, "status": status, "registrationState": registration });
        Reply { status: 200, retry_after: None, body }
    }
}

fn assigning(operation: &str) -> Reply {
    let body = json!({ "operationId": operation, "status": "assigning" });
    Reply { status: 202, retry_after: Some(RETRY_AFTER), body }
}

/// The key of a device of a group: HMAC-SHA256 of its registration id.
fn derived(group: &[u8], id: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, group), id.as_bytes()).as_ref().to_vec()
}

impl SimHub {
    /// Lets a device register, or changes what becomes of its registration.
    pub fn enroll(&self, registration_id: &str, enrollment: Enrollment) {
        self.shared.with(|state| state.service.enrollments.insert(registration_id.to_lowercase(), enrollment));
    }

    /// Lets a device register with a key of its own, and gives the key in base64.
    pub fn enroll_key(&self, registration_id: &str) -> String {
        let key = new_key();
        let encoded = BASE64_STANDARD.encode(&key);
        self.enroll(registration_id, Enrollment::new(Auth::Key(key)));
        encoded
    }

    /// Lets a device register with a certificate, which is made for it.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn enroll_cert(&self, registration_id: &str) -> std::io::Result<ClientCert> {
        let cert = self.issue_client_cert(registration_id)?;
        self.enroll(registration_id, Enrollment::new(Auth::Thumbprints(vec![cert.thumbprint.clone()])));
        Ok(cert)
    }

    /// Lets every device register whose key is derived from a group's, and gives the group's in base64.
    pub fn enroll_group(&self) -> String {
        let key = new_key();
        let encoded = BASE64_STANDARD.encode(&key);
        self.shared.with(|state| state.service.groups = vec![key]);
        encoded
    }

    /// From now on every registration is answered that there are too many, or not.
    pub fn throttle_registrations(&self, throttles: bool) {
        self.shared.with(|state| state.service.throttles = throttles);
    }

    /// Takes a device out of the hub's registry, and ends its connection.
    pub fn remove_device(&self, device: &str) {
        self.set_enabled(device, false);
        self.shared.with(|state| state.devices.remove(device));
    }

    /// How often a device has asked to be registered.
    pub fn registrations(&self, registration_id: &str) -> usize {
        let is_one = |event: &super::WireEvent| {
            let is_asked = matches!(&event.what, super::Wire::Request { what, .. } if what == https::REGISTER);
            is_asked && event.device == registration_id
        };
        self.wire().iter().filter(|event| is_one(event)).count()
    }
}
