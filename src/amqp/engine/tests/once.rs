//! Links whose messages are settled as they are sent, and links that are ended on our side.

use super::*;

#[test]
fn what_is_settled_as_it_is_sent_is_not_told_of_and_makes_room_at_once() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::OutOnce(2));
    assert!(talk.engine.send(link, 1, Bytes::from_static(b"a")) && talk.engine.send(link, 2, Bytes::from_static(b"b")));
    assert!(!talk.engine.send(link, 3, Bytes::from_static(b"c")), "as many wait as may");
    let wide = Flow { incoming_window: 10, ..flow(Some(5), 0, 10) };
    talk.say(9, Performative::Flow(wide)).unwrap();
    let settled = |said: &[(u16, Performative)]| -> Vec<Option<bool>> {
        let sent = said.iter().filter_map(|(_, said)| match said {
            Performative::Transfer(transfer) => Some(transfer.settled),
            _ => None,
        });
        sent.collect()
    };
    assert_eq!(settled(&talk.said()), [Some(true); 2]);
    assert!(talk.engine.send(link, 3, Bytes::from_static(b"c")) && talk.engine.send(link, 4, Bytes::from_static(b"d")));
    assert_eq!(settled(&talk.said()), [Some(true); 2]);
    assert_eq!(talk.engine.event(), None);
}

#[test]
fn a_link_that_is_ended_on_our_side_is_not_told_of_and_its_place_is_free_when_the_peer_has_answered() {
    let mut talk = Talk::open();
    let link = talk.attached(Direction::InOnce(1));
    talk.said();
    assert!(talk.engine.detach(link) && !talk.engine.detach(link));
    assert!(matches!(&talk.said()[..], [(0, Performative::Detach(_))]), "once");
    talk.say(9, Performative::Detach(Detach { handle: Handle(5), closed: true, error: None })).unwrap();
    assert!(talk.said().is_empty());
    assert_eq!(talk.engine.event(), None);
    // One that the peer knows nothing of is never asked for.
    let session = talk.engine.begin().unwrap();
    let attaching = |name: &str| Attaching {
        name: name.into(),
        address: "/a".into(),
        local: None,
        direction: Direction::In(1),
        properties: None,
    };
    let early = talk.engine.attach(session, attaching("early")).unwrap();
    talk.engine.detach(early);
    assert_eq!(talk.engine.attach(session, attaching("late")).unwrap().handle, early.handle);
}
