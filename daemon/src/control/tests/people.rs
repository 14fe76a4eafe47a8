//! The admin dialect: what people and scripts ask.

use phantom_ipc::absent::Absence;

use super::*;

#[tokio::test]
async fn addresses_are_made_listed_and_shown() {
    let world = world();
    let mut client = world.client().await;
    let made: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let shown: Address = client.ask(&admin::Request::AddressShow { name: "web".into() }).await.unwrap();
    let listed: Vec<Address> = client.ask(&admin::Request::AddressList).await.unwrap();
    assert_eq!((&shown, &listed), (&made, &vec![made.clone()]));
    let name: phantom_proto::ident::ApName = made.phantom_name.parse().unwrap();
    assert_eq!(name.address().ipv6(), made.address);
    assert_eq!(*world.daemon.created.lock().unwrap(), [name.address()]);
    let json = serde_json::to_value(&made).unwrap();
    let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["address", "name", "phantom_name"]);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let world = world();
    let mut client = world.client().await;
    let _: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    for (request, says) in [
        (admin::Request::AddressNew { name: "web".into() }, "identity list"),
        (admin::Request::AddressNew { name: "../web".into() }, "another name"),
        (admin::Request::AddressShow { name: "mail".into() }, "identity new"),
        (admin::Request::NetdbLookup { address: "::1".into() }, "identity list"),
    ] {
        let Err(error @ ClientError::Refused(_)) = client.ask::<serde_json::Value>(&request).await else {
            panic!("{request:?}")
        };
        assert!(error.to_string().contains(says), "{error}");
    }
    let status = client.status().await.expect("still served");
    assert_eq!(status.peers, 11);
}

#[tokio::test]
async fn look_ups_take_addresses_names_and_aliases() {
    let world = world();
    let mut client = world.client().await;
    let own: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let friend = friend().address().ipv6();
    for (text, address) in [
        (friend.to_string(), friend),
        ("friend".into(), friend),
        ("friend.phantom".into(), friend),
        ("web".into(), own.address),
        (own.phantom_name.clone(), own.address),
    ] {
        let found: Lookup = client.ask(&admin::Request::NetdbLookup { address: text.clone() }).await.unwrap();
        assert_eq!(found.address, address, "{text}");
    }
}

#[tokio::test]
async fn stop_is_answered_before_it_happens() {
    let world = world();
    world.client().await.ask::<()>(&admin::Request::Stop).await.unwrap();
    timeout(REQUEST_TIME, world.server).await.expect("ends").unwrap();
    assert!(!world.path.exists());
    assert!(matches!(Client::connect(&world.path).await, Err(ClientError::Absent(Absence::Nobody(..)))));
}

#[tokio::test]
async fn scripts_may_send_many_requests_at_once() {
    let world = world();
    let stream = world.raw().await;
    let line = admin::Request::Status.to_line().unwrap();
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(line.repeat(20).as_bytes()).await.unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(stream);
    for _ in 0..20 {
        assert!(lines.next_line().await.unwrap().unwrap().starts_with("{\"ok\""));
    }
}

#[tokio::test]
async fn an_identity_goes_out_and_comes_back_and_nothing_is_lost_on_the_way() {
    let world = world();
    let mut client = world.client().await;
    let web: Address = client.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let right = || admin::Passphrase::new("correct horse");
    let export = |name: &str, passphrase| admin::Request::IdentityExport { name: name.into(), passphrase };
    let sealed: String = client.ask(&export("web", right())).await.unwrap();
    let import = |passphrase, name: Option<&str>| admin::Request::IdentityImport {
        sealed: sealed.clone(),
        passphrase,
        name: name.map(str::to_owned),
    };
    let remove = |name: &str| admin::Request::IdentityRemove { name: name.into() };
    let rename = |name: &str, to: &str| admin::Request::IdentityRename { name: name.into(), to: to.into() };
    for (request, says) in [
        (export("web", admin::Passphrase::new("short")), "at least 8"),
        (export("mail", right()), "no identity of that name"),
        (import(right(), None), "already"),
        (import(right(), Some("other")), "under the name web"),
        (import(admin::Passphrase::new("wrong horse"), Some("other")), "passphrase is wrong"),
        (remove("mail"), "no identity of that name"),
        (rename("web", "a b"), "another name"),
    ] {
        let refused = client.ask::<Address>(&request).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{request:?}: {refused}");
    }
    let shop: Address = client.ask(&rename("web", "shop")).await.unwrap();
    assert_eq!((shop.name.as_str(), shop.address), ("shop", web.address));
    assert_eq!(client.ask::<Address>(&remove("shop")).await.unwrap(), shop);
    assert!(world.daemon.created.lock().unwrap().is_empty());
    assert_eq!(client.ask::<Address>(&import(right(), None)).await.unwrap(), web);
    let listed: Vec<Address> = client.ask(&admin::Request::AddressList).await.unwrap();
    assert_eq!(listed, [web]);
}

#[tokio::test]
async fn an_identity_that_is_in_use_keeps_its_name() {
    let world = world();
    let mut client = world.client().await;
    for name in ["web", "run"] {
        let _: Address = client.ask(&admin::Request::AddressNew { name: name.into() }).await.unwrap();
    }
    let to = "127.0.0.1:1".parse().unwrap();
    let forward = admin::Request::ForwardNew { port: 80, to, identity: Some("web".into()), keep: false };
    let _: Forward = client.ask(&forward).await.unwrap();
    let mut program = world.hook().await;
    program.address(&IdentityRef::Named("run".into())).await;
    for name in ["web", "run"] {
        for request in [
            admin::Request::IdentityRemove { name: name.into() },
            admin::Request::IdentityRename { name: name.into(), to: "shop".into() },
        ] {
            let refused = client.ask::<Address>(&request).await.unwrap_err().to_string();
            assert!(refused.contains("in use"), "{request:?}: {refused}");
        }
    }
    assert_eq!(client.ask::<Vec<Address>>(&admin::Request::AddressList).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_offered_ends_with_the_connection_that_offered_it() {
    let world = world();
    let (mut client, mut other) = (world.client().await, world.client().await);
    let offer = |port| admin::Request::Offer { port, socket: "/run/site".into(), identity: None };
    let offered: Forward = client.ask(&offer(80)).await.unwrap();
    assert_eq!((offered.to.as_str(), offered.keep), ("/run/site", false));
    let Ports::One(taken) = TAKEN else { panic!() };
    assert!(client.ask::<Forward>(&offer(taken)).await.is_err());
    // A name that was made for it says so, and goes again with what does not come about.
    let forward = |port, name: &str| admin::Request::ForwardNew {
        port,
        to: "127.0.0.1:1".parse().unwrap(),
        identity: Some(name.into()),
        keep: false,
    };
    for is_new in [true, false] {
        let made: Forward = client.ask(&forward(if is_new { 81 } else { 82 }, "shop")).await.unwrap();
        assert_eq!(made.new_identity, is_new);
    }
    assert!(client.ask::<Forward>(&forward(taken, "vain")).await.is_err());
    let named: Vec<Address> = client.ask(&admin::Request::AddressList).await.unwrap();
    assert_eq!(named.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["shop"]);
    for port in [81, 82] {
        let gone: Forward = client.ask(&admin::Request::ForwardRemove { port, identity: None }).await.unwrap();
        assert_eq!((gone.port, gone.identity.as_deref()), (port, Some("shop")));
        assert!(client.ask::<Forward>(&admin::Request::ForwardRemove { port, identity: None }).await.is_err());
    }
    let _: Forward = other.ask(&offer(80)).await.unwrap();
    drop(client);
    let one_left = async {
        loop {
            let left: Vec<Forward> = other.ask(&admin::Request::ForwardList).await.unwrap();
            if left.len() == 1 {
                return left;
            }
        }
    };
    let left = timeout(REQUEST_TIME, one_left).await.expect("what was offered is taken back");
    assert_ne!(left[0].address, offered.address, "the other's stays");
}
