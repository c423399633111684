//! What goes over the connections to the hub. Proves G1, G2, G3, G5, G6, G7, G8, G11 and G15 from outside: the built
//! daemon, real sockets, a slave that counts.
//!
//! - `session_rules`: the rules of the session, by a broker that does just what a test says.
//! - `amqp`: the same rules by AMQP, many identities on one connection.
//! - `back_end`: `send` and `feedback`, as a sender sees it.
//! - `entra`: tokens of Microsoft Entra, through a proxy.
//! - `events`: what an instrument says by itself, at the hub.
//! - `poison`: bytes of every kind, from the hub and from peripherals.
//! - `provisioning`: the hub that a device is assigned to.
//! - `senders`: messages as their senders have them.
//! - `https`: the transport by polling, against our simulator of the hub.
//! - `identity`, `tls`: who is believed.
//! - `methods`: direct methods, called once and again.
//! - `mirror`: messages that stay at the hub while their unit is away.
//! - `twins`: what a device's twin desires, and what it is told.
//! - `ways`: proxies, a gateway, and where each transport goes.
//! - `telemetry`: what polls read, at the hub.
//! - `mosquitto`, `sdk_agreement`, `simulator`: a broker and clients that are not ours, and our own simulator of the
//!   hub.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../support/mod.rs"]
mod support;

mod amqp;
mod back_end;
mod entra;
mod events;
mod https;
mod identity;
mod methods;
mod mirror;
mod mosquitto;
mod poison;
mod provisioning;
mod sdk_agreement;
mod senders;
mod session_rules;
mod simulator;
mod telemetry;
mod tls;
mod twins;
mod ways;
