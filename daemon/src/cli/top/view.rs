//! What `phantom top` shows, as a value: the last answers, what became of them per second, and how they are sorted.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path as File;

use phantom_ipc::admin::{Connection, ConnectionState, Direction, Forward, Path, PathKind, Published, Status};
use phantom_proto::node::age;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;

use super::super::show::{path_kind, short};
use super::super::table::bytes;
use crate::say::clean;

/// What a daemon answered at one moment.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) status: Status,
    pub(super) paths: Vec<Path>,
    pub(super) connections: Vec<Connection>,
    pub(super) forwards: Vec<Forward>,
    /// Nodes to choose from.
    pub(super) known: usize,
}

/// Bytes per second, from here and to here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Connections,
    Paths,
    Published,
}

impl Pane {
    const ALL: [Self; 3] = [Self::Connections, Self::Paths, Self::Published];

    fn head(self) -> &'static [&'static str] {
        match self {
            Self::Connections => &CONNECTIONS,
            Self::Paths => &PATHS,
            Self::Published => &PUBLISHED,
        }
    }

    /// Its columns, what matters most first: a narrow terminal leaves the last out.
    pub(super) fn by_weight(self) -> &'static [usize] {
        match self {
            Self::Connections => &[3, 1, 8, 7, 5, 4, 10, 9, 6, 2, 0],
            Self::Paths => &[1, 5, 4, 3, 2, 0],
            Self::Published => &[0, 1, 3, 2, 4],
        }
    }

    /// The column that may be cut.
    pub(super) fn longest(self) -> usize {
        match self {
            Self::Connections => 3,
            Self::Paths => 5,
            Self::Published => 3,
        }
    }
}

/// How a table is looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Column that it is sorted by.
    column: usize,
    descending: bool,
    selected: usize,
}

/// A table as it is drawn.
pub(super) struct Sheet {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) selected: usize,
}

pub(super) struct View {
    pub(super) socket: String,
    sample: Option<(Instant, Sample)>,
    rates: BTreeMap<u64, Rates>,
    pub(super) relayed: u64,
    /// Why there is no newer answer.
    pub(super) lost: Option<String>,
    pub(super) pane: Pane,
    looks: [Look; Pane::ALL.len()],
    pub(super) help: bool,
}

/// A cell: what it is sorted by, and what is read.
struct Cell(Key, String);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Text(String),
}

fn number(value: u64, text: String) -> Cell {
    Cell(Key::Number(value), text)
}

fn text(text: impl Into<String>) -> Cell {
    // Names and addresses came from a network.
    let text = clean(&text.into());
    Cell(Key::Text(text.clone()), text)
}

const CONNECTIONS: [&str; 11] =
    ["id", "way", "identity", "peer", "port", "state", "age", "sent/s", "received/s", "in all", "moved"];
/// Those that are over come behind all others.
const STATE: usize = 5;
const CLOSED: &str = "closed";
const PATHS: [&str; 6] = ["id", "kind", "identity", "age", "tunnels", "hops, from here outwards"];
const PUBLISHED: [&str; 5] = ["identity", "ports", "leads to", "from outside", "name"];

impl View {
    /// Of the daemon at that socket, with no answer yet: what moves most comes first.
    pub(super) fn new(socket: &File) -> Self {
        let busiest = Look { column: 8, descending: true, selected: 0 };
        Self {
            socket: clean(&socket.display().to_string()),
            sample: None,
            rates: BTreeMap::new(),
            relayed: 0,
            lost: None,
            pane: Pane::Connections,
            looks: [busiest, Look::default(), Look::default()],
            help: false,
        }
    }

    pub(super) fn sample(&self) -> Option<&Sample> {
        self.sample.as_ref().map(|(_, sample)| sample)
    }

    /// A new answer.
    pub(super) fn take(&mut self, now: Instant, sample: Sample) {
        self.lost = None;
        let (mut rates, mut relayed) = (BTreeMap::new(), 0);
        if let Some((then, before)) = &self.sample {
            let took = u64::try_from(now.saturating_duration_since(*then).as_millis()).unwrap_or(u64::MAX);
            // After a restart the counters begin anew.
            let per_second = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1000) / took.max(1);
            let old: BTreeMap<_, _> = before.connections.iter().map(|one| (one.id, one)).collect();
            for one in &sample.connections {
                if let Some(old) = old.get(&one.id) {
                    let sent = per_second(one.sent_bytes, old.sent_bytes);
                    rates.insert(one.id, Rates { sent, received: per_second(one.received_bytes, old.received_bytes) });
                }
            }
            relayed = per_second(sample.status.relayed_bytes, before.status.relayed_bytes);
        }
        (self.rates, self.relayed) = (rates, relayed);
        self.sample = Some((now, sample));
    }

    /// No answer: the last one stays, and is said to be old.
    pub(super) fn lose(&mut self, why: &str) {
        self.lost = Some(clean(why.lines().next().unwrap_or_default()));
        (self.rates, self.relayed) = (BTreeMap::new(), 0);
    }

    /// What a key does; false when that is the end.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let columns = self.pane.head().len();
        let last = self.rows(self.pane).saturating_sub(1);
        let look = &mut self.looks[self.pane as usize];
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('q') => return false,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => return false,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Pane::ALL.len() - 1),
            KeyCode::Right | KeyCode::Char('s') => look.column = (look.column + 1) % columns,
            KeyCode::Left => look.column = (look.column + columns - 1) % columns,
            KeyCode::Char('r') => look.descending = !look.descending,
            KeyCode::Down | KeyCode::Char('j') => look.selected = (look.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => look.selected = look.selected.min(last).saturating_sub(1),
            KeyCode::PageDown => look.selected = (look.selected + 10).min(last),
            KeyCode::PageUp => look.selected = look.selected.min(last).saturating_sub(10),
            KeyCode::Home => look.selected = 0,
            KeyCode::End => look.selected = last,
            _ => {}
        }
        true
    }

    /// The table so many further on; where nothing is published none of that is shown.
    fn turn(&mut self, by: usize) {
        let at = |steps: usize| Pane::ALL[(self.pane as usize + steps) % Pane::ALL.len()];
        let is_shown = |pane: &Pane| *pane != Pane::Published || self.rows(*pane) > 0;
        self.pane = Some(at(by)).filter(is_shown).unwrap_or_else(|| at(2 * by));
    }

    pub(super) fn rows(&self, pane: Pane) -> usize {
        self.sample().map_or(0, |sample| match pane {
            Pane::Connections => sample.connections.len(),
            Pane::Paths => sample.paths.len(),
            Pane::Published => sample.status.published.len(),
        })
    }

    /// A table, sorted as is wanted.
    pub(super) fn sheet(&self, pane: Pane) -> Sheet {
        let look = self.looks[pane as usize];
        let rows = self.sample().map(|sample| match pane {
            Pane::Connections => sample.connections.iter().map(|one| self.connection(one)).collect(),
            Pane::Paths => sample.paths.iter().map(path).collect(),
            Pane::Published => sample.status.published.iter().map(|one| published(one, &sample.forwards)).collect(),
        });
        let mut rows: Vec<Vec<Cell>> = rows.unwrap_or_default();
        let by = |row: &Vec<Cell>, other: &Vec<Cell>| -> Ordering {
            let order = row[look.column].0.cmp(&other[look.column].0);
            // What is equal stays where it is while numbers change around it.
            let order = if look.descending { order.reverse() } else { order };
            let is_over = |row: &Vec<Cell>| pane == Pane::Connections && row[STATE].1 == CLOSED;
            is_over(row).cmp(&is_over(other)).then(order).then_with(|| row[0].0.cmp(&other[0].0))
        };
        rows.sort_by(by);
        let mark = |(column, name): (usize, &&str)| match (column == look.column, look.descending) {
            (false, _) => (*name).to_owned(),
            (true, false) => format!("{name} ▲"),
            (true, true) => format!("{name} ▼"),
        };
        Sheet {
            head: pane.head().iter().enumerate().map(mark).collect(),
            selected: look.selected.min(rows.len().saturating_sub(1)),
            rows: rows.into_iter().map(|row| row.into_iter().map(|cell| cell.1).collect()).collect(),
        }
    }

    fn connection(&self, one: &Connection) -> Vec<Cell> {
        let rates = self.rates.get(&one.id).copied().unwrap_or_default();
        let way = if one.direction == Direction::Outgoing { "out" } else { "in" };
        let state = match one.state {
            ConnectionState::Opening => "opening",
            ConnectionState::Open => "open",
            ConnectionState::Closed => CLOSED,
        };
        let in_all = one.sent_bytes.saturating_add(one.received_bytes);
        vec![
            number(one.id, one.id.to_string()),
            text(way),
            text(one.identity.clone().unwrap_or_else(|| "-".to_owned())),
            text(one.peer_address.to_string()),
            number(one.port.into(), one.port.to_string()),
            text(state),
            number(one.age_seconds, age(one.age_seconds)),
            number(rates.sent, bytes(rates.sent)),
            number(rates.received, bytes(rates.received)),
            number(in_all, bytes(in_all)),
            number(one.moves.into(), if one.moves == 0 { "-".to_owned() } else { one.moves.to_string() }),
        ]
    }
}

/// Where others reach something of this computer.
fn published(one: &Published, forwards: &[Forward]) -> Vec<Cell> {
    let ports: Vec<_> = one.ports.iter().map(ToString::to_string).collect();
    let leads = forwards.iter().filter(|forward| forward.address == one.address && one.ports.contains(&forward.port));
    let leads: Vec<_> = leads
        .map(|forward| format!("{}{}", forward.to, if forward.listens { "" } else { " (nothing listens)" }))
        .collect();
    let or_dash = |said: String| if said.is_empty() { "-".to_owned() } else { said };
    vec![
        text(one.identity.clone().unwrap_or_else(|| "-".to_owned())),
        number(one.ports.first().copied().unwrap_or_default().into(), ports.join(", ")),
        text(or_dash(leads.join(", "))),
        text(or_dash(one.seen.clone())),
        text(one.phantom_name.clone()),
    ]
}

fn path(one: &Path) -> Vec<Cell> {
    let hops: Vec<_> = one.hops.iter().map(|hop| short(&hop.node_id)).collect();
    // By what they are for: those that work come first.
    let order = match one.kind {
        PathKind::Exit => 0,
        PathKind::Lookup => 1,
        PathKind::Entry => 2,
        PathKind::Spare => 3,
    };
    let id = one.id.parse().map_or_else(|_| text(one.id.clone()), |id| number(id, one.id.clone()));
    vec![
        id,
        number(order, path_kind(one.kind).to_owned()),
        text(one.identity.clone().unwrap_or_else(|| "-".to_owned())),
        number(one.age_seconds, age(one.age_seconds)),
        number(one.ready_tunnels, one.ready_tunnels.to_string()),
        text(hops.join(" → ")),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use phantom_ipc::admin::{Hop, PathState};

    use super::*;

    pub(in super::super) fn sample(connections: &[(u64, u64)]) -> Sample {
        let status = Status {
            version: "1.2.3".to_owned(),
            node_id: "ab".repeat(32),
            listen: Vec::new(),
            peer: String::new(),
            ready: true,
            waiting_for: String::new(),
            peers: 11,
            exit_paths: 2,
            entry_paths: 1,
            ready_tunnels: 5,
            open_connections: connections.len() as u64,
            notes: Vec::new(),
            warnings: Vec::new(),
            start: Vec::new(),
            published: Vec::new(),
            own_record: None,
            router: String::new(),
            relayed_paths: 3,
            relayed_tunnels: 4,
            relayed_bytes: connections.iter().map(|one| one.1).sum(),
            uptime_seconds: 3700,
        };
        let path = |(id, kind): (&str, PathKind)| Path {
            id: id.to_owned(),
            kind,
            state: PathState::Ready,
            identity: None,
            hops: [1, 2].map(|n| Hop { node_id: format!("{n}").repeat(64), addr: String::new() }).to_vec(),
            age_seconds: 90,
            ready_tunnels: 2,
        };
        let connection = |(id, received_bytes): &(u64, u64)| Connection {
            id: *id,
            direction: Direction::Outgoing,
            state: ConnectionState::Open,
            identity: Some("shop\u{1b}[2J".to_owned()),
            peer_address: "fd70::1".parse().unwrap(),
            port: 80,
            age_seconds: 5,
            sent_bytes: 0,
            received_bytes: *received_bytes,
            moves: 0,
            last_move: None,
            own_path: None,
            own_hops: Vec::new(),
            far_node: None,
            far_hops: None,
        };
        let paths = [("10", PathKind::Spare), ("9", PathKind::Exit)].map(path).to_vec();
        let connections = connections.iter().map(connection).collect();
        Sample { status, paths, connections, forwards: Vec::new(), known: 40 }
    }

    pub(in super::super) fn view(connections: &[(u64, u64)]) -> View {
        let mut view = View::new(File::new("/run/socket"));
        view.take(Instant::now(), sample(connections));
        view
    }

    pub(in super::super) fn press(view: &mut View, code: KeyCode) -> bool {
        view.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn ids(view: &View, pane: Pane) -> Vec<String> {
        view.sheet(pane).rows.into_iter().map(|row| row[0].clone()).collect()
    }

    #[test]
    fn what_moves_most_comes_first_and_rates_are_those_of_the_last_second() {
        let now = Instant::now();
        let mut view = View::new(File::new("s"));
        view.take(now, sample(&[(1, 0), (2, 1000), (3, 7)]));
        assert_eq!(ids(&view, Pane::Connections), ["1", "2", "3"], "nothing is known of rates");
        view.take(now + Duration::from_millis(500), sample(&[(1, 2000), (2, 1000), (3, 17), (4, 1 << 40)]));
        assert_eq!(ids(&view, Pane::Connections), ["1", "3", "2", "4"], "a new one counts from the next look");
        assert_eq!(view.rates[&1], Rates { sent: 0, received: 4000 });
        // The daemon was started anew: its counters, too.
        view.take(now + Duration::from_secs(1), sample(&[(1, 5)]));
        assert_eq!((view.rates[&1].received, view.relayed), (0, 0));
    }

    #[test]
    fn a_daemon_that_is_lost_is_said_and_its_rates_are_over() {
        let mut view = view(&[(1, 0)]);
        view.take(Instant::now() + Duration::from_secs(1), sample(&[(1, 9000)]));
        assert!(view.rates[&1].received > 0);
        view.lose("no daemon answers\n  start one");
        assert_eq!(view.lost.as_deref(), Some("no daemon answers"));
        assert!(view.rates.is_empty() && ids(&view, Pane::Connections) == ["1"]);
        view.take(Instant::now(), sample(&[]));
        assert_eq!(view.lost, None);
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_either_way() {
        let mut view = view(&[]);
        press(&mut view, KeyCode::Tab);
        assert_eq!(ids(&view, Pane::Paths), ["9", "10"]);
        press(&mut view, KeyCode::Char('r'));
        assert_eq!(ids(&view, Pane::Paths), ["10", "9"]);
        assert_eq!(view.sheet(Pane::Paths).head[0], "id ▼");
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(view.sheet(Pane::Paths).head[..2], ["id", "kind ▼"]);
        assert_eq!(ids(&view, Pane::Paths), ["10", "9"], "spares come after those that work");
        for _ in 0..2 {
            press(&mut view, KeyCode::Left);
        }
        assert!(view.sheet(Pane::Paths).head.last().unwrap().ends_with('▼'));
    }

    #[test]
    fn what_is_published_is_shown_with_where_it_leads_and_by_its_key() {
        let mut sample = sample(&[]);
        let address = "fd70::2".parse().unwrap();
        let phantom_name = "x.phantom".to_owned();
        let at = |ports: &[u16]| Published {
            identity: Some("shop".to_owned()),
            address,
            phantom_name: phantom_name.clone(),
            ports: ports.to_vec(),
            seen: "seen from outside just now".to_owned(),
        };
        sample.status.published = vec![at(&[80, 443])];
        sample.forwards = vec![Forward {
            port: 443,
            to: "127.0.0.1:8443".to_owned(),
            identity: Some("shop".to_owned()),
            address,
            phantom_name: phantom_name.clone(),
            keep: true,
            listens: false,
            new_identity: false,
        }];
        let mut view = view(&[]);
        press(&mut view, KeyCode::BackTab);
        assert_eq!(view.pane, Pane::Paths, "there is nothing published");
        view.take(Instant::now(), sample);
        let rows = view.sheet(Pane::Published).rows;
        let row = ["shop", "80, 443", "127.0.0.1:8443 (nothing listens)", "seen from outside just now", "x.phantom"];
        assert_eq!(rows, [row]);
        press(&mut view, KeyCode::Tab);
        assert_eq!(view.pane, Pane::Published);
        press(&mut view, KeyCode::Tab);
        assert_eq!(view.pane, Pane::Connections);
    }

    #[test]
    fn every_column_has_its_weight() {
        for pane in Pane::ALL {
            let mut columns = pane.by_weight().to_vec();
            columns.sort_unstable();
            assert!(columns.into_iter().eq(0..pane.head().len()), "{pane:?}");
        }
    }

    #[test]
    fn a_selection_stays_within_what_is_there() {
        let mut view = view(&[(1, 0), (2, 0)]);
        for code in [KeyCode::Down, KeyCode::PageDown, KeyCode::End] {
            press(&mut view, code);
            assert_eq!(view.sheet(Pane::Connections).selected, 1);
        }
        view.take(Instant::now(), sample(&[]));
        assert_eq!(view.sheet(Pane::Connections).selected, 0);
        assert!(press(&mut view, KeyCode::Up) && press(&mut view, KeyCode::Down));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let mut view = view(&[]);
        assert!(!press(&mut view, KeyCode::Char('q')) && !press(&mut view, KeyCode::Esc));
        assert!(!view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(press(&mut view, KeyCode::Char('?')) && view.help);
        assert!(press(&mut view, KeyCode::Esc) && !view.help, "that ends the help first");
    }

    #[test]
    fn nothing_of_the_network_steers_the_terminal() {
        let view = view(&[(1, 0)]);
        let sheet = view.sheet(Pane::Connections);
        assert!(sheet.rows.iter().flatten().all(|cell| !cell.chars().any(char::is_control)), "{:?}", sheet.rows);
    }
}
