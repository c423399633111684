//! Who shares a connection with whom, and what it takes.

use super::*;
use crate::hub::transport::Transport as _;

/// An account of a configuration that was read anew, with this line in its `[hub]`.
fn anew(line: &str) -> Account {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    let hub = "[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n";
    std::fs::write(&main, format!("{hub}{line}\n")).unwrap();
    account(&Arc::new(Access { hub: config::load(&main, []).unwrap().config.hub, trust: None }))
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_read_anew_parts_nobody_whom_the_hub_is_the_same_for() {
    let (amqp, mut hubs) = transport(2);
    let other = &mut hubs.remove(1);
    let hub = &mut hubs[0];
    let stays = with_hub(hub, ready(&amqp, &anew(""), "one")).await;
    let comes = with_hub(hub, ready(&amqp, &anew("connect_rate = 7"), "two")).await;
    let elsewhere = with_hub(other, ready(&amqp, &anew("api_version = \"2020-09-30\""), "three")).await;
    drop((stays, comes, elsewhere));
}

#[tokio::test(start_paused = true)]
async fn those_who_have_left_take_nobodys_place() {
    let (amqp, mut hubs) = transport(1);
    let (account, hub) = (account(&access()), &mut hubs[0]);
    // Two for devices, beside those for tokens.
    hub.sessions = 4;
    let stays = with_hub(hub, ready(&amqp, &account, "stays")).await;
    for _ in 0..5 {
        has_a_trouble_of_its_own(&amqp, &account, hub).await;
    }
    let device = with_hub(hub, ready(&amqp, &account, "d")).await;
    let third = attach(&amqp, &account, "third").await;
    assert!(matches!(third, Err(Trouble::Closed)), "it is full, and another one is dialled");
    drop((stays, device));
}

#[tokio::test(start_paused = true)]
async fn a_connection_takes_one_place_however_many_share_it() {
    let (near, far) = tokio::io::duplex(100_000);
    let places = Places::new(1);
    let (amqp, hub) = (amqp_over([near].into(), places.clone()), &mut Hub::on(far));
    let shared = anew("");
    let one = with_hub(hub, ready(&amqp, &shared, "one")).await;
    let two = with_hub(hub, ready(&amqp, &shared, "two")).await;
    assert!(places.try_take().is_none());
    let other = attach(&amqp, &anew("api_version = \"2020-09-30\""), "three").await;
    assert_eq!(other.err(), Some(Trouble::NoPlace(1)));
    with_hub(hub, one.detach()).await;
    assert!(places.try_take().is_none());
    with_hub(hub, two.detach()).await;
    drop(places.take().await);
    // One with a certificate has a connection of its own, and brings a place along.
    let credential = Credential::Certificate { cert_file: "c.pem".into(), key_file: "k.pem".into(), contents: [0; 32] };
    assert!(amqp.has_own_connection(&Account { credential, ..shared.clone() }) && !amqp.has_own_connection(&shared));
}
