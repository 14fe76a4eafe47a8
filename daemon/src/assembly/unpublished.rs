//! Tells whoever started a run on which ports it listens that nobody else reaches.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::hook::{About, Note};
use tokio::sync::broadcast;
use tokio::time::interval;

/// How often it is seen what listens, where somebody wants to know. Who listens for so long means it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ports that one note names, and notes of one run: a program that listens everywhere is not worth more.
const MOST: usize = 8;

/// Where programs listen.
#[async_trait]
pub(super) trait Listening: Send + Sync {
    /// The ports of now that nobody else reaches; none when there are no programs any more.
    async fn unpublished(&self) -> Option<BTreeSet<u16>>;
}

/// Says each port once, to those who follow, until the programs are gone.
pub(super) async fn tell(programs: &dyn Listening, notes: &broadcast::Sender<Note>) {
    let mut look = interval(LOOK_EVERY);
    let (mut told, mut seen, mut said): (BTreeSet<u16>, BTreeSet<u16>, usize) = Default::default();
    loop {
        look.tick().await;
        if notes.receiver_count() == 0 {
            // Others who come hear of everything.
            (told, seen, said) = Default::default();
            continue;
        }
        let Some(now) = programs.unpublished().await else { return };
        // Twice in a row: some programs listen for a moment, to see whether they can.
        let new: Vec<u16> = now.intersection(&seen).filter(|port| !told.contains(*port)).copied().take(MOST).collect();
        if !new.is_empty() && said < MOST {
            told.extend(&new);
            said += 1;
            let _ = notes.send(Note::new(About::Hint, &text(&new)));
        }
        seen = now;
    }
}

fn text(ports: &[u16]) -> String {
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    let word = if ports.len() == 1 { "port" } else { "ports" };
    format!(
        "nobody else reaches {word} {}, on which the program listens; `--publish {}` lets others in, with `:NAME` at an address \
         that lasts",
        list.join(", "),
        list.join(",")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What listens at each look; none when that is over.
    struct Looks(Mutex<Vec<&'static [u16]>>);

    #[async_trait]
    impl Listening for Looks {
        async fn unpublished(&self) -> Option<BTreeSet<u16>> {
            self.0.lock().unwrap().pop().map(|ports| ports.iter().copied().collect())
        }
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
