//! What a link is for, by its address.

use super::events;
use crate::demo::hub::side::Right;
use crate::demo::hub::topic::percent_decode;

/// What goes over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Tokens, to the hub.
    Tokens,
    /// What became of tokens.
    TokenAnswers,
    /// A device's messages, to it.
    Devicebound(String),
    /// A device's telemetry.
    Events(String),
    /// Direct methods, to the device that listens for them.
    Methods(String),
    /// What the device answers to them.
    MethodAnswers(String),
    /// Something of a device's that is not modelled: nothing ever goes over it.
    Idle(String),
    /// Messages to devices, from the back end.
    Commands,
    /// Feedback, to the back end.
    Feedback,
    /// What devices have sent, to the back end: a partition of it.
    EventStream(usize),
    /// Questions as to what there is to read, to the hub.
    Questions,
    /// What there is to read.
    Facts,
}

impl Purpose {
    /// What the link is for that has this address at the hub; `None`: there is nothing there.
    pub fn of(address: &str, hub_sends: bool) -> Option<Purpose> {
        let path = match address.split_once("://") {
            Some((_, rest)) => rest.split_once('/')?.1,
            None => address,
        };
        let path = path.trim_start_matches('/').to_ascii_lowercase();
        match (path.as_str(), hub_sends) {
            ("$cbs", false) => return Some(Purpose::Tokens),
            ("$cbs", true) => return Some(Purpose::TokenAnswers),
            ("messages/devicebound", false) => return Some(Purpose::Commands),
            ("messages/servicebound/feedback", true) => return Some(Purpose::Feedback),
            ("$management", false) => return Some(Purpose::Questions),
            ("$management", true) => return Some(Purpose::Facts),
            _ => {}
        }
        if let Some(partition) = events::partition(&path).filter(|_| hub_sends) {
            return Some(Purpose::EventStream(partition));
        }
        // The id has its case.
        let at = address.to_ascii_lowercase().find("devices/")?;
        let (id, what) = address[at + "devices/".len()..].split_once('/')?;
        let id = percent_decode(id)?;
        match (what.to_ascii_lowercase().as_str(), hub_sends) {
            ("messages/devicebound", true) => Some(Purpose::Devicebound(id)),
            ("messages/events", false) => Some(Purpose::Events(id)),
            ("methods/devicebound", true) => Some(Purpose::Methods(id)),
            ("methods/devicebound", false) => Some(Purpose::MethodAnswers(id)),
            ("twin", _) => Some(Purpose::Idle(id)),
            _ => None,
        }
    }

    /// Whether the hub is the sender.
    pub fn hub_sends(&self) -> bool {
        match self {
            Purpose::TokenAnswers | Purpose::Devicebound(_) | Purpose::Methods(_) | Purpose::Feedback => true,
            Purpose::EventStream(_) | Purpose::Facts => true,
            Purpose::Tokens | Purpose::Events(_) | Purpose::MethodAnswers(_) | Purpose::Idle(_) => false,
            Purpose::Commands | Purpose::Questions => false,
        }
    }

    /// The device that it is of.
    pub fn device(&self) -> Option<&str> {
        match self {
            Purpose::Devicebound(id) | Purpose::Events(id) | Purpose::Idle(id) => Some(id),
            Purpose::Methods(id) | Purpose::MethodAnswers(id) => Some(id),
            _ => None,
        }
    }

    /// What the back end must be let do for it, if it is the back end's.
    pub fn right(&self) -> Option<Right> {
        match self {
            Purpose::Commands | Purpose::Feedback => Some(Right::Serve),
            Purpose::EventStream(_) | Purpose::Questions | Purpose::Facts => Some(Right::Read),
            Purpose::Tokens | Purpose::TokenAnswers => None,
            Purpose::Devicebound(_) | Purpose::Events(_) | Purpose::Idle(_) => None,
            Purpose::Methods(_) | Purpose::MethodAnswers(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_whole_or_with_the_hub_before_them() {
        let device = Some(Purpose::Devicebound("a b".into()));
        assert_eq!(Purpose::of("/devices/a%20b/messages/devicebound", true), device);
        assert_eq!(Purpose::of("amqps://hub/devices/a b/messages/deviceBound", true), device);
        assert_eq!(Purpose::of("/devices/D/messages/events", false), Some(Purpose::Events("D".into())));
        let methods = "/devices/d/methods/devicebound";
        assert_eq!(Purpose::of(methods, true), Some(Purpose::Methods("d".into())));
        assert_eq!(Purpose::of(methods, false), Some(Purpose::MethodAnswers("d".into())));
        assert_eq!(Purpose::of("$cbs", true), Some(Purpose::TokenAnswers));
        assert_eq!(Purpose::of("amqps://hub/$cbs", false), Some(Purpose::Tokens));
        assert_eq!(Purpose::of("/messages/devicebound", false), Some(Purpose::Commands));
        assert_eq!(Purpose::of("/messages/serviceBound/feedback", true), Some(Purpose::Feedback));
        let stream = "fieldbridge-events/ConsumerGroups/$Default/Partitions/1";
        assert_eq!(Purpose::of(stream, true), Some(Purpose::EventStream(1)));
        assert_eq!(Purpose::of(stream, false), None);
        for wrong in ["/devices/d/messages/devicebound", "/messages/events", "", "amqps://hub"] {
            assert_eq!(Purpose::of(wrong, false), None, "{wrong}");
        }
    }
}
