//! What programs, hook and command line say to the daemon and it to them: one encoding, no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_ipc::Dialect;
use phantom_ipc::admin::{self, Connection, Lookup, Path, Peer, Status};
use phantom_ipc::hook::{HEADER, Reply, Request, SocketReply, format_session, parse_session, split_frame};

fn hook(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode().expect("it was read")[HEADER..], *bytes);
    }
    let whole = Reply::decode(bytes);
    if let Ok(reply) = &whole {
        assert_eq!(reply.encode().expect("it was read")[HEADER..], *bytes);
        assert!(reply.descriptors() <= 2);
    }
    let _ = SocketReply::decode(bytes);
    if let Ok(Some((body, taken))) = split_frame(bytes) {
        assert_eq!(body.len() + HEADER, taken);
    }
    if let Some(token) = std::str::from_utf8(bytes).ok().and_then(parse_session) {
        assert_eq!(format_session(&token).as_bytes(), bytes);
    }
}

fn lines(bytes: &[u8]) {
    if let Ok(request) = admin::Request::from_line(bytes) {
        let line = request.to_line().expect("it was read");
        assert_eq!(admin::Request::from_line(line.as_bytes()).expect("it was written"), request);
    }
    let _ = admin::Reply::<Status>::from_line(bytes);
    let _ = admin::Reply::<Vec<Path>>::from_line(bytes);
    let _ = admin::Reply::<Vec<Peer>>::from_line(bytes);
    let _ = admin::Reply::<Lookup>::from_line(bytes);
    let _ = admin::Reply::<Vec<Connection>>::from_line(bytes);
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let _ = Dialect::of(*which);
    if which % 2 == 0 { hook(bytes) } else { lines(bytes) }
});
