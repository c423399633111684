//! Asks the service over HTTPS, by the ways by which hubs are reached: through the proxy, with the trust anchors of
//! `[provisioning]`, with a device's own certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::registration::{next, Ask, Assigned, Heard, Next, Refusal};
use crate::certificate::Trust;
use crate::complaint::{said, Complaint};
use crate::config::{Credential, Device, Hub, Provisioning, TransportKind};
use crate::hub::account::{Access, Account};
use crate::hub::auth::sas;
use crate::hub::dial::Dial;
use crate::hub::properties::percent_encoded;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::net::http::{Answer, Connection, Method, Request};
use crate::time::Timestamp;

/// How long a request may take, with the connection that has to be made for it.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the service may be asked before a registration is given up.
const ASKS_MAX: usize = 60;
/// Largest answer.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a device's id that are repeated: it has no more at a hub.
const DEVICE_SAID_MAX: usize = 128;
/// Life of a token: a registration takes less.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Where and how the service is asked.
pub struct Client {
    dial: Arc<dyn Dial>,
    id_scope: String,
    /// The service, as a hub is reached.
    access: Arc<Access>,
}

impl Client {
    /// For a service that is reached through what a hub is reached through. It reads the trust anchors.
    ///
    /// # Errors
    /// What is wrong with the trust anchors.
    pub fn new(provisioning: &Provisioning, hub: &Hub, dial: Arc<dyn Dial>) -> Result<Client, Complaint> {
        let trust = Trust::load(provisioning.ca_file.as_deref())?;
        let service = Hub {
            host: provisioning.host.clone(),
            transport: TransportKind::Https,
            addresses: BTreeMap::from([(TransportKind::Https, provisioning.address.clone())]),
            gateway: None,
            ca_file: provisioning.ca_file.clone(),
            tls: true,
            ..hub.clone()
        };
        let access = Arc::new(Access { hub: service, trust: Some(trust) });
        Ok(Client { dial, id_scope: provisioning.id_scope.clone(), access })
    }

    /// Registers a device, at a time that is believed, and waits for what comes of it. A device that is registered
    /// stays so.
    ///
    /// # Errors
    /// Why it is not assigned to a hub.
    pub async fn register(&self, device: &Device, now: Timestamp) -> Result<Assigned, Refusal> {
        let first = match &device.credential {
            Credential::Key(key) => Some(key.as_slice()),
            Credential::Certificate { .. } => None,
        };
        let assigned = match (self.register_with(device, first, now).await, &device.secondary) {
            (Err(refusal), Some(second)) if refusal.is_of_the_key => {
                // What is said of the first is what has to be mended.
                self.register_with(device, Some(second), now).await.map_err(|_| refusal)
            }
            (done, _) => done,
        }?;
        match assigned.device == device.id {
            true => Ok(assigned),
            false => Err(Refusal::new(of_another_id(device, &assigned))),
        }
    }

    async fn register_with(&self, device: &Device, key: Option<&[u8]>, now: Timestamp) -> Result<Assigned, Refusal> {
        let id = device.registration.as_deref().unwrap_or(&device.id);
        let token = key.map(|key| {
            let resource = format!("{}/registrations/{id}", self.id_scope);
            format!("{}&skn=registration", sas::token(&resource, key, now.plus(TOKEN_LIFETIME).as_secs()))
        });
        let account = Account { transport: TransportKind::Https, ..Account::of(device, &self.access) };
        let (mut ask, mut connection) = (Ask::Register, None);
        for _ in 0..ASKS_MAX {
            let request = self.request(&ask, id, token.as_deref());
            let answered = timeout(LIMIT, self.answer(&account, &mut connection, &request)).await;
            let slow = |_| Trouble::Slow(LIMIT.as_secs());
            let answer = answered.map_err(slow).and_then(|answer| answer).map_err(|trouble| of_trouble(&trouble))?;
            let retry_after = answer.header("retry-after");
            match next(&ask, Heard { status: answer.status, retry_after, body: &answer.body }) {
                Next::Over(outcome) => return outcome,
                Next::Ask(then, pause) => {
                    ask = then;
                    sleep(pause).await;
                }
            }
        }
        Err(Refusal::new((
            "the provisioning service goes on saying that the device is being assigned",
            "the daemon begins anew; look at the enrollment if this stays so",
        )))
    }

    fn request(&self, ask: &Ask, id: &str, token: Option<&str>) -> Request {
        let (method, body) = match ask {
            Ask::Register => (Method::PUT, json!({ "registrationId": id }).to_string()),
            Ask::Look { .. } => (Method::GET, String::new()),
        };
        let target = ask.target(&self.id_scope, id, percent_encoded);
        let host = &self.access.hub.host;
        let request = Request::new(method, &target, host, body).expect("all of it is encoded, or a host's name");
        let request =
            request.with("accept", "application/json").with("content-type", "application/json; charset=utf-8");
        match token {
            Some(token) => request.with("authorization", token),
            None => request,
        }
    }

    /// Asks over the connection that there is, or a new one.
    async fn answer(
        &self,
        account: &Account,
        connection: &mut Option<Connection>,
        request: &Request,
    ) -> Result<Answer, Trouble> {
        let kept = match connection.take() {
            Some(mut kept) => kept.is_open().await.then_some(kept),
            None => None,
        };
        let mut open = match kept {
            Some(kept) => kept,
            None => {
                let stream = way::open(&*self.dial, account).await?;
                Connection::over(stream).await?
            }
        };
        let answer = open.ask(request, BODY_BYTES_MAX).await?;
        *connection = Some(open);
        Ok(answer)
    }
}

/// What is said of a connection to the service, which is made as one to a hub.
fn of_trouble(trouble: &Trouble) -> Refusal {
    let Complaint { what, remedy } = trouble.complaint();
    let what = what.replace("the hub", "the provisioning service");
    let what = match trouble {
        Trouble::Lookup { .. } | Trouble::Unreachable { .. } | Trouble::Proxy(_) | Trouble::NoHandles(_) => {
            format!("the provisioning service is not reached: {what}")
        }
        Trouble::Slow(_) => what,
        _ => format!("the provisioning service: {what}"),
    };
    let mut remedy = remedy.replace("the hub", "the service");
    for key in ["host", "address", "ca_file"] {
        remedy = remedy.replace(&format!("`hub.{key}`"), &format!("`provisioning.{key}`"));
    }
    Refusal { is_common: trouble.is_common(), ..Refusal::new(Complaint { what, remedy }) }
}

fn of_another_id(device: &Device, assigned: &Assigned) -> Complaint {
    let (own, other) = (&device.id, said(&assigned.device, DEVICE_SAID_MAX));
    let registration = device.registration.as_deref().unwrap_or(own);
    Complaint::new(
        format!("the provisioning service has assigned the device to {} as {other:?}", assigned.hub),
        format!("write [device.{other:?}] in the place of [device.{own:?}], with registration_id = {registration:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_on_the_way_is_told_as_the_services() {
        let lookup = Trouble::Lookup { address: "a:443".into(), error: "no".into() };
        let tls = Trouble::Tls(Complaint::new("the certificate is not for a", "check `hub.host` and `hub.address`"));
        for (trouble, told) in [
            (
                lookup,
                "the provisioning service is not reached: a:443 can't be looked up: no; check DNS, the uplink, and \
                 `provisioning.host`",
            ),
            (
                tls,
                "the provisioning service: TLS failed: the certificate is not for a; check `provisioning.host` and \
                 `provisioning.address`",
            ),
            (
                Trouble::Slow(60),
                "the provisioning service did not answer within 60 s; it may be throttling, or the uplink is bad",
            ),
        ] {
            assert_eq!(of_trouble(&trouble).why.to_string(), told);
        }
    }
}
