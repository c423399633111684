//! The connections: identities with keys share them, one with a certificate has its own.
//!
//! Invariants
//! - A connection is there as long as an identity has it: the last one that leaves closes it.
//! - Identities share a connection only if all that it was made with is the same for them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use super::attachment::Shared;
use super::connection;
use super::handle::{Handle, Hold};
use super::locked::Left;
use crate::config::{Credential, TransportKind};
use crate::handles::Places;
use crate::hub::account::Account;
use crate::hub::dial::Dial;
use crate::hub::lock::Recipient;
use crate::hub::transport::{Pending, Reached, Rest, Transport};
use crate::hub::trouble::Trouble;

/// AMQP over streams that are dialled.
pub struct Amqp {
    dial: Arc<dyn Dial>,
    /// For the connections that identities share: they take one each, however many have them.
    places: Arc<Places>,
    left: Arc<Left>,
    shared: Mutex<Vec<Standing>>,
}

/// A connection that identities with keys share.
struct Standing {
    account: Account,
    handle: Weak<Handle>,
}

impl Amqp {
    /// Over streams that are dialled so, of which so many may be there.
    pub fn over(dial: Arc<dyn Dial>, places: Arc<Places>) -> Amqp {
        Amqp { dial, places, left: Arc::default(), shared: Mutex::default() }
    }

    /// A hold on a connection for an account: on one that stands or is being made, or on a new one.
    fn hold(&self, account: &Account) -> Result<Hold, Trouble> {
        let is_gone = || Trouble::Lost("it ended as soon as it was begun".into());
        if self.has_own_connection(account) {
            return connection::make(self.dial.clone(), owned(account), None).hold().ok_or_else(is_gone);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|standing| standing.handle.strong_count() > 0);
        let mut fitting = shared.iter().filter(|standing| standing.account.reaches_as(account));
        if let Some(hold) = fitting.find_map(|standing| standing.handle.upgrade()?.hold()) {
            return Ok(hold);
        }
        let place = self.places.try_take().ok_or_else(|| Trouble::NoPlace(self.places.most()))?;
        let account = owned(account);
        let handle = connection::make(self.dial.clone(), account.clone(), Some(place));
        shared.push(Standing { account, handle: Arc::downgrade(&handle) });
        handle.hold().ok_or_else(is_gone)
    }
}

/// What a connection is made with, without what is one identity's own.
fn owned(account: &Account) -> Account {
    Account {
        access: account.access.clone(),
        transport: account.transport,
        credential: match &account.credential {
            Credential::Key(_) => Credential::Key(Vec::new()),
            certificate => certificate.clone(),
        },
        secondary: None,
        settle: account.settle,
        form: account.form.clone(),
        desired: Arc::default(),
    }
}

impl Transport for Amqp {
    fn has_own_connection(&self, account: &Account) -> bool {
        matches!(account.credential, Credential::Certificate { .. })
    }

    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        Box::pin(async {
            let hold = self.hold(account)?;
            hold.up().await?;
            Ok(Box::new(Shared { hold, left: self.left.clone() }) as Box<dyn Reached>)
        })
    }

    fn locked_until(&self, account: &Account, device: &str) -> Option<Instant> {
        let by_amqp = matches!(account.transport, TransportKind::Amqp | TransportKind::AmqpWs);
        self.left.until(&Recipient::of(&account.access.hub.host, device), by_amqp)
    }

    fn rest(&self) -> Rest {
        self.left.rest()
    }
}
