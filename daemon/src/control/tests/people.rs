//! The admin dialect: what people and scripts ask.

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
        (admin::Request::AddressNew { name: "web".into() }, "address list"),
        (admin::Request::AddressNew { name: "../web".into() }, "another name"),
        (admin::Request::AddressShow { name: "mail".into() }, "address new"),
        (admin::Request::NetdbLookup { address: "::1".into() }, "address list"),
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
    assert!(matches!(Client::connect(&world.path).await, Err(ClientError::NoDaemon(_))));
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
