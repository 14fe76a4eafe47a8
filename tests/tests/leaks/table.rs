//! The table: each attack, and how it ends in each way. It is read from a file, and every cell of it is proven.
//!
//! ```text
//!   attack | outside | namespace | preload | ...
//!   udp    | silent* | ECONNREFUSED | ...
//! ```
//! A cell names the results that may be, divided by `/`: an error is what stopped it; `done`, `silent`, `answered` mean
//! that the call worked; `absent`, that there is no such thing here. `*` says that a packet is seen outside.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use crate::world::Linked;

/// What is expected of one attack in one way.
#[derive(Debug, Clone)]
struct Cell {
    results: Vec<String>,
    packet: bool,
}

/// What an attack said about itself.
pub(crate) struct Report {
    /// Its number.
    pub(crate) number: usize,
    /// Its name.
    pub(crate) name: String,
    /// How it went.
    pub(crate) result: String,
}

/// The table.
pub(crate) struct Table {
    ways: Vec<String>,
    rows: BTreeMap<String, Vec<Cell>>,
}

impl Table {
    /// Reads it. Lines that begin with `#` are for people.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let fields = |line: &str| -> Vec<String> { line.split('|').map(|field| field.trim().to_owned()).collect() };
        let ways = fields(lines.next().context("an empty table")?).split_off(1);
        let mut rows = BTreeMap::new();
        for line in lines {
            let mut row = fields(line);
            ensure!(row.len() == ways.len() + 1, "a row of {} cells: {line}", row.len() - 1);
            let cells = row.split_off(1).iter().map(|text| cell(text)).collect();
            ensure!(rows.insert(row.remove(0), cells).is_none(), "a second row: {line}");
        }
        Ok(Self { ways, rows })
    }

    fn column(&self, way: &str) -> Result<usize> {
        self.ways.iter().position(|name| name == way).with_context(|| format!("no column {way:?}"))
    }

    /// Names of the attacks that get a packet out in that way.
    pub(crate) fn open(&self, way: &str) -> Result<Vec<&str>> {
        let column = self.column(way)?;
        Ok(self.rows.iter().filter(|(_, row)| row[column].packet).map(|(name, _)| name.as_str()).collect())
    }

    /// Compares what happened with one way's column; all differences in one error.
    pub(crate) fn check(&self, way: &str, linked: Linked, reports: &[Report], seen: &BTreeSet<usize>) -> Result<()> {
        let column = self.column(way)?;
        let mut wrong = Vec::new();
        for report in reports {
            let packet = seen.contains(&report.number);
            let star = if packet { "*" } else { "" };
            let found = format!("{}: {}{star}", report.name, report.result);
            match self.rows.get(&report.name).map(|row| &row[column]) {
                None => wrong.push(format!("{found}, which the table does not know")),
                // Static programs have no loader, musl not all of the functions.
                Some(_) if linked != Linked::Dynamic && report.result == "absent" && !packet => {}
                Some(cell) if cell.packet == packet && cell.results.contains(&report.result) => {}
                Some(cell) => wrong.push(format!("{found}, expected {}", cell.text())),
            }
        }
        let missing = self.rows.keys().filter(|name| !reports.iter().any(|report| report.name == **name));
        wrong.extend(missing.map(|name| format!("{name}: not tried")));
        if !wrong.is_empty() {
            bail!("{way}:\n  {}", wrong.join("\n  "));
        }
        Ok(())
    }
}

impl Cell {
    fn text(&self) -> String {
        self.results.join("/") + if self.packet { "*" } else { "" }
    }
}

fn cell(text: &str) -> Cell {
    let results = text.trim_end_matches('*').split('/').map(str::to_owned).collect();
    Cell { results, packet: text.ends_with('*') }
}

/// What the hostile program printed: number, name, result.
pub(crate) fn reports(text: &str) -> Result<Vec<Report>> {
    let report = |line: &str| {
        let mut words = line.split(' ');
        let (number, name, result) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        Some(Report { number, name: name.to_owned(), result: result.to_owned() })
    };
    text.lines().map(|line| report(line).with_context(|| format!("no report: {line:?}"))).collect()
}
