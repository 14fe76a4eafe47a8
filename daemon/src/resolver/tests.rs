//! Against resolvers of every kind, over memory.

use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::AAAA;
use hickory_proto::rr::{RData, Record};
use tokio::io::{DuplexStream, duplex};

use super::*;

const AP: Ipv6Addr = Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 1);

/// What a resolver does with a question, and the connection on which it came.
type Act = fn(Message, DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>>;

struct ToTest {
    dialed: Arc<AtomicUsize>,
    act: Option<Act>,
}

#[async_trait]
impl Dial for ToTest {
    async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError> {
        self.dialed.fetch_add(1, Ordering::SeqCst);
        let act = self.act.ok_or(ConnectError::Refused)?;
        let (near, mut far) = duplex(1 << 20);
        tokio::spawn(async move {
            let mut question = vec![0; far.read_u16().await.unwrap().into()];
            far.read_exact(&mut question).await.unwrap();
            act(Message::from_vec(&question).unwrap(), far).await;
        });
        Ok(Box::new(near))
    }
}

fn world(act: Option<Act>) -> (Resolver, Arc<AtomicUsize>) {
    let dialed = Arc::new(AtomicUsize::new(0));
    (Resolver::new(ToTest { dialed: dialed.clone(), act }, ThisComputer::default()), dialed)
}

fn answer_to(mut message: Message) -> Message {
    message.metadata.message_type = MessageType::Response;
    let record = Record::from_rdata(message.queries[0].name.clone(), 600, RData::AAAA(AAAA(AP)));
    message.answers.push(record);
    message
}

async fn send(message: &Message, mut to: DuplexStream) {
    let bytes = message.to_vec().unwrap();
    to.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    to.write_all(&bytes).await.unwrap();
    // Until the other side has taken it.
    let _ = to.read_u8().await;
}

fn good(message: Message, to: DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { send(&answer_to(message), to).await })
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_once_and_kept() {
    let (resolver, dialed) = world(Some(good));
    let both = tokio::join!(resolver.resolve("shop.example"), resolver.resolve("SHOP.example."));
    let address = |found: Result<Option<Found>, Unanswered>| found.unwrap().unwrap().address.ipv6();
    assert_eq!((address(both.0), address(both.1)), (AP, AP));
    assert_eq!(address(resolver.resolve("shop.example").await), AP);
    assert_eq!(dialed.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(address(resolver.resolve("shop.example").await), AP);
    assert_eq!(dialed.load(Ordering::SeqCst), 2, "the answer was over");
}

#[tokio::test(start_paused = true)]
async fn names_that_are_nobody_elses_business_are_not_asked() {
    let (resolver, dialed) = world(Some(good));
    for name in ["printer", "printer.local", "x.onion", "mistyped.phantom", "10.0.0.1", ""] {
        assert_eq!(resolver.resolve(name).await, Ok(None), "{name}");
    }
    assert_eq!(dialed.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn resolvers_that_are_hostile_dead_or_slow_are_no_answer() {
    let hostile: [(&str, Act); 8] = [
        ("another id", |message, to| {
            Box::pin(async move {
                let mut answer = answer_to(message);
                answer.metadata.id ^= 1;
                send(&answer, to).await;
            })
        }),
        ("another name", |message, to| {
            Box::pin(async move {
                let mut answer = answer_to(message);
                answer.queries[0].name = Name::from_ascii("other.example.").unwrap();
                send(&answer, to).await;
            })
        }),
        ("too long", |_, mut to| {
            Box::pin(async move {
                let _ = to.write_all(&[0xff; 70_000]).await;
                let _ = to.read_u8().await;
            })
        }),
        ("never ends", |_, mut to| {
            Box::pin(async move {
                let _ = to.write_u16(100).await;
                // One byte at a time, and ever slower.
                while to.write_u8(0).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                }
            })
        }),
        ("says nothing", |_, to| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                drop(to);
            })
        }),
        ("hangs up", |_, to| Box::pin(async move { drop(to) })),
        ("garbage", |_, mut to| Box::pin(async move { to.write_all(b"\0\x0cHTTP/1.1 200").await.unwrap() })),
        ("empty", |_, mut to| Box::pin(async move { to.write_all(&[0, 0]).await.unwrap() })),
    ];
    for (what, act) in hostile {
        let (resolver, dialed) = world(Some(act));
        let begun = Instant::now();
        assert_eq!(resolver.resolve("shop.example").await, Err(Unanswered), "{what}");
        assert!(begun.elapsed() <= PATIENCE, "{what}");
        assert_eq!(resolver.resolve("shop.example").await, Err(Unanswered), "{what}");
        assert_eq!(dialed.load(Ordering::SeqCst), 2, "{what}: a failure is not kept");
    }
    let (resolver, _) = world(None);
    assert_eq!(resolver.resolve("shop.example").await, Err(Unanswered), "nobody there");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_gave_up_finds_the_answer_later() {
    let late: Act = |message, to| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            send(&answer_to(message), to).await;
        })
    };
    let (resolver, dialed) = world(Some(late));
    let first = timeout(Duration::from_secs(5), resolver.resolve("shop.example")).await;
    assert!(first.is_err());
    assert_eq!(resolver.resolve("shop.example").await.unwrap().unwrap().address.ipv6(), AP);
    assert_eq!(dialed.load(Ordering::SeqCst), 1);
}
