//! One registration: what is asked, and what the service's answers mean. Pure.
//!
//! Source: "Runtime Registration - Register Device" and "Operation Status Lookup" (Device Provisioning Service,
//! Microsoft): a registration is answered by an operation, which is asked for until it is over.

use std::time::Duration;

use serde_json::Value as Json;

use crate::certificate::pair::is_server_name;
use crate::complaint::{said, Complaint};

/// The version of the service's device interface.
const API_VERSION: &str = "2019-03-31";
/// How long is waited before the service is asked again, where it does not say.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest of its own pauses that is believed while a registration goes on; and of those after a refusal.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Bytes of what it says that are repeated.
const SAID_MAX: usize = 200;
/// The connection profile that hubs have had so far; another one is spoken to in another way.
const OUR_PROFILE: &str = "classic";

/// What is asked next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// That the device be registered. It does no harm if it is.
    Register,
    /// What has become of that.
    Look {
        /// The operation's id.
        operation: String,
    },
}

/// What a device is assigned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Host name of the hub, lower case.
    pub hub: String,
    /// The id that it has there.
    pub device: String,
}

/// Why a device was not assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, and what to do.
    pub why: Complaint,
    /// Another key may do.
    pub is_of_the_key: bool,
    /// It is no device's own: the service is reached for none.
    pub is_common: bool,
    /// For how long the service asks to be left alone; at most ten minutes.
    pub retry_after: Option<Duration>,
}

/// What is to be done after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this, after a while.
    Ask(Ask, Duration),
    /// It is over.
    Over(Result<Assigned, Refusal>),
}

/// What an answer brings.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// 100 to 999.
    pub status: u16,
    /// The header of this name.
    pub retry_after: Option<&'a str>,
    /// What was said.
    pub body: &'a [u8],
}

impl Refusal {
    /// For this reason, with nothing more known.
    pub fn new(why: impl Into<Complaint>) -> Refusal {
        Refusal { why: why.into(), is_of_the_key: false, is_common: false, retry_after: None }
    }
}

impl Ask {
    /// The path that it is asked at, with its query.
    pub fn target(&self, id_scope: &str, registration_id: &str, encoded: fn(&str) -> String) -> String {
        let device = format!("/{}/registrations/{}", encoded(id_scope), encoded(registration_id));
        match self {
            Ask::Register => format!("{device}/register?api-version={API_VERSION}"),
            Ask::Look { operation } => {
                format!("{device}/operations/{}?api-version={API_VERSION}", encoded(operation))
            }
        }
    }
}

/// What an answer to `asked` leads to.
pub fn next(asked: &Ask, heard: Heard<'_>) -> Next {
    let body: Json = serde_json::from_slice(heard.body).unwrap_or(Json::Null);
    let seconds = heard.retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    match (heard.status, body["status"].as_str().map(str::to_ascii_lowercase).as_deref()) {
        (200 | 202, Some("assigning" | "unassigned" | "registering")) => {
            let pause = seconds.unwrap_or(PAUSE).clamp(Duration::from_secs(1), PAUSE_MAX);
            match (body["operationId"].as_str(), asked) {
                (Some(operation), _) => Next::Ask(Ask::Look { operation: operation.to_owned() }, pause),
                (None, Ask::Look { .. }) => Next::Ask(asked.clone(), pause),
                (None, Ask::Register) => over(not_understood("it names no operation")),
            }
        }
        (200, Some("assigned")) => Next::Over(assigned(&body)),
        (200, Some("failed")) => over(failed(&body)),
        (200, Some("disabled")) => over(Refusal::new((
            "the provisioning service has the device's enrollment disabled",
            "enable it there, or take the device out of the configuration",
        ))),
        (200 | 202, _) => over(not_understood("it has no status that is known")),
        (status, _) => over(refusal(status, &body, seconds)),
    }
}

fn over(refusal: Refusal) -> Next {
    Next::Over(Err(refusal))
}

fn not_understood(what: &str) -> Refusal {
    Refusal::new((
        format!("the provisioning service's answer is not understood: {what}"),
        "check `provisioning.host`, and that nothing between here and there answers in its place",
    ))
}

fn assigned(body: &Json) -> Result<Assigned, Refusal> {
    let registration = &body["registrationState"];
    let text = |name: &str| registration[name].as_str().filter(|text| !text.is_empty());
    let profile = text("connectionProfile").or_else(|| body["connectionProfile"].as_str());
    if let Some(other) = profile.filter(|profile| !profile.eq_ignore_ascii_case(OUR_PROFILE)) {
        let other = said(other, SAID_MAX);
        return Err(Refusal::new((
            format!("the device is assigned to a hub with the connection profile {other:?}, which fieldbridge does not speak"),
            "assign it to a hub that has the classic one, in the enrollment",
        )));
    }
    let (Some(hub), Some(device)) = (text("assignedHub"), text("deviceId")) else {
        return Err(not_understood("it names no hub, or no device"));
    };
    let hub = hub.to_lowercase();
    match is_server_name(&hub) {
        true => Ok(Assigned { hub, device: device.to_owned() }),
        false => Err(not_understood("the hub that it names is no host")),
    }
}

/// A registration that went its way, and ended in nothing.
fn failed(body: &Json) -> Refusal {
    let registration = &body["registrationState"];
    Refusal::new((
        format!("the provisioning service could not assign the device to a hub{}", beside(registration)),
        "look at the enrollment, and at the hubs that are linked to the service",
    ))
}

fn refusal(status: u16, body: &Json, seconds: Option<Duration>) -> Refusal {
    let told = format!("HTTP {status}{}", beside(body));
    let (what, remedy) = match status {
        401 | 403 => (
            "refuses the device",
            "check `provisioning.id_scope`, the registration id and the device's key or certificate, that its \
             enrollment is there and enabled, and that the clock is right",
        ),
        404 => ("does not know what it was asked for", "check `provisioning.id_scope` and the registration id"),
        429 => ("is throttling", "the daemon tries again, with growing waits"),
        500..=599 => ("can't answer now", "the daemon tries again, with growing waits"),
        300..=399 => (
            "sends elsewhere",
            "look for a log-in page of the network or for a proxy, and let connections to `provisioning.host` through",
        ),
        _ => ("does not take the registration", "check `provisioning.id_scope` and the registration id"),
    };
    Refusal {
        why: Complaint::new(format!("the provisioning service {what} ({told})"), remedy),
        is_of_the_key: status == 401,
        is_common: false,
        retry_after: seconds.map(|seconds| seconds.min(RETRY_MAX)),
    }
}

/// What the service says beside a refusal: its own code, and a sentence.
fn beside(body: &Json) -> String {
    let code = body["errorCode"].as_u64().filter(|code| *code > 0).map(|code| format!(", {code}"));
    let message = body["message"].as_str().or_else(|| body["errorMessage"].as_str()).map(|text| said(text, SAID_MAX));
    let message = message.filter(|text| !text.is_empty()).map(|text| format!(": {text}"));
    code.unwrap_or_default() + &message.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(asked: &Ask, status: u16, retry_after: Option<&str>, body: &Json) -> Next {
        next(asked, Heard { status, retry_after, body: body.to_string().as_bytes() })
    }

    fn refused(status: u16, body: &Json) -> Refusal {
        match heard(&Ask::Register, status, None, body) {
            Next::Over(Err(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn look(operation: &str) -> Ask {
        Ask::Look { operation: operation.into() }
    }

    #[test]
    fn what_is_under_way_is_looked_at_again_when_the_service_says() {
        let assigning = json!({ "operationId": "5.1", "status": "assigning" });
        let again = |seconds| Next::Ask(look("5.1"), Duration::from_secs(seconds));
        for (status, retry_after, seconds) in
            [(202, Some("3"), 3), (202, None, 2), (200, Some("0"), 1), (202, Some("100000"), 60), (202, Some("x"), 2)]
        {
            assert_eq!(heard(&Ask::Register, status, retry_after, &assigning), again(seconds));
        }
        assert_eq!(heard(&look("5.1"), 202, None, &json!({ "status": "assigning" })), again(2));
        assert!(refused(202, &json!({ "status": "assigning" })).why.what.contains("no operation"));
    }

    #[test]
    fn an_assignment_has_a_hub_in_lower_case_and_a_device() {
        let state = json!({ "assignedHub": "Contoso.Azure-Devices.net", "deviceId": "Pump-7" });
        let of =
            |state: Json| heard(&look("5.1"), 200, None, &json!({ "status": "assigned", "registrationState": state }));
        let expected = Assigned { hub: "contoso.azure-devices.net".into(), device: "Pump-7".into() };
        assert_eq!(of(state.clone()), Next::Over(Ok(expected.clone())));
        let with = |profile: &str| {
            let mut state = state.clone();
            state["connectionProfile"] = profile.into();
            of(state)
        };
        assert_eq!(with("classic"), Next::Over(Ok(expected)));
        let Next::Over(Err(other)) = with("mqttv5") else { panic!("it is another's") };
        assert!(other.why.to_string().contains("\"mqttv5\", which fieldbridge does not speak; assign it"), "{other:?}");
        for state in [
            json!(null),
            json!({ "assignedHub": "h.example" }),
            json!({ "assignedHub": "", "deviceId": "d" }),
            json!({ "assignedHub": "a b", "deviceId": "d" }),
        ] {
            assert!(matches!(of(state), Next::Over(Err(_))));
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (status, body, what, remedy) in [
            (401, json!({ "errorCode": 401_002, "message": "no; try" }), "401, 401002: no; try", "id_scope"),
            (404, json!({}), "HTTP 404", "registration id"),
            (429, json!({}), "throttling", "tries again"),
            (503, json!("down"), "HTTP 503", "tries again"),
            (302, json!(null), "elsewhere", "log-in page"),
            (400, json!({ "errorCode": 400_004 }), "400004", "registration id"),
            (200, json!({ "status": "disabled" }), "disabled", "enable it"),
            (
                200,
                json!({ "status": "failed", "registrationState": { "errorCode": 400_209, "errorMessage": "none" } }),
                "to a hub, 400209: none",
                "linked to the service",
            ),
            (200, json!({ "status": "new" }), "no status", "provisioning.host"),
            (200, json!([]), "no status", "provisioning.host"),
        ] {
            let refusal = refused(status, &body);
            let Complaint { what: told, remedy: to_do } = &refusal.why;
            assert!(told.contains(what) && to_do.contains(remedy), "{status}: {refusal:?}");
            assert_eq!(refusal.is_of_the_key, status == 401);
        }
        let later = heard(&Ask::Register, 429, Some("30"), &json!({}));
        let Next::Over(Err(Refusal { retry_after, .. })) = later else { panic!("{later:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_is_asked_stands_in_the_path() {
        let encoded: fn(&str) -> String = |text| text.replace(':', "%3A");
        assert_eq!(
            Ask::Register.target("0ne1", "a:b", encoded),
            "/0ne1/registrations/a%3Ab/register?api-version=2019-03-31"
        );
        assert_eq!(
            look("5.1").target("0ne1", "a", encoded),
            "/0ne1/registrations/a/operations/5.1?api-version=2019-03-31"
        );
    }
}
