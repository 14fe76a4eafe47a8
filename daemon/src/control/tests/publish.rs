//! Ports that programs publish: for how long, and who is told of them.

use super::*;

/// Waits until exactly these ports are published, by where.
async fn published(world: &World, expected: &[(u16, ApAddress)]) {
    let expected: Vec<_> = expected.iter().map(|(port, at)| (Ports::One(*port), *at)).collect();
    let ends = async {
        while *world.daemon.published.lock().unwrap() != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, ends).await.expect("published as expected");
}

fn publish(which: u8, ports: Ports, at: Option<&str>, stays: bool) -> hook::Request {
    hook::Request::Publish { identity: session(which), ports, at: at.map(str::to_owned), stays }
}

#[tokio::test]
async fn ports_are_published_as_long_as_the_connection() {
    let world = world();
    let mut program = world.hook().await;
    let publish = |port, at: Option<&str>| publish(1, Ports::One(port), at, false);
    assert_eq!(errno_of(&program.ask(&publish(80, None)).await.0), libc::EPERM, "not entered");
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    let own = program.address(&session(1)).await;
    let (reply, _) = program.ask(&publish(80, None)).await;
    assert!(matches!(&reply, hook::Reply::Published { address, is_new: false, .. } if *address == own));
    let (reply, _) = program.ask(&publish(443, Some("shop"))).await;
    let shop = world.control.identities.find(Whose::Operator, "shop").expect("made");
    let told = |is_new| hook::Reply::Published {
        address: shop.address().octets(),
        name: shop.phantom_name().to_string(),
        is_new,
    };
    assert_eq!(reply, told(true));
    assert_eq!(program.ask(&publish(8443, Some("shop"))).await.0, told(false));
    assert_eq!(*world.daemon.created.lock().unwrap(), [shop.address()]);
    let own = ApAddress::from_bytes(own).unwrap();
    published(&world, &[(80, own), (443, shop.address()), (8443, shop.address())]).await;
    for (port, name, errno) in
        [(13, None, libc::EADDRINUSE), (1, Some("A b"), libc::EINVAL), (13, Some("vain"), libc::EADDRINUSE)]
    {
        assert_eq!(errno_of(&program.ask(&publish(port, name)).await.0), errno);
    }
    assert!(world.control.identities.find(Whose::Operator, "vain").is_none(), "made for nothing");
    drop(program);
    published(&world, &[]).await;
    let mut program = world.hook().await;
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    for port in 1..=65 {
        let (reply, _) = program.ask(&publish(port + 1000, None)).await;
        assert_eq!(matches!(reply, hook::Reply::Failed { errno: libc::EMFILE, .. }), port == 65, "{reply:?}");
    }
}

#[tokio::test]
async fn the_status_shows_what_the_asking_user_publishes() {
    let world = world();
    let (mut program, mut alice) = (world.hook().await, world.hook_of(ALICE).await);
    let publish = |which, port, at: Option<&str>| publish(which, Ports::One(port), at, false);
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    alice.ask(&hook::Request::Enter { identity: session(2) }).await;
    for request in [publish(1, 443, None), publish(1, 80, None), publish(1, 80, Some("shop"))] {
        assert!(matches!(program.ask(&request).await.0, hook::Reply::Published { .. }));
    }
    assert!(matches!(alice.ask(&publish(2, 22, None)).await.0, hook::Reply::Published { .. }));
    let shop = world.control.identities.find(Whose::Operator, "shop").expect("made");
    let own = program.address(&session(1)).await;

    let mut client = world.client().await;
    let told = client.status().await.unwrap().published;
    let [at_shop, fresh] = &told[..] else { panic!("{told:?}") };
    assert_eq!((at_shop.identity.as_deref(), &at_shop.ports[..]), (Some("shop"), &[80][..]));
    assert_eq!((at_shop.address, &at_shop.phantom_name), (shop.address().ipv6(), &shop.phantom_name().to_string()));
    assert_eq!((fresh.identity.as_deref(), &fresh.ports[..], fresh.address), (None, &[80, 443][..], own.into()));
    drop(program);
    published(&world, &[(22, alice_address(&mut alice).await)]).await;
    assert_eq!(client.status().await.unwrap().published, []);
}

async fn alice_address(alice: &mut Program) -> ApAddress {
    ApAddress::from_bytes(alice.address(&session(2)).await).unwrap()
}

#[tokio::test]
async fn who_keeps_no_connection_publishes_as_long_as_the_identity_is_open() {
    let world = world();
    for _ in 0..2 {
        let (reply, _) = world.hook().await.ask(&publish(1, Ports::One(80), None, true)).await;
        assert!(matches!(reply, hook::Reply::Published { .. }), "{reply:?}");
    }
    let told = world.client().await.status().await.unwrap().published;
    assert!(matches!(&told[..], [one] if one.ports == [80]), "{told:?}");
    // Others may not; a name at which they publish is theirs.
    let mut bob = world.hook_of(BOB).await;
    assert_eq!(errno_of(&bob.ask(&publish(1, Ports::All, None, true)).await.0), libc::ENETDOWN);
    let reply = bob.ask(&publish(2, Ports::One(80), Some("shop"), true)).await.0;
    assert!(matches!(reply, hook::Reply::Published { .. }), "{reply:?}");
    let has_shop = |whose| world.control.identities.find(whose, "shop").is_some();
    assert!(has_shop(Whose::User(BOB)) && !has_shop(Whose::Operator));
}

#[tokio::test]
async fn who_follows_hears_every_note_until_it_leaves() {
    let world = world();
    let mut alice = world.hook_of(ALICE).await;
    alice.ask(&hook::Request::Enter { identity: session(1) }).await;
    let follow = hook::Request::Follow { identity: session(1) };
    assert_eq!(errno_of(&world.hook_of(BOB).await.ask(&follow).await.0), libc::ENETDOWN, "another user's");
    let mut follower = world.hook_of(ALICE).await;
    assert_eq!(follower.ask(&follow).await.0, hook::Reply::Done);
    let notes = world.daemon.notes.lock().unwrap().clone().unwrap();
    let note = |text: &str| Note::new(hook::About::Hint, text);
    for text in ["one", "another"] {
        notes.send(note(text)).unwrap();
        assert_eq!(follower.read().await.0, hook::Reply::Note(note(text)));
    }
    drop(follower);
    let gone = async {
        while notes.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, gone).await.expect("nobody follows any more");
}

#[tokio::test]
async fn services_of_this_computer_are_offered_by_who_may_administer() {
    let world = world();
    let mut client = world.client().await;
    let to = "127.0.0.1:8080".parse().unwrap();
    let new = |port, identity: Option<&str>| admin::Request::ForwardNew {
        port,
        to,
        identity: identity.map(str::to_owned),
        keep: false,
    };
    let named: Forward = client.ask(&new(80, Some("shop"))).await.unwrap();
    let shop = world.control.identities.find(Whose::Operator, "shop").expect("made");
    assert_eq!((named.address, named.identity.as_deref()), (shop.address().ipv6(), Some("shop")));
    let fresh: Forward = client.ask(&new(80, None)).await.unwrap();
    assert!(fresh.identity.is_none() && fresh.address != named.address);
    let taken: Result<Forward, ClientError> = client.ask(&new(13, None)).await;
    assert!(taken.is_err());
    let remove =
        |identity: Option<&str>| admin::Request::ForwardRemove { port: 80, identity: identity.map(str::to_owned) };
    assert!(client.ask::<Forward>(&remove(Some("nobody"))).await.is_err());
    assert_eq!(client.ask::<Forward>(&remove(Some("shop"))).await.unwrap().address, named.address);
    assert_eq!(client.ask::<Vec<Forward>>(&admin::Request::ForwardList).await.unwrap(), std::slice::from_ref(&fresh));
    assert_eq!(client.ask::<Forward>(&remove(None)).await.unwrap(), fresh);
}
