//! Tells whoever started a run on which ports it listens that nobody else reaches: not published, or on loopback alone.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::hook::{About, Note};
use phantom_ipc::publish::Ports;
use tokio::sync::broadcast;
use tokio::time::interval;

use super::published::Published;

/// How often it is seen what listens, where somebody wants to know. Who listens for so long means it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ports that one note names, and notes of one run: a program that listens everywhere is not worth more.
const MOST: usize = 8;

/// Where programs listen at a moment, as far as somebody may wonder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// For the network, without being published.
    unpublished: BTreeSet<u16>,
    /// Published, but on loopback alone.
    private: BTreeSet<u16>,
}

impl Look {
    /// What was published, where programs listen for the network, and where on loopback. With `all` published a listener on
    /// loopback is mostly meant so (a database behind a server); where it is the only one it is what was to be reached.
    pub(super) fn of(published: &Published, listening: BTreeSet<u16>, on_loopback: BTreeSet<u16>) -> Self {
        let all: Vec<Ports> = published.all().into_iter().map(|(_, ports)| ports).collect();
        let is_named = |port: u16| all.contains(&Ports::One(port));
        let is_all = listening.is_empty() && all.contains(&Ports::All);
        let private = on_loopback.difference(&listening).copied().filter(|port| is_all || is_named(*port)).collect();
        let unpublished = listening.into_iter().filter(|port| !published.admits_anywhere(*port)).collect();
        Self { unpublished, private }
    }
}

/// Where programs listen.
#[async_trait]
pub(super) trait Listening: Send + Sync {
    /// As it is now; none when there are no programs any more.
    async fn look(&self) -> Option<Look>;
}

/// What of one kind was said, and seen at the last look.
#[derive(Default)]
struct Told {
    told: BTreeSet<u16>,
    seen: BTreeSet<u16>,
    said: usize,
}

impl Told {
    /// What is to be said now. Only what was seen twice in a row: some programs listen for a moment, to see whether they can.
    fn news(&mut self, now: BTreeSet<u16>) -> Vec<u16> {
        let new = now.intersection(&self.seen).filter(|port| !self.told.contains(*port));
        let new: Vec<u16> = new.copied().take(if self.said < MOST { MOST } else { 0 }).collect();
        self.told.extend(&new);
        self.said += usize::from(!new.is_empty());
        self.seen = now;
        new
    }
}

/// Says each port once, to those who follow, until the programs are gone.
pub(super) async fn tell(programs: &dyn Listening, notes: &broadcast::Sender<Note>) {
    let mut every = interval(LOOK_EVERY);
    let (mut unpublished, mut private) = (Told::default(), Told::default());
    loop {
        every.tick().await;
        if notes.receiver_count() == 0 {
            // Others who come hear of everything.
            (unpublished, private) = Default::default();
            continue;
        }
        let Some(now) = programs.look().await else { return };
        let news = [
            (unpublished.news(now.unpublished), text as fn(&[u16]) -> String),
            (private.news(now.private), on_loopback),
        ];
        for (ports, text) in news.into_iter().filter(|(ports, _)| !ports.is_empty()) {
            let _ = notes.send(Note::new(About::Hint, &text(&ports)));
        }
    }
}

/// Why nobody comes, though it was published.
fn on_loopback(ports: &[u16]) -> String {
    let (word, is) = if ports.len() == 1 { ("port", "is") } else { ("ports", "are") };
    format!(
        "{word} {} {is} published, but the program listens there on loopback alone, which nobody else reaches: have it listen \
         on 0.0.0.0 or [::]",
        listed(ports, ", ")
    )
}

fn listed(ports: &[u16], between: &str) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}

fn text(ports: &[u16]) -> String {
    let word = if ports.len() == 1 { "port" } else { "ports" };
    format!(
        "nobody else reaches {word} {}, on which the program listens; `--publish {}` lets others in, with `:NAME` at an address \
         that lasts",
        listed(ports, ", "),
        listed(ports, ",")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use phantom_proto::crypto::SigningKey;
    use phantom_proto::ident::ApAddress;

    use super::*;

    /// What listens at each look; none when that is over.
    struct Looks(Mutex<Vec<&'static [u16]>>);

    #[async_trait]
    impl Listening for Looks {
        async fn look(&self) -> Option<Look> {
            let unpublished = self.0.lock().unwrap().pop()?.iter().copied().collect();
            Some(Look { unpublished, ..Look::default() })
        }
    }

    #[test]
    fn what_is_published_but_on_loopback_is_no_secret_to_its_owner() {
        let look = |published: &[Ports], listening: &[u16], on_loopback: &[u16]| {
            let (all, at) =
                (Published::default(), ApAddress::of(&SigningKey::generate(&mut crate::random()).verifying_key()));
            published.iter().for_each(|ports| all.add(at, *ports));
            let look = Look::of(&all, listening.iter().copied().collect(), on_loopback.iter().copied().collect());
            [look.unpublished, look.private].map(|ports| ports.into_iter().collect::<Vec<u16>>())
        };
        const NONE: [Vec<u16>; 2] = [Vec::new(), Vec::new()];
        assert_eq!(look(&[Ports::One(80)], &[443], &[80, 81]), [vec![443], vec![80]]);
        assert_eq!(look(&[Ports::One(80)], &[80], &[80]), NONE, "it listens for others, too");
        assert_eq!(look(&[Ports::All], &[80], &[5432]), NONE, "that is meant so");
        assert_eq!(look(&[Ports::All], &[], &[8000]), [vec![], vec![8000]], "nothing is reached at all");
        assert_eq!(look(&[], &[], &[8000]), NONE);
        let said = on_loopback(&[80]);
        assert!(said.starts_with("port 80 is published, but") && said.contains("0.0.0.0 or [::]"), "{said}");
        assert!(on_loopback(&[80, 81]).starts_with("ports 80, 81 are published"));
    }

    async fn told(looks: &[&'static [u16]]) -> Vec<String> {
        let (notes, mut heard) = broadcast::channel(64);
        tell(&Looks(Mutex::new(looks.iter().rev().copied().collect())), &notes).await;
        std::iter::from_fn(|| heard.try_recv().ok()).map(|note| note.text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_port_is_said_once_and_those_of_a_moment_never() {
        let said = told(&[&[], &[8000], &[8000, 9], &[8000], &[8000, 8001], &[8000, 8001], &[8001]]).await;
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("port 8000,") && said[0].contains("`--publish 8000`"), "{said:?}");
        assert!(said[1].contains("8001") && !said[1].contains("8000"), "{said:?}");
        let said = told(&[&[80, 443], &[80, 443]]).await;
        assert!(said[0].contains("ports 80, 443,") && said[0].contains("`--publish 80,443`"), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_listens_everywhere_is_not_told_of_for_ever() {
        static MANY: [u16; 1000] = {
            let mut many = [0; 1000];
            let mut at = 0;
            while at < many.len() {
                many[at] = at as u16 + 1;
                at += 1;
            }
            many
        };
        let said = told(&[&MANY[..]; 100]).await;
        assert_eq!(said.len(), MOST);
        assert!(said.iter().all(|text| text.len() < 512));
    }
}
