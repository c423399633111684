//! What must hold for any bytes from the provisioning service, or from what answers in its place, and for any memory of
//! what it said.

use super::book::Book;
use super::registration::{next, Ask, Heard, Next};
use crate::certificate::pair::is_server_name;
use crate::proof::bytes::Source;

/// Any answer leads to another question after a bounded pause, to a hub that can be connected to, or to a reason with
/// what to do, which is of bounded length and steers no terminal. Any memory is understood wholly or not at all.
pub fn provisioning(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let status = *source.pick(&[200, 202, 200, 202, 302, 400, 401, 404, 429, 500, 999]);
    let asked = match source.flag() {
        true => Ask::Register,
        false => Ask::Look { operation: source.text(16) },
    };
    let retry_after = source.flag().then(|| source.text(16));
    let body = source.rest();
    match next(&asked, Heard { status, retry_after: retry_after.as_deref(), body }) {
        Next::Ask(Ask::Look { operation }, pause) => {
            assert!((1..=60).contains(&pause.as_secs()), "{pause:?}");
            let target = Ask::Look { operation }.target("0ne1", "d", crate::hub::properties::percent_encoded);
            assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target}");
        }
        Next::Ask(Ask::Register, _) => panic!("a registration is asked for once"),
        Next::Over(Ok(assigned)) => {
            assert!(is_server_name(&assigned.hub) && assigned.hub == assigned.hub.to_lowercase(), "{assigned:?}");
            assert!(!assigned.device.is_empty());
        }
        Next::Over(Err(refusal)) => {
            let why = refusal.why.to_string();
            assert!(why.len() < 900 && !why.contains(char::is_control) && !refusal.why.remedy.is_empty(), "{why:?}");
            assert!(refusal.retry_after.is_none_or(|pause| pause.as_secs() <= 600));
        }
    }
    if let Ok(book) = Book::parse(body) {
        assert_eq!(Book::parse(book.to_text().as_bytes()), Ok(book));
    }
}
