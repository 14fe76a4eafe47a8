//! What is no request, too long, too slow or too many: refused, and the others are still served.

use super::*;

#[tokio::test]
async fn lines_that_are_no_requests_are_answered_and_forgotten() {
    let world = world();
    let good = admin::Request::Status.to_line().unwrap();
    let other = format!("{{\"version\":{},\"request\":\"status\"}}\n", VERSION + 1);
    let answer = world.said_to(format!("{{\n{other}{{\"version\":1}}\n{good}").as_bytes()).await;
    let lines: Vec<&str> = std::str::from_utf8(&answer).unwrap().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[..3].iter().all(|line| line.starts_with("{\"error\"")), "{lines:?}");
    assert!(lines[1].contains("version"), "{lines:?}");
    assert!(lines[3].starts_with("{\"ok\""), "{lines:?}");
}

#[tokio::test]
async fn an_oversized_line_is_refused_and_the_connection_closed() {
    let world = world();
    let line = format!("{{{}", "x".repeat(MAX_REQUEST + 1));
    let answer = String::from_utf8(world.said_to(line.as_bytes()).await).unwrap();
    assert!(answer.contains("longer than"), "{answer}");
    assert_eq!(answer.lines().count(), 1);
}

#[tokio::test]
async fn another_release_is_refused_and_garbage_gets_nothing() {
    let world = world();
    let answer = world.said_to(&[PREAMBLE[0], PREAMBLE[1], PREAMBLE[2], VERSION + 1]).await;
    let (body, used) = hook::split_frame(&answer).unwrap().unwrap();
    assert_eq!((errno_of(&hook::Reply::decode(body).unwrap()), used), (libc::EPROTO, answer.len()));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PUT / HTTP/1.1\r\n\r\n", b"\0", b"PH", b""] {
        assert_eq!(world.said_to(garbage).await, b"", "{garbage:?}");
    }
}

#[tokio::test]
async fn frames_that_cannot_be_are_refused_and_the_connection_closed() {
    let world = world();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    for frame in [&[0; 4][..], &too_long, &[0xff; 4], &[0, 0, 0, 1, 99], &[0, 0, 0, 2, 2, 9]] {
        let answer = world.said_to(&[&PREAMBLE, frame].concat()).await;
        let (body, used) = hook::split_frame(&answer).unwrap().unwrap();
        let reply = hook::Reply::decode(body).unwrap();
        assert_eq!((errno_of(&reply), used), (libc::EPROTO, answer.len()), "{frame:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_waited_for_only_so_long() {
    let world = world();
    let frame = hook::Request::Info { identity: session(1) }.encode().unwrap();
    for half in [&b"{\"version\""[..], &PREAMBLE[..2], &[&PREAMBLE[..], &frame[..7]].concat(), b""] {
        let mut stream = world.raw().await;
        stream.write_all(half).await.unwrap();
        let mut answer = Vec::new();
        timeout(REQUEST_TIME * 2, stream.read_to_end(&mut answer)).await.expect("closed").unwrap();
        assert!(answer.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays() {
    let world = world();
    let (mut program, mut client) = (world.hook().await, world.client().await);
    program.address(&session(1)).await;
    client.status().await.unwrap();
    sleep(REQUEST_TIME * 20).await;
    program.address(&session(1)).await;
    client.status().await.unwrap();
}

#[tokio::test]
async fn one_program_too_many_is_turned_away_and_the_others_stay() {
    let world = world_of(2);
    let (mut one, mut other) = (world.client().await, world.client().await);
    one.status().await.unwrap();
    other.status().await.unwrap();
    assert!(world.client().await.status().await.is_err());
    one.status().await.unwrap();
    drop(other);
    // The place is free as soon as the daemon has seen the end.
    let freed = async {
        while world.client().await.status().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, freed).await.expect("a place");
}

#[test]
fn any_bytes_leave_the_daemon_serving() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(async { world() });
    let first = prop_oneof![Just(vec![]), Just(PREAMBLE.to_vec()), Just(b"{".to_vec())];
    let bytes = (first, proptest::collection::vec(any::<u8>(), 0..300));
    proptest!(ProptestConfig::with_cases(200), |((mut head, tail) in bytes)| {
        head.extend(tail);
        runtime.block_on(async {
            world.said_to(&head).await;
            world.client().await.status().await.expect("serves");
        });
    });
}
