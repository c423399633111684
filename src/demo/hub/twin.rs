//! Device twins: what a back end desires of a device, and what the device reports of itself. No I/O; the time is an
//! argument.
//!
//! Names, limits and versions are those of the devguide's page on device twins, topics those of its page on MQTT.
//!
//! - A patch is merged into what is there, a null removes. Each section has a version, which a patch makes greater by
//!   one; the twin has one as well, and an ETag.
//! - A device hears of what is desired while it is connected and has subscribed on its present connection. Nothing is
//!   kept for later: who comes back asks for all.

use serde_json::{json, Map, Value as Json};

use super::mqtt::{publish_bytes, Step};
use super::options::Fault;
use super::state::{Now, State, Who};
use super::topic::{twin_asked, TwinAsked};
use super::wire::Wire;
use super::SimHub;
use crate::time::Timestamp;

/// The largest section of a twin, in bytes of JSON.
const SECTION_BYTES_MAX: usize = 32 * 1024;
/// How deep objects may be nested.
const DEPTH_MAX: usize = 10;
/// The longest name of a property, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Why a patch is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// It is no patch.
    #[error("{0}")]
    Invalid(String),
    /// The section would be too large.
    #[error("a section of a twin may have 32768 bytes")]
    TooLarge,
    /// There is no such device.
    #[error("DeviceNotFound")]
    UnknownDevice,
    /// The twin has changed since.
    #[error("PreconditionFailed")]
    Changed,
}

impl TwinError {
    /// The status, over MQTT and of the REST call.
    pub fn status(&self) -> u16 {
        match self {
            TwinError::Invalid(_) => 400,
            TwinError::UnknownDevice => 404,
            TwinError::Changed => 412,
            TwinError::TooLarge => 413,
        }
    }

    /// The word in the header `iothub-errorcode`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            TwinError::Invalid(_) => "ArgumentInvalid",
            TwinError::UnknownDevice => "DeviceNotFound",
            TwinError::Changed => "PreconditionFailed",
            TwinError::TooLarge => "RequestEntityTooLarge",
        }
    }
}

/// One half of a twin.
#[derive(Debug, Clone)]
struct Section {
    properties: Map<String, Json>,
    version: u64,
    updated: Timestamp,
}

impl Section {
    fn new() -> Section {
        Section { properties: Map::new(), version: 1, updated: Timestamp(0) }
    }

    /// Merges a patch, and says the version after it.
    fn merge(&mut self, patch: &Json, replaces: bool, now: Timestamp) -> Result<u64, TwinError> {
        let Json::Object(patch) = patch else { return Err(TwinError::Invalid("a patch is an object".into())) };
        check(patch, 1)?;
        let mut merged = if replaces { Map::new() } else { self.properties.clone() };
        merge(&mut merged, patch);
        merged.retain(|name, _| !name.starts_with('$'));
        if Json::Object(merged.clone()).to_string().len() > SECTION_BYTES_MAX {
            return Err(TwinError::TooLarge);
        }
        (self.properties, self.version, self.updated) = (merged, self.version + 1, now);
        Ok(self.version)
    }

    /// As the device gets it.
    fn of_device(&self) -> Json {
        let mut all = Json::Object(self.properties.clone());
        all["$version"] = self.version.into();
        all
    }

    /// As the back end gets it.
    fn of_service(&self) -> Json {
        let mut all = self.of_device();
        all["$metadata"] = json!({"$lastUpdated": self.updated.to_string(), "$lastUpdatedVersion": self.version});
        all
    }
}

fn merge(into: &mut Map<String, Json>, patch: &Map<String, Json>) {
    for (name, value) in patch {
        match (value, into.get_mut(name)) {
            (Json::Null, _) => drop(into.remove(name)),
            (Json::Object(patch), Some(Json::Object(inner))) => merge(inner, patch),
            (value, _) => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

fn check(patch: &Map<String, Json>, depth: usize) -> Result<(), TwinError> {
    let wrong = |why: String| Err(TwinError::Invalid(why));
    if depth > DEPTH_MAX {
        return wrong(format!("objects may be nested {DEPTH_MAX} deep"));
    }
    for (name, value) in patch {
        // What a twin that was read brings with it is passed over.
        let is_own = depth == 1 && ["$version", "$metadata"].contains(&name.as_str());
        let is_bad = name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['.', ' ', '$']);
        if !is_own && (is_bad || name.chars().any(char::is_control)) {
            return wrong(format!("{name:?} is no name of a property"));
        }
        match value {
            Json::Object(inner) if !is_own => check(inner, depth + 1)?,
            Json::String(text) if text.len() > TEXT_BYTES_MAX => {
                return wrong(format!("{name:?} has more than {TEXT_BYTES_MAX} bytes"))
            }
            _ => {}
        }
    }
    Ok(())
}

/// A device's twin.
#[derive(Debug, Clone)]
pub(super) struct Twin {
    desired: Section,
    reported: Section,
    tags: Map<String, Json>,
    version: u64,
}

impl Twin {
    pub fn new() -> Twin {
        Twin { desired: Section::new(), reported: Section::new(), tags: Map::new(), version: 2 }
    }

    fn of_device(&self) -> Json {
        json!({"desired": self.desired.of_device(), "reported": self.reported.of_device()})
    }

    /// As the REST call answers it.
    fn of_service(&self, id: &str, enabled: bool, connected: bool) -> Json {
        json!({
            "deviceId": id,
            "etag": self.etag(),
            "deviceEtag": "NzA4",
            "version": self.version,
            "status": if enabled { "enabled" } else { "disabled" },
            "connectionState": if connected { "Connected" } else { "Disconnected" },
            "authenticationType": "sas",
            "capabilities": {"iotEdge": false},
            "tags": self.tags,
            "properties": {"desired": self.desired.of_service(), "reported": self.reported.of_service()},
        })
    }

    fn etag(&self) -> String {
        format!("AAAAAAAA{:04}=", self.version)
    }
}

impl State {
    /// Changes what is desired of a device, and its tags, and tells the device if it listens. Gives the twin.
    ///
    /// # Errors
    /// The hub does not take the change.
    pub fn update_twin(
        &mut self,
        id: &str,
        patch: &Json,
        (etag, replaces): (Option<&str>, bool),
        now: Now,
    ) -> Result<Json, TwinError> {
        let device = self.devices.get_mut(id).ok_or(TwinError::UnknownDevice)?;
        let twin = &mut device.twin;
        if etag.is_some_and(|etag| etag != "*" && etag.trim_matches('"') != twin.etag()) {
            return Err(TwinError::Changed);
        }
        let (desired, tags) = (&patch["properties"]["desired"], &patch["tags"]);
        let mut changed = Section { properties: twin.tags.clone(), ..Section::new() };
        if !tags.is_null() {
            changed.merge(tags, replaces, now.wall)?;
        }
        if !desired.is_null() {
            let version = twin.desired.merge(desired, replaces, now.wall)?;
            let mut told = if replaces { Json::Object(twin.desired.properties.clone()) } else { desired.clone() };
            told["$version"] = version.into();
            if let Some(link) = device.link.as_mut().filter(|link| link.hears_desired) {
                link.desired.push_back((version, told.to_string()));
            }
        }
        twin.tags = changed.properties;
        twin.version += 1;
        self.wake(id);
        self.twin(id)
    }

    /// A device's twin, as the back end gets it.
    ///
    /// # Errors
    /// There is no such device.
    pub fn twin(&self, id: &str) -> Result<Json, TwinError> {
        let device = self.devices.get(id).ok_or(TwinError::UnknownDevice)?;
        Ok(device.twin.of_service(id, device.enabled, device.link.is_some() || device.receiver.is_some()))
    }

    /// What the hub answers to a request for a device's twin, if it answers; `Err`: it is none of the requests that
    /// there are.
    pub fn on_twin_request(&mut self, who: &Who, topic: &str, body: &[u8], now: Now) -> Result<Option<Step>, ()> {
        let (asked, request) = twin_asked(topic).ok_or(())?;
        let Some(device) = self.devices.get_mut(&who.device) else { return Ok(None) };
        let refused = device.faults.iter().position(|fault| matches!(fault, Fault::RefuseTwin(_)));
        let refused = refused.map(|index| device.faults.remove(index));
        let is_lost = device.take_fault(Fault::LoseTwin);
        let hears = device.link.as_ref().is_some_and(|link| link.hears_twin);
        let done = match (refused, asked) {
            (Some(Fault::RefuseTwin(status)), _) => Err(status),
            (_, TwinAsked::Get) => Ok((200, device.twin.of_device().to_string(), String::new())),
            (_, TwinAsked::Report) => {
                let patch = serde_json::from_slice(body).map_err(|_| 400);
                let merged = patch.and_then(|patch: Json| {
                    device.twin.reported.merge(&patch, false, now.wall).map_err(|error| error.status())
                });
                device.twin.version += u64::from(merged.is_ok());
                merged.map(|version| (204, String::new(), format!("&$version={version}")))
            }
        };
        let (status, body, more) = done.unwrap_or_else(|status| (status, String::new(), String::new()));
        self.log(who, Wire::Twin { what: asked.name().to_owned(), status });
        if is_lost || !hears {
            return Ok(None);
        }
        let topic = format!("$iothub/twin/res/{status}/?$rid={request}{more}");
        Ok(Some(Step::Write(publish_bytes(topic.as_bytes(), None, false, body.as_bytes()))))
    }
}

impl SimHub {
    /// A device's twin, as a back end gets it.
    pub fn twin(&self, device: &str) -> Option<Json> {
        self.look(|state| state.twin(device).ok())
    }

    /// What a device has reported of itself.
    pub fn reported(&self, device: &str) -> Json {
        self.look(|state| {
            state.devices.get(device).map_or(Json::Null, |device| device.twin.reported.properties.clone().into())
        })
    }

    /// Changes what is desired of a device by a patch, and says the version after it.
    ///
    /// # Errors
    /// The hub does not take the patch.
    pub fn desire(&self, device: &str, patch: impl Into<Json>) -> Result<u64, TwinError> {
        let patch = json!({"properties": {"desired": patch.into()}});
        let changed = self.shared.with(|state| state.update_twin(device, &patch, (None, false), Now::read()))?;
        Ok(changed["properties"]["desired"]["$version"].as_u64().unwrap_or_default())
    }

    /// Whether a device is connected and hears of what is desired.
    pub fn hears_desired(&self, device: &str) -> bool {
        self.look(|state| state.devices.get(device).and_then(|d| d.link.as_ref()).is_some_and(|l| l.hears_desired))
    }

    /// Begins a device's twin anew, as when the device is registered anew.
    pub fn forget_twin(&self, device: &str) {
        self.shared.with(|state| {
            state.devices.get_mut(device).into_iter().for_each(|device| device.twin = Twin::new());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_merged_a_null_removes_and_the_version_grows() {
        let mut section = Section::new();
        let now = Timestamp(0);
        assert_eq!(section.merge(&json!({"a": 1, "b": {"c": 1, "d": [1]}}), false, now), Ok(2));
        assert_eq!(section.merge(&json!({"a": null, "b": {"c": null, "e": "x"}, "$version": 9}), false, now), Ok(3));
        assert_eq!(section.of_device(), json!({"b": {"d": [1], "e": "x"}, "$version": 3}));
        assert_eq!(section.merge(&json!({"z": 0}), true, now), Ok(4));
        assert_eq!(section.of_device(), json!({"z": 0, "$version": 4}));
    }

    #[test]
    fn names_depths_and_sizes_have_their_limits() {
        let merged = |patch: Json| Section::new().merge(&patch, false, Timestamp(0)).map_err(|error| error.status());
        assert_eq!(merged(json!({"speed_2-x": 1})), Ok(2));
        for wrong in [json!([1]), json!({"a.b": 1}), json!({"a b": 1}), json!({"$a": 1}), json!({"": 1})] {
            assert_eq!(merged(wrong.clone()), Err(400), "{wrong}");
        }
        let deep = |depth| (1..depth).fold(json!({"a": 1}), |inner, _| json!({ "a": inner }));
        assert_eq!((merged(deep(DEPTH_MAX)), merged(deep(DEPTH_MAX + 1))), (Ok(2), Err(400)));
        assert_eq!(merged(json!({"a": "x".repeat(TEXT_BYTES_MAX + 1)})), Err(400));
        let many: Json =
            (0..9).map(|at| (at.to_string(), json!("x".repeat(TEXT_BYTES_MAX)))).collect::<Map<_, _>>().into();
        assert_eq!(merged(many), Err(413));
    }
}
