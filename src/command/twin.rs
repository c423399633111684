//! A device's twin, free of its transport: what is desired of the device, which are set points, and how it is told what
//! became of them.
//!
//! Source: "Understand and use device twins in IoT Hub" (Microsoft) for the two sections and their versions, the
//! conventions of IoT Plug and Play for what an acknowledgement looks like: `value`, `ac`, `av`, `ad`.
//!
//! Invariants
//! - Any bytes give a [`Twin`] or [`Desired`], or a sentence about what is wrong; nothing here panics, and what is kept
//!   is bounded.
//! - What nobody has a command for is not looked at: no name that comes from the hub selects anything that the
//!   configuration does not name (G14).
//! - A set point's message id is its name and the version of the section that it stood in, so that who asks for the
//!   same again after a crash finds the row of the first time.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde_json::{json, Map, Value as Json};

use super::envelope::Envelope;
use super::excerpt::truncated;
use super::message::{check_shape, shrunk, Digest, Gist, COMMAND_BYTES_MAX};
use super::method::{normal, status};
use super::outcome::{bounded, in_short, Fault, Outcome};

/// Largest twin that is read: both sections have 32 KiB at most, and some around them and in them.
pub const TWIN_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a desired property that can be configured, bytes: the hub takes message ids of up to 128 characters.
pub const NAME_BYTES_MAX: usize = 64;
/// The property that tells of the gateway itself, and is no set point's.
pub const GATEWAY: &str = "fieldbridge";
/// The status of what is done, and of what is not over.
const DONE: u16 = 200;
const UNDER_WAY: u16 = 202;
/// Longest sentence of an acknowledgement, bytes.
const SENTENCE_BYTES_MAX: usize = 512;

/// What a back end desires of a device, as far as there are commands for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The version of the section.
    pub version: u64,
    /// By name. Null: it is desired no more.
    pub values: BTreeMap<String, Json>,
}

/// A whole twin, as far as there are commands for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Twin {
    /// What is desired.
    pub desired: Desired,
    /// What the device has reported before, by name, with [`GATEWAY`].
    pub reported: BTreeMap<String, Json>,
}

impl Desired {
    /// Of a notification that it has changed: what is in there has. `is_known`: whether there is a command for a name.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn read(body: &[u8], is_known: impl Fn(&str) -> bool) -> Result<Desired, String> {
        Desired::of(object(body)?, is_known)
    }

    fn of(section: Map<String, Json>, is_known: impl Fn(&str) -> bool) -> Result<Desired, String> {
        let version = section.get("$version").and_then(Json::as_u64);
        let version = version.ok_or("its desired properties have no $version that is a number")?;
        let values = section.into_iter().filter(|(name, _)| is_known(name)).collect();
        Ok(Desired { version, values })
    }
}

impl Twin {
    /// Of a whole twin.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn read(body: &[u8], is_known: impl Fn(&str) -> bool) -> Result<Twin, String> {
        let mut whole = object(body)?;
        let Some(Json::Object(desired)) = whole.remove("desired") else {
            return Err("it has no object of desired properties".into());
        };
        let reported = match whole.remove("reported") {
            Some(Json::Object(reported)) => reported,
            _ => Map::new(),
        };
        let reported = reported.into_iter().filter(|(name, _)| name == GATEWAY || is_known(name)).collect();
        Ok(Twin { desired: Desired::of(desired, is_known)?, reported })
    }
}

fn object(body: &[u8]) -> Result<Map<String, Json>, String> {
    if body.len() > TWIN_BYTES_MAX {
        return Err(format!("it has {} bytes, and at most {TWIN_BYTES_MAX} are read", body.len()));
    }
    match serde_json::from_slice(body) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err("it is no JSON object".into()),
        Err(error) => Err(format!("it is no JSON ({error})")),
    }
}

/// The name of a value that is desired for a command, and in which version of the section it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The property's name.
    pub name: String,
    /// The version.
    pub version: u64,
}

impl Wanted {
    /// The id under which the ledger keeps it.
    pub fn message_id(&self) -> String {
        format!("desired:{}:{}", self.name, self.version)
    }

    /// What is kept of it while it waits for its command to be done. `mark`: of the twin that it stands in, by which
    /// it is told from the same in another, whose versions are the same.
    pub fn condense(&self, command: &str, value: Json, mark: &str) -> Gist {
        let fault = check_shape(&value).err();
        let digest = self.digest(command, &value, mark);
        let value = Some(if fault.is_some() { bounded(value) } else { shrunk(value) });
        Gist {
            id: Some(self.message_id()),
            digest,
            command: Some(truncated(command, COMMAND_BYTES_MAX).to_owned()),
            value,
            fault,
            expires_at: None,
            unread_expiry: None,
            envelope: Envelope::default(),
        }
    }

    /// The digest of what it asks for, which no message and no call has.
    fn digest(&self, command: &str, value: &Json, mark: &str) -> Digest {
        let mut context = Context::new(&SHA256);
        // A message's begins with the length of a name or the largest number, a call's with the one below.
        context.update(&(u64::MAX - 2).to_be_bytes());
        context.update(&(command.len() as u64).to_be_bytes());
        context.update(command.as_bytes());
        context.update(&(mark.len() as u64).to_be_bytes());
        context.update(mark.as_bytes());
        context.update(normal(value).to_string().as_bytes());
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// What became of a set point, for whoever desires it.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledgement {
    /// The value that was asked for; a bounded piece of it, if it is no command's.
    pub value: Json,
    /// As the status of an answer to a direct method.
    pub status: u16,
    /// In which version of the desired properties it stood.
    pub version: u64,
    /// The same for a person.
    pub sentence: String,
}

impl Acknowledgement {
    /// That its command has ended so, which is durable.
    pub fn ended(outcome: &Outcome, value: Json, version: u64) -> Acknowledgement {
        let sentence = match &outcome.fault {
            Some(Fault { message, .. }) => truncated(message, SENTENCE_BYTES_MAX).to_owned(),
            None => "done".to_owned(),
        };
        Acknowledgement { value: told(value), status: status(outcome), version, sentence }
    }

    /// That its command is not over.
    pub fn under_way(value: Json, version: u64) -> Acknowledgement {
        let sentence = "it waits for its turn, or is being done".to_owned();
        Acknowledgement { value: told(value), status: UNDER_WAY, version, sentence }
    }

    /// As it is reported.
    pub fn to_json(&self) -> Json {
        json!({ "value": self.value, "ac": self.status, "av": self.version, "ad": self.sentence })
    }
}

/// Whether an acknowledgement, as it was reported, says how a value has ended that stood in this version.
pub fn is_end(reported: &Json, value: &Json, version: u64) -> bool {
    let is_over = reported["ac"].as_u64().is_some_and(|status| status != u64::from(UNDER_WAY));
    is_over && reported["av"] == version && normal(&reported["value"]) == normal(&told(value.clone()))
}

/// Whether an acknowledgement, as it was reported, says that it is done.
pub fn is_done(reported: &Json) -> bool {
    reported["ac"] == DONE
}

/// A value as it stands in an acknowledgement. What is nested is no command's, and could be deeper than a twin may be:
/// it is told as a text.
fn told(value: Json) -> Json {
    let is_nested = |value: &Json| value.is_object() || value.is_array();
    let is_deep = match &value {
        Json::Array(elements) => elements.iter().any(is_nested),
        other => other.is_object(),
    };
    if is_deep {
        in_short(&value).into()
    } else {
        bounded(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::outcome::{Code, State};

    fn is_known(name: &str) -> bool {
        ["speed", "mode"].contains(&name)
    }

    #[test]
    fn of_a_twin_only_what_there_are_commands_for_is_looked_at() {
        let body = br#"{"desired":{"speed":4.5,"other":{"a":[1]},"$version":7},
            "reported":{"fieldbridge":{"version":"1"},"speed":{"ac":200},"other":1,"$version":3}}"#;
        let twin = Twin::read(body, is_known).unwrap();
        assert_eq!(twin.desired, Desired { version: 7, values: BTreeMap::from([("speed".into(), json!(4.5))]) });
        assert_eq!(twin.reported.keys().collect::<Vec<_>>(), ["fieldbridge", "speed"]);
        let patch = Desired::read(br#"{"speed":null,"other":2,"$version":8}"#, is_known).unwrap();
        assert_eq!(patch, Desired { version: 8, values: BTreeMap::from([("speed".into(), Json::Null)]) });
        assert_eq!(Twin::read(br#"{"desired":{"$version":1}}"#, is_known).unwrap().desired.version, 1);
    }

    #[test]
    fn what_is_no_twin_is_told_in_a_sentence() {
        let huge = vec![b' '; TWIN_BYTES_MAX + 1];
        let deep = "[".repeat(100_000);
        for (body, said) in [
            (&b""[..], "no JSON"),
            (b"\xff\xfe", "no JSON"),
            (b"[]", "no JSON object"),
            (b"{}", "no object of desired"),
            (br#"{"desired":1}"#, "no object of desired"),
            (br#"{"desired":{"speed":1}}"#, "no $version"),
            (br#"{"desired":{"speed":1,"$version":-1}}"#, "no $version"),
            (br#"{"desired":{"speed":1,"$version":"1"}}"#, "no $version"),
            (&huge, "at most 262144"),
            (deep.as_bytes(), "no JSON"),
        ] {
            let why = Twin::read(body, is_known).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        assert!(Desired::read(b"{}", is_known).unwrap_err().contains("no $version"));
    }

    #[test]
    fn a_set_point_is_known_by_its_name_its_version_and_what_it_asks_for() {
        let wanted = |version| Wanted { name: "speed".into(), version };
        let gist = wanted(7).condense("set-speed", json!(4), "m");
        assert_eq!((gist.id.as_deref(), gist.command.as_deref()), (Some("desired:speed:7"), Some("set-speed")));
        assert_eq!((gist.value, gist.fault), (Some(json!(4)), None));
        assert_eq!(gist.digest, wanted(8).condense("set-speed", json!(4.0), "m").digest, "the id tells them apart");
        assert_ne!(gist.digest, wanted(7).condense("set-speed", json!(5), "m").digest);
        assert_ne!(gist.digest, wanted(7).condense("set", json!(4), "m").digest);
        assert_ne!(gist.digest, wanted(7).condense("set-speed", json!(4), "n").digest, "it is another device's by now");
        let call = crate::command::Method { name: "set-speed".into(), payload: b"4".to_vec(), unread: None };
        assert_ne!(gist.digest, call.condense().digest);
        let nested = wanted(7).condense("set-speed", (0..100).fold(json!(1), |inner, _| json!([inner])), "m");
        assert!(nested.fault.is_some());
    }

    #[test]
    fn an_acknowledgement_is_written_as_plug_and_play_has_it() {
        let done = Acknowledgement::ended(&Outcome::succeeded(Some(json!(4))), json!(4), 7);
        assert_eq!(done.to_json(), json!({"value": 4, "ac": 200, "av": 7, "ad": "done"}));
        for (state, code, status) in [
            (State::Rejected, Code::OutOfRange, 400),
            (State::Rejected, Code::LockedOut, 403),
            (State::Rejected, Code::UnknownCommand, 404),
            (State::Expired, Code::Expired, 408),
            (State::Failed, Code::Timeout, 500),
            (State::Failed, Code::Unreachable, 503),
        ] {
            let outcome = Outcome::ended(state, Fault::new(code, "ü".repeat(1000)));
            let told = Acknowledgement::ended(&outcome, json!("x".repeat(100_000)), 7);
            assert_eq!(told.status, status, "{state} {code:?}");
            assert!(told.to_json().to_string().len() < 2048, "{}", told.to_json());
        }
        let under_way = Acknowledgement::under_way(json!(4), 7).to_json();
        assert_eq!(under_way["ac"], 202);
        assert!(is_done(&done.to_json()) && !is_done(&under_way));
        for (reported, value, version, is_its) in [
            (done.to_json(), json!(4.0), 7, true),
            (json!({"value": 4, "ac": 500, "av": 7}), json!(4), 7, true),
            (done.to_json(), json!(5), 7, false),
            (done.to_json(), json!(4), 8, false),
            (under_way, json!(4), 7, false),
            (json!({"value": 4, "av": 7}), json!(4), 7, false),
            (json!("4"), json!(4), 7, false),
        ] {
            assert_eq!(is_end(&reported, &value, version), is_its, "{reported} {value} {version}");
        }
        for (value, told) in [
            (json!([1, 2]), json!([1, 2])),
            (json!({"a": {"b": 1}}), json!(r#"{"a":{"b":1}}"#)),
            (json!([[1]]), json!("[[1]]")),
        ] {
            assert_eq!(Acknowledgement::under_way(value, 7).value, told);
        }
    }
}
