//! Ports that programs publish: for how long, and who is told of them.

use super::*;

/// Waits until exactly these ports are published, by where.
async fn published(world: &World, expected: &[(u16, ApAddress)]) {
    let ends = async {
        while *world.daemon.published.lock().unwrap() != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, ends).await.expect("published as expected");
}

#[tokio::test]
async fn ports_are_published_as_long_as_the_connection() {
    let world = world();
    let mut program = world.hook().await;
    let publish =
        |port, at: Option<&str>| hook::Request::Publish { identity: session(1), port, at: at.map(str::to_owned) };
    assert_eq!(errno_of(&program.ask(&publish(80, None)).await.0), libc::EPERM, "not entered");
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    let own = program.address(&session(1)).await;
    let (reply, _) = program.ask(&publish(80, None)).await;
    assert!(matches!(&reply, hook::Reply::Info { address, ipv4, .. } if *address == own && *ipv4 == OWN.octets()));
    let (reply, _) = program.ask(&publish(443, Some("shop"))).await;
    let shop = world.control.identities.find("shop").expect("made");
    let told = hook::Reply::Info {
        address: shop.address().octets(),
        ipv4: ALIAS.octets(),
        name: shop.phantom_name().to_string(),
    };
    assert_eq!(reply, told);
    assert_eq!(*world.daemon.created.lock().unwrap(), [shop.address()]);
    let own = ApAddress::from_bytes(own).unwrap();
    published(&world, &[(80, own), (443, shop.address())]).await;
    for (port, name, errno) in [(TAKEN, None, libc::EADDRINUSE), (1, Some("A b"), libc::EINVAL)] {
        assert_eq!(errno_of(&program.ask(&publish(port, name)).await.0), errno);
    }
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
    let publish = |which, port, at: Option<&str>| hook::Request::Publish {
        identity: session(which),
        port,
        at: at.map(str::to_owned),
    };
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    alice.ask(&hook::Request::Enter { identity: session(2) }).await;
    for request in [publish(1, 443, None), publish(1, 80, None), publish(1, 80, Some("shop"))] {
        assert!(matches!(program.ask(&request).await.0, hook::Reply::Info { .. }));
    }
    assert!(matches!(alice.ask(&publish(2, 22, None)).await.0, hook::Reply::Info { .. }));
    let shop = world.control.identities.find("shop").expect("made");
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
