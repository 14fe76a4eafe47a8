//! How long an identity lives, and how many there may be.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[tokio::test]
async fn sessions_are_unlinkable_and_names_persist() {
    let world = world();
    let mut admin = world.client().await;
    let web: Address = admin.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let (mut one, mut other) = (world.hook().await, world.hook().await);
    let first = one.address(&session(1)).await;
    assert_eq!(other.address(&session(1)).await, first, "one token, one identity");
    assert_ne!(other.address(&session(2)).await, first);
    let named = IdentityRef::Named("web".into());
    assert_eq!(one.address(&named).await, web.address.octets());
    let unknown = hook::Request::Info { identity: IdentityRef::Named("mail".into()) };
    assert_eq!(errno_of(&one.ask(&unknown).await.0), libc::ENETDOWN);
    let odd = hook::Request::Info { identity: IdentityRef::Named("../web".into()) };
    let hook::Reply::Failed { errno: libc::ENETDOWN, message } = one.ask(&odd).await.0 else { panic!("taken") };
    assert!(message.contains("a-z"), "{message}");
    assert_eq!(world.daemon.opened.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_named_identity_stays_open_while_it_is_held_and_a_while_after() {
    let world = world();
    let _: Address = world.client().await.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let mut holder = world.hook().await;
    holder.ask(&hook::Request::Enter { identity: IdentityRef::Named("web".into()) }).await;
    sleep(GRACE * 10).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 0, "held");
    drop(holder);
    sleep(GRACE / 2).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 0, "the next program may come");
    sleep(GRACE).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 1);
    assert!(world.control.spaces().addresses().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fresh_identity_ends_with_its_run() {
    let world = world();
    world.daemon.in_use.store(true, Ordering::SeqCst);
    let (mut one, mut other) = (world.hook().await, world.hook().await);
    for holder in [&mut one, &mut other] {
        holder.ask(&hook::Request::Enter { identity: session(1) }).await;
    }
    drop(one);
    sleep(GRACE * 3).await;
    assert_eq!(world.control.spaces().addresses().len(), 1, "held by the other");
    drop(other);
    sleep(GRACE * 3).await;
    assert_eq!(world.control.spaces().addresses().len(), 1, "what was written is on its way");
    world.daemon.in_use.store(false, Ordering::SeqCst);
    sleep(GRACE / 20).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 1);
    // And at once where nothing is on its way.
    let mut next = world.hook().await;
    next.ask(&hook::Request::Enter { identity: session(2) }).await;
    drop(next);
    sleep(GRACE / 20).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn sockets_that_still_exist_keep_an_identity_open() {
    let world = world();
    let before = world.hook().await.address(&session(1)).await;
    world.daemon.in_use.store(true, Ordering::SeqCst);
    sleep(GRACE * 10).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 0);
    assert_eq!(world.hook().await.address(&session(1)).await, before);
    world.daemon.in_use.store(false, Ordering::SeqCst);
    sleep(GRACE * 3).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 1);
    assert_ne!(world.hook().await.address(&session(1)).await, before, "forgotten: a new one");
}

#[tokio::test]
async fn entering_twice_holds_once_and_holds_are_bounded() {
    let world = world();
    let mut program = world.hook().await;
    let mut enter = async |token| program.ask(&hook::Request::Enter { identity: session(token) }).await;
    for token in 0..8 {
        assert_eq!(enter(token).await.1.len(), 2);
        assert_eq!(enter(token).await.1.len(), 2);
    }
    assert_eq!(errno_of(&enter(8).await.0), libc::EMFILE);
}

#[tokio::test]
async fn open_identities_are_bounded() {
    let world = world();
    let mut rng = StdRng::seed_from_u64(1);
    for n in 0..MAX_OPEN {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&n.to_be_bytes());
        world.control.spaces().open(&Which::Session(token), Owner::own(), &mut rng).await.unwrap();
    }
    let reply = world.hook().await.ask(&hook::Request::Info { identity: session(0xff) }).await.0;
    assert_eq!(errno_of(&reply), libc::EAGAIN);
}

#[tokio::test]
async fn a_namespace_that_cannot_be_made_is_said_and_tried_again() {
    let world = world();
    world.daemon.refuse_open.store(true, Ordering::SeqCst);
    let mut program = world.hook().await;
    let info = hook::Request::Info { identity: session(1) };
    let hook::Reply::Failed { errno, message } = program.ask(&info).await.0 else { panic!() };
    assert_eq!((errno, message.as_str()), (libc::EPERM, "no namespaces here: be root"));
    assert!(world.control.spaces().addresses().is_empty());
    world.daemon.refuse_open.store(false, Ordering::SeqCst);
    program.address(&session(1)).await;
}

#[tokio::test]
async fn closing_ends_every_identity() {
    let world = world();
    let mut program = world.hook().await;
    program.ask(&hook::Request::Enter { identity: session(1) }).await;
    program.address(&session(2)).await;
    world.control.close().await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn sessions_belong_to_the_user_who_began_them() {
    let world = world();
    let (mut alice, mut bob) = (world.hook_of(ALICE).await, world.hook_of(BOB).await);
    let enter = |token| hook::Request::Enter { identity: session(token) };
    assert_eq!(alice.ask(&enter(1)).await.1.len(), 2);
    assert_eq!(errno_of(&bob.ask(&enter(1)).await.0), libc::ENETDOWN, "another user's session");
    assert_eq!(world.hook().await.ask(&enter(1)).await.1.len(), 2, "root and the daemon's user may");
    assert_eq!(bob.ask(&enter(2)).await.1.len(), 2);
    let owner = |uid| Owner { uid, gid: uid };
    assert_eq!(*world.daemon.owners.lock().unwrap(), [owner(ALICE), owner(BOB)]);
    // A server's worker that became another user has the session's token, and needs sockets.
    assert_eq!(bob.address(&session(1)).await, alice.address(&session(1)).await);
}

#[tokio::test]
async fn names_of_the_operator_are_not_those_of_other_users() {
    let world = world();
    let _: Address = world.client().await.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let mut alice = world.hook_of(ALICE).await;
    for name in ["web", "mail"] {
        let identity = IdentityRef::Named(name.into());
        for request in [
            hook::Request::Enter { identity: identity.clone() },
            hook::Request::Info { identity: identity.clone() },
            hook::Request::Socket { identity, domain: libc::AF_INET6, kind: libc::SOCK_STREAM, protocol: 0 },
        ] {
            assert_eq!(errno_of(&alice.ask(&request).await.0), libc::ENETDOWN, "{request:?}");
        }
    }
    assert_eq!(world.daemon.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn each_user_has_names_of_their_own() {
    let world = world();
    let new = || admin::Request::AddressNew { name: "web".into() };
    let mut made = Vec::new();
    for mut client in [world.client().await, world.client_of(ALICE).await, world.client_of(BOB).await] {
        made.push(client.ask::<Address>(&new()).await.unwrap());
        let listed: Vec<Address> = client.ask(&admin::Request::AddressList).await.unwrap();
        assert_eq!(listed, made[made.len() - 1..], "none of the others'");
    }
    let web = || IdentityRef::Named("web".into());
    let programs = [world.hook().await, world.hook_of(ALICE).await, world.hook_of(BOB).await];
    for (mut program, made) in programs.into_iter().zip(&made) {
        assert_eq!(program.address(&web()).await, made.address.octets());
        assert_eq!(program.ask(&hook::Request::Enter { identity: web() }).await.1.len(), 2);
    }
    let owner = |uid| Owner { uid, gid: uid };
    assert_eq!(*world.daemon.owners.lock().unwrap(), [Owner::own(), owner(ALICE), owner(BOB)]);
    // What is published at a name without an identity makes one, the user's.
    let mut alice = world.hook_of(ALICE).await;
    alice.ask(&hook::Request::Enter { identity: session(1) }).await;
    let at = Some("shop".into());
    let publish = hook::Request::Publish { identity: session(1), ports: Ports::One(80), at, stays: false };
    let hook::Reply::Published { address, .. } = alice.ask(&publish).await.0 else { panic!() };
    let shown = async |mut client: Client| {
        client
            .ask::<Address>(&admin::Request::AddressShow { name: "shop".into() })
            .await
            .map(|one| one.address.octets())
    };
    assert_eq!(shown(world.client_of(ALICE).await).await.unwrap(), address);
    assert!(shown(world.client_of(BOB).await).await.is_err() && shown(world.client().await).await.is_err());
    // A worker that became somebody else is hers by the token that was lent, and hers alone.
    let mut worker = world.hook_of(BOB).await;
    alice.ask(&hook::Request::Enter { identity: web() }).await;
    alice.ask(&hook::Request::Lend { identity: web(), token: [9; 16] }).await;
    assert_eq!(worker.address(&session(9)).await, made[1].address.octets());
    let enter = hook::Request::Enter { identity: session(9) };
    assert_eq!(errno_of(&worker.ask(&enter).await.0), libc::ENETDOWN, "its namespaces are hers");
    let mut nobody = world.hook_of(65_534).await;
    assert_eq!(errno_of(&nobody.ask(&hook::Request::Info { identity: web() }).await.0), libc::ENETDOWN);
    let refused = world.client_of(65_534).await.ask::<Address>(&new()).await.unwrap_err();
    assert!(refused.to_string().contains("only root"), "{refused}");
}

#[tokio::test]
async fn of_one_user_one_request_at_a_time_seals() {
    let world = world();
    let export =
        || admin::Request::IdentityExport { name: "web".into(), passphrase: admin::Passphrase::new("correct horse") };
    let made =
        async |mut client: Client| client.ask::<Address>(&admin::Request::AddressNew { name: "web".into() }).await;
    made(world.client().await).await.unwrap();
    made(world.client_of(ALICE).await).await.unwrap();
    made(world.client_of(BOB).await).await.unwrap();
    let turn = world.control.sealing.lock().await;
    let mut waits = world.client_of(ALICE).await;
    let first = tokio::spawn(async move { waits.ask::<String>(&export()).await });
    let waiting = async {
        while world.control.sealing_for.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, waiting).await.expect("one is counted");
    let mut more = world.client_of(ALICE).await;
    let second = timeout(REQUEST_TIME, more.ask::<String>(&export())).await.expect("at once").unwrap_err();
    assert!(second.to_string().contains("another export"), "{second}");
    let (mut bob, mut root) = (world.client_of(BOB).await, world.client().await);
    let others = tokio::spawn(async move { (bob.ask::<String>(&export()).await, root.ask::<String>(&export()).await) });
    drop(turn);
    first.await.unwrap().expect("sealed");
    let (bobs, roots) = others.await.unwrap();
    bobs.and(roots).expect("sealed, one after the other");
    world.client_of(ALICE).await.ask::<String>(&export()).await.expect("the next one");
}

#[tokio::test]
async fn other_users_learn_nothing_of_the_node() {
    let world = world();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    tokio::spawn(converse(Connection::new(ours, Owner { uid: ALICE, gid: ALICE }), Arc::clone(&world.control)));
    let line = admin::Request::Stop.to_line().unwrap();
    theirs.write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    theirs.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("{\"error\"") && answer.lines().count() == 1, "{answer}");
    world.client().await.status().await.expect("not stopped");
}

#[tokio::test]
async fn one_user_cannot_use_up_all_identities() {
    let world = world();
    let mut alice = world.hook_of(ALICE).await;
    let info = |n: usize| {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&n.to_be_bytes());
        hook::Request::Info { identity: IdentityRef::Session(token) }
    };
    for n in 0..MAX_OPEN_BY_OTHERS {
        assert!(matches!(alice.ask(&info(n)).await.0, hook::Reply::Info { .. }));
    }
    assert_eq!(errno_of(&alice.ask(&info(MAX_OPEN_BY_OTHERS)).await.0), libc::EAGAIN);
    let other = info(MAX_OPEN_BY_OTHERS + 1);
    assert!(matches!(world.hook_of(BOB).await.ask(&other).await.0, hook::Reply::Info { .. }));
}

#[tokio::test]
async fn a_user_of_many_groups_and_numbers_has_one_share_and_root_keeps_its_own() {
    let world = world();
    let mut rng = StdRng::seed_from_u64(2);
    let mut tokens = 0u128..;
    let mut open = async |owner| {
        let token = Which::Session(tokens.next().unwrap().to_be_bytes());
        world.control.spaces().open(&token, owner, &mut rng).await.map(drop)
    };
    let own = u32::try_from(MAX_OPEN_BY_OTHERS).unwrap();
    for gid in 0..own {
        open(Owner { uid: ALICE, gid }).await.unwrap();
    }
    assert_eq!(open(Owner { uid: ALICE, gid: own }).await.unwrap_err().errno, libc::EAGAIN, "other groups, one user");
    // As subordinate ids are: other users for the kernel, one person.
    let others = u32::try_from(MAX_OPEN_BY_ALL_OTHERS).unwrap();
    for uid in own..others {
        open(Owner { uid: BOB + uid, gid: 1 }).await.unwrap();
    }
    assert_eq!(open(Owner { uid: BOB, gid: BOB }).await.unwrap_err().errno, libc::EAGAIN);
    open(Owner::own()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broken_namespace_is_made_anew_for_whoever_comes() {
    let world = world();
    let mut holder = world.hook().await;
    holder.ask(&hook::Request::Enter { identity: session(1) }).await;
    let before = holder.address(&session(1)).await;
    world.daemon.broken.store(true, Ordering::SeqCst);
    // Every space of this daemon is broken now: each use closes one and opens another.
    let mut next = world.hook().await;
    assert_eq!(next.address(&session(1)).await, before, "the same identity");
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 1);
    assert_eq!(world.daemon.opened.load(Ordering::SeqCst), 2);
    world.daemon.broken.store(false, Ordering::SeqCst);
    next.ask(&hook::Request::Enter { identity: session(1) }).await;
    // Whoever held the broken one lets nothing else go.
    drop(holder);
    sleep(GRACE * 10).await;
    assert_eq!(world.daemon.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_token_that_was_lent_means_the_name_until_the_lender_goes() {
    let world = world();
    let web: Address = world.client().await.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
    let (web, named) = (web.address.octets(), || IdentityRef::Named("web".into()));
    let (mut lender, mut worker) = (world.hook().await, world.hook_of(1234).await);
    let lend = |identity, byte| hook::Request::Lend { identity, token: [byte; 16] };
    assert_eq!(errno_of(&worker.ask(&hook::Request::Info { identity: named() }).await.0), libc::ENETDOWN);
    assert_eq!(errno_of(&lender.ask(&lend(named(), 9)).await.0), libc::EPERM, "not entered");
    lender.ask(&hook::Request::Enter { identity: named() }).await;
    assert!(matches!(lender.ask(&lend(named(), 9)).await.0, hook::Reply::Info { address, .. } if address == web));
    assert_eq!(errno_of(&lender.ask(&lend(named(), 9)).await.0), libc::EEXIST);
    assert_eq!(errno_of(&lender.ask(&lend(session(1), 8)).await.0), libc::EINVAL);
    assert_eq!(worker.address(&session(9)).await, web);
    assert_eq!(errno_of(&worker.ask(&lend(session(9), 7)).await.0), libc::ENETDOWN, "the lender's to lend");
    // A worker's hold does not make the name its own.
    worker.ask(&hook::Request::Hold { identity: session(9) }).await;
    let publish = hook::Request::Publish { identity: session(9), ports: Ports::One(9), at: None, stays: false };
    let enter = hook::Request::Enter { identity: session(9) };
    assert_eq!(errno_of(&worker.ask(&lend(session(9), 7)).await.0), libc::ENETDOWN, "not the worker's to lend");
    assert_eq!(errno_of(&worker.ask(&publish).await.0), libc::ENETDOWN, "nor to publish at");
    assert_eq!(errno_of(&worker.ask(&enter).await.0), libc::ENETDOWN, "namespaces are its owner's");
    drop(lender);
    let over = async { while worker.address(&session(9)).await == web {} };
    timeout(REQUEST_TIME, over).await.expect("the token means nothing any more");
}
