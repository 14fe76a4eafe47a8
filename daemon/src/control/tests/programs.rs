//! The hook dialect: sockets, namespaces and names for programs.

use super::*;

#[tokio::test]
async fn programs_get_sockets_of_their_namespace() {
    let world = world();
    let mut program = world.hook().await;
    let socket = |domain| hook::Request::Socket { identity: session(1), domain, kind: libc::SOCK_STREAM, protocol: 0 };
    let (reply, descriptors) = program.ask(&socket(libc::AF_INET6)).await;
    assert_eq!(reply, hook::Reply::Descriptor);
    assert_eq!(rustix::net::sockopt::socket_domain(&descriptors[0]).unwrap(), rustix::net::AddressFamily::INET6);
    let (reply, _) = program.ask(&socket(libc::AF_PACKET)).await;
    assert_eq!(errno_of(&reply), libc::EAFNOSUPPORT);
}

#[tokio::test]
async fn entering_gives_namespaces_and_who_one_is() {
    use std::os::unix::fs::MetadataExt;
    let world = world();
    let (reply, descriptors) = world.hook().await.ask(&hook::Request::Enter { identity: session(1) }).await;
    let hook::Reply::Entered { address, ipv4, name, has_user_namespace } = reply else { panic!("{reply:?}") };
    assert_eq!((ipv4, has_user_namespace), (OWN.octets(), true));
    let name: phantom_proto::ident::ApName = name.parse().unwrap();
    assert_eq!(name.address().octets(), address);
    let inode = |descriptor: OwnedFd| std::fs::File::from(descriptor).metadata().unwrap().ino();
    let passed: Vec<u64> = descriptors.into_iter().map(inode).collect();
    let own = ["net", "user"].map(|kind| std::fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino());
    assert_eq!(passed, own);
}

#[tokio::test]
async fn names_resolve_both_ways_and_others_are_not_found() {
    let world = world();
    let mut program = world.hook().await;
    let resolve = |name: &str| hook::Request::Resolve { identity: session(1), name: name.into() };
    let found = hook::Reply::Addresses { v6: Some(friend().address().octets()), v4: Some(ALIAS.octets()) };
    for name in ["friend", "friend.phantom", &friend().to_string()] {
        assert_eq!(program.ask(&resolve(name)).await.0, found, "{name}");
    }
    for name in ["example.com", "localhost", "friend.example.com"] {
        assert_eq!(program.ask(&resolve(name)).await.0, hook::Reply::NotFound, "{name}");
    }
    let mut reverse = async |address| program.ask(&hook::Request::Reverse { identity: session(1), address }).await.0;
    let named = hook::Reply::Name("friend.phantom".into());
    assert_eq!(reverse(friend().address().ipv6().into()).await, named);
    assert_eq!(reverse(ALIAS.into()).await, named);
    assert_eq!(reverse("8.8.8.8".parse().unwrap()).await, hook::Reply::NotFound);
    assert_eq!(reverse("2001:db8::1".parse().unwrap()).await, hook::Reply::NotFound);
    let own = std::net::Ipv6Addr::from(program.address(&session(1)).await);
    let reply = program.ask(&hook::Request::Reverse { identity: session(1), address: own.into() }).await.0;
    assert!(matches!(reply, hook::Reply::Name(name) if name.ends_with(".phantom")));
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_may_answer_later() {
    let world = world();
    let request = hook::Request::Resolve { identity: session(1), name: "unanswered.example".into() };
    assert_eq!(errno_of(&world.hook().await.ask(&request).await.0), libc::EAGAIN);
}

#[tokio::test]
async fn a_listener_on_loopback_lasts_as_long_as_its_connection() {
    let world = world();
    let mut program = world.hook().await;
    let call = |call| hook::Request::Loopback { identity: session(1), call };
    let (local, at) = ("0.0.0.0:80".parse().unwrap(), "127.0.0.1:7000".parse().unwrap());
    let listen = call(hook::Loopback::Listen { local, at });
    assert_eq!(program.ask(&listen).await.0, hook::Reply::Address(local));
    assert_eq!(errno_of(&program.ask(&listen).await.0), libc::EMFILE, "each has a connection of its own");
    assert_eq!(program.ask(&call(hook::Loopback::Peer { source: at })).await.0, hook::Reply::NotFound);
    let to = "[fd70::1]:80".parse().unwrap();
    let refused = program.ask(&call(hook::Loopback::Connect { to, from: at })).await.0;
    assert_eq!(errno_of(&refused), libc::ECONNREFUSED);
    let listeners = || world.daemon.listeners.load(Ordering::SeqCst);
    assert_eq!(listeners(), 1);
    drop(program);
    while listeners() > 0 {
        tokio::task::yield_now().await;
    }
}
