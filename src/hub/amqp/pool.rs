//! The connections: identities with keys share them, one with a certificate has its own.
//!
//! Invariants
//! - A connection is there as long as an identity has it: the last one that leaves closes it.
//! - Identities share a connection only if all that it was made with is the same for them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::attachment::Shared;
use super::cbs::IDENTITIES_MAX;
use super::connection::Handle;
use crate::config::{Credential, TransportKind};
use crate::hub::account::{Access, Account};
use crate::hub::dial::Dial;
use crate::hub::transport::{Pending, Reached, Transport};
use crate::hub::trouble::Trouble;

/// AMQP over streams that are dialled.
pub struct Amqp {
    dial: Arc<dyn Dial>,
    shared: Mutex<Vec<Standing>>,
}

/// A connection that identities with keys share.
struct Standing {
    access: Weak<Access>,
    transport: TransportKind,
    handle: Weak<Handle>,
}

impl Amqp {
    /// Over streams that are dialled so.
    pub fn over(dial: Arc<dyn Dial>) -> Amqp {
        Amqp { dial, shared: Mutex::default() }
    }

    /// A connection for an account: one that stands or is being made, or a new one.
    fn handle(&self, account: &Account) -> Arc<Handle> {
        if matches!(account.credential, Credential::Certificate { .. }) {
            return Handle::make(self.dial.clone(), owned(account));
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|standing| standing.handle.strong_count() > 0);
        let is_same = |standing: &&Standing| {
            standing.transport == account.transport
                && std::ptr::eq(standing.access.as_ptr(), Arc::as_ptr(&account.access))
                && standing.handle.strong_count() < IDENTITIES_MAX
        };
        let mut standing = shared.iter().filter(is_same).filter_map(|standing| standing.handle.upgrade());
        if let Some(handle) = standing.find(|handle| handle.takes_more()) {
            return handle;
        }
        let handle = Handle::make(self.dial.clone(), owned(account));
        shared.push(Standing {
            access: Arc::downgrade(&account.access),
            transport: account.transport,
            handle: Arc::downgrade(&handle),
        });
        handle
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
    }
}

impl Transport for Amqp {
    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        Box::pin(async {
            let handle = self.handle(account);
            handle.up().await?;
            Ok(Box::new(Shared(handle)) as Box<dyn Reached>)
        })
    }
}
