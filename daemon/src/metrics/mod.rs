//! Numbers for Prometheus: what a node does, without an address, a name or an identity anywhere.

mod serve;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use serve::{Source, serve};

/// All numbers of one moment; counts are since the daemon's start.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// For how long it has been running.
    pub uptime_seconds: u64,
    /// Whether programs can be served.
    pub ready: bool,
    /// Own paths by what they are for.
    pub paths: Vec<(&'static str, u64)>,
    /// Tunnels that are ready on own paths.
    pub ready_tunnels: u64,
    /// Open connections of programs, outgoing and incoming.
    pub connections: [u64; 2],
    /// Connections of programs so far.
    pub connections_begun: u64,
    /// Bytes from and to programs.
    pub bytes: [u64; 2],
    /// Paths and tunnels of others.
    pub relayed: [u64; 2],
    /// Bytes of others.
    pub relayed_bytes: u64,
    /// Builds of own paths by what became of them.
    pub builds: Vec<(&'static str, u64)>,
    /// Codes of warnings that are told, and whether connections suffer.
    pub warnings: Vec<(String, bool)>,
    /// Nodes that are connected, and nodes that are known.
    pub nodes: [u64; 2],
    /// Nodes that are known and did not answer last.
    pub silent_nodes: u64,
    /// Whether others took the own record when it was last published.
    pub published: bool,
    /// Whether a router forwards the port.
    pub forwarded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: String,
    affects_connections: &'static str,
}

impl Numbers {
    /// In the text form of OpenMetrics.
    ///
    /// # Errors
    /// None that is known: text is written to memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("phantom");
        registry.register("build", "Version of the daemon", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        self.own(&mut registry);
        self.for_others(&mut registry);
        self.state(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn own(&self, registry: &mut Registry) {
        let paths = labelled(self.paths.iter().map(|(kind, count)| (Kind { kind }, *count)));
        registry.register("paths", "Own paths that stand", paths);
        registry.register("ready_tunnels", "Tunnels that are ready on own paths", gauge(self.ready_tunnels));
        let directions = ["outgoing", "incoming"].map(|direction| Direction { direction });
        let open = labelled(directions.into_iter().zip(self.connections));
        registry.register("connections", "Open connections of programs", open);
        registry.register("connections_begun", "Connections of programs", counter(self.connections_begun));
        let directions = ["sent", "received"].map(|direction| Direction { direction });
        let bytes = counted(directions.into_iter().zip(self.bytes));
        registry.register_with_unit("connection", "From and to programs", Unit::Bytes, bytes);
        let builds = counted(self.builds.iter().map(|(outcome, count)| (Outcome { outcome }, *count)));
        registry.register("builds", "What became of builds of own paths", builds);
    }

    fn for_others(&self, registry: &mut Registry) {
        let [paths, tunnels] = self.relayed;
        registry.register("relayed_paths", "Paths of others that lead through here", gauge(paths));
        registry.register("relayed_tunnels", "Tunnels of others that lead through here", gauge(tunnels));
        registry.register_with_unit("relayed", "Passed on for others", Unit::Bytes, counter(self.relayed_bytes));
    }

    fn state(&self, registry: &mut Registry) {
        registry.register_with_unit("uptime", "Since the start", Unit::Seconds, gauge(self.uptime_seconds));
        registry.register("ready", "Whether programs can be served", gauge(self.ready.into()));
        let [connected, known] = self.nodes;
        registry.register("peers", "Nodes that are connected", gauge(connected));
        registry.register("known_nodes", "Nodes in the local sample of the database", gauge(known));
        registry.register("silent_nodes", "Of these, nodes that did not answer last", gauge(self.silent_nodes));
        registry.register("record_published", "Whether others took the own record", gauge(self.published.into()));
        registry.register("router_forwards", "Whether the router forwards the port", gauge(self.forwarded.into()));
        let one = |(code, affects): &(String, bool)| {
            (Code { code: code.clone(), affects_connections: if *affects { "yes" } else { "no" } }, 1)
        };
        registry.register("warning", "Warnings that are told, by code", labelled(self.warnings.iter().map(one)));
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(signed(value));
    gauge
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn labelled<L>(values: impl Iterator<Item = (L, u64)>) -> Family<L, Gauge>
where
    L: Clone + std::hash::Hash + Eq,
{
    let family = Family::<L, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(signed(value));
    }
    family
}

fn counted<L>(values: impl Iterator<Item = (L, u64)>) -> Family<L, Counter>
where
    L: Clone + std::hash::Hash + Eq,
{
    let family = Family::<L, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_text_that_prometheus_reads() {
        let numbers = Numbers {
            ready: true,
            paths: vec![("exit", 2), ("entry", 3)],
            bytes: [5, u64::MAX],
            builds: vec![("stood", 4)],
            warnings: vec![("no-tunnel".into(), true)],
            nodes: [8, 11],
            ..Numbers::default()
        };
        let text = numbers.text().unwrap();
        for line in [
            "phantom_ready 1",
            "phantom_paths{kind=\"exit\"} 2",
            "phantom_paths{kind=\"entry\"} 3",
            "phantom_connection_bytes_total{direction=\"sent\"} 5",
            "phantom_connection_bytes_total{direction=\"received\"} 18446744073709551615",
            "phantom_builds_total{outcome=\"stood\"} 4",
            "phantom_warning{code=\"no-tunnel\",affects_connections=\"yes\"} 1",
            "phantom_peers 8",
            "# TYPE phantom_relayed_bytes counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    /// The dashboard asks for what is there.
    #[test]
    fn the_dashboard_and_the_document_name_what_is_there() {
        let numbers = Numbers {
            paths: vec![("exit", 1)],
            builds: vec![("stood", 1)],
            warnings: vec![("no-path".into(), true)],
            ..Numbers::default()
        };
        let text = numbers.text().unwrap();
        let is_there = |name: &str| text.lines().any(|line| line.split([' ', '{']).next() == Some(name));
        let dashboard = include_str!("../../../docs/grafana.json");
        let names = dashboard.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names: Vec<_> = names.filter(|name| name.starts_with("phantom_")).collect();
        assert!(names.len() > 10, "{names:?}");
        assert!(names.iter().all(|name| is_there(name)), "{names:?} in:\n{text}");
        assert!(serde_json::from_str::<serde_json::Value>(dashboard).is_ok());
        let document = include_str!("../../../docs/metrics.md");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split([' ', '{']).next().unwrap();
            assert!(document.contains(&format!("`{name}`")), "{name} is not in the document");
        }
    }
}
