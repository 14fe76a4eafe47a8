//! A [`View`] on a terminal of any size.

use std::cmp::Reverse;

use phantom_ipc::admin::{Severity, Warning};
use phantom_proto::node::age;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState};

use super::super::show::{own_record, short};
use super::super::table::{bytes, counted};
use super::view::{Pane, View};
use crate::say::clean;

/// Warnings that are shown; `phantom doctor` has all of them.
const WARNINGS: usize = 3;

/// Columns that a text at the head may take in all: where a line is short, it takes more of them.
const LONG: usize = 160;

/// What went wrong of late, as many as are shown.
const NOTES: usize = 2;

/// Rows that the table which is looked at keeps, whatever is told above it.
const ROWS: usize = 5;

/// What a table has around its rows: a frame, and a head.
const AROUND: usize = 3;

/// Least width of a column that is cut.
const CUT: usize = 12;

/// Between two columns.
const SPACE: u16 = 2;

/// What matters most comes first: a narrow terminal cuts the rest.
const KEYS: &str = " q quit   ? help   Tab other table   s or arrows sort by   r turn round ";

/// Narrow enough for a telephone.
const HELP: &str = "\
q, Esc, Ctrl-C  end
Ctrl-Z          suspend
Tab             another table
s, Right, Left  sort by another one
r               the other way round
Up, Down, j, k  select a row
PgUp, PgDn      ten rows
Home, End       the first, the last
?, h            this help

sent, received: bytes per second
moved: went on over another path
exit connects, lookup asks, entry
serves, a spare stands ready";

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, view: &View) {
    let (width, height) = (usize::from(frame.area().width), usize::from(frame.area().height));
    let summary = summary(view, width);
    // A third, and less where the table would have no room; never nothing.
    let least = ROWS + AROUND + 1;
    let told = told(view, width, (height / 3).min(height.saturating_sub(summary.len() + least)).max(1));
    let room = height.saturating_sub(summary.len() + told.len() + 1);
    let [connections, paths, published] = tables(view, room, height);
    let sizes = [summary.len(), told.len(), connections, paths, published, 1];
    let sizes = sizes.map(|lines| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX)));
    let [head, below, connections, paths, published, keys] = Layout::vertical(sizes).areas(frame.area());
    frame.render_widget(Paragraph::new(summary), head);
    frame.render_widget(Paragraph::new(told), below);
    sheet(frame, view, Pane::Connections, connections);
    sheet(frame, view, Pane::Paths, paths);
    sheet(frame, view, Pane::Published, published);
    frame.render_widget(Paragraph::new(KEYS).style(Modifier::REVERSED), keys);
    if view.help {
        help(frame);
    }
}

/// Lines of each table: the one that is looked at has its rows, or [`ROWS`] of them, before the others have any.
fn tables(view: &View, room: usize, height: usize) -> [usize; 3] {
    let wanted = |pane: Pane| (view.rows(pane).clamp(1, ROWS) + AROUND).min(room);
    // No more than a quarter, as long as another one is looked at.
    let published = match view.rows(Pane::Published) {
        0 => 0,
        rows => (rows + AROUND).min(height / 4),
    };
    if view.pane == Pane::Published {
        let published = published.max(wanted(view.pane)).min(room);
        let others = room - published;
        return [others.div_ceil(2), others / 2, published];
    }
    let own = wanted(view.pane);
    let published = published.min(room - own);
    let both = room - published;
    let own = own.max(both.div_ceil(2));
    match view.pane {
        Pane::Paths => [both - own, own, published],
        _ => [own, both - own, published],
    }
}

fn summary(view: &View, width: usize) -> Vec<Line<'static>> {
    let Some(sample) = view.sample() else { return vec![Line::from(view.socket.clone())] };
    let status = &sample.status;
    // What matters most comes first: a narrow terminal cuts the rest.
    let (state, colour) = match &view.lost {
        Some(why) => (format!("LOST: {why}; what is shown is old"), Color::Red),
        None if status.ready => ("ready".to_owned(), Color::Green),
        None => (format!("waiting for {}", clean(&status.waiting_for)), Color::Yellow),
    };
    let who = format!(
        "; phantom {}, node {}, running for {}",
        status.version,
        short(&status.node_id),
        age(status.uptime_seconds)
    );
    let stands = status.own_record.as_ref().map_or_else(|| "not published yet".to_owned(), own_record);
    let others = [
        format!(
            "{}, {} known; {} out, {} in, {} ready; {}",
            counted(status.peers, "peer"),
            counted(sample.known, "node"),
            counted(status.exit_paths, "path"),
            status.entry_paths,
            counted(status.ready_tunnels, "tunnel"),
            counted(status.open_connections, "connection")
        ),
        format!(
            "for others: {}, {}, {} so far, {}/s now; own record {stands}",
            counted(status.relayed_paths, "path"),
            counted(status.relayed_tunnels, "tunnel"),
            bytes(status.relayed_bytes),
            bytes(view.relayed)
        ),
    ];
    // Where it has no room beside the state, it has lines of its own.
    let first = if state.chars().count() + who.chars().count() <= width {
        vec![Line::from(vec![Span::styled(state, colour), who.into()])]
    } else {
        let state = folded(&state, width).into_iter().map(|line| Line::styled(line, colour));
        state.chain(folded(who.trim_start_matches("; "), width).into_iter().map(Line::from)).collect()
    };
    first.into_iter().chain(others.iter().flat_map(|text| folded(text, width)).map(Line::from)).collect()
}

/// What is wrong, and what went wrong of late, on at most `room` lines of that width: one for each first, then more for those that
/// are worth it, the gravest first.
fn told(view: &View, width: usize, room: usize) -> Vec<Line<'static>> {
    let Some(sample) = view.sample() else { return Vec::new() };
    // Those that are no effect of another.
    let mut all: Vec<_> = sample.status.warnings.iter().filter(|one| one.caused_by.is_none()).collect();
    all.sort_by_key(|one| Reverse(one.severity));
    let shown = if all.len() > WARNINGS.min(room) { WARNINGS.min(room.saturating_sub(1)) } else { all.len() };
    let mut items: Vec<(Color, Vec<String>)> = all.iter().take(shown).map(|one| warning(one, width)).collect();
    if all.len() > shown {
        items.push((Color::Reset, vec![cut(&format!("{} more: phantom doctor", all.len() - shown), width)]));
    }
    let notes = sample.status.notes.iter().take(NOTES.min(room.saturating_sub(items.len())));
    items.extend(notes.map(|note| (Color::Reset, folded(&format!("- {}", clean(note)), width))));
    let mut spare = room.saturating_sub(items.len());
    let mut lines = Vec::new();
    for (colour, mut own) in items {
        let more = own.len().saturating_sub(1).min(spare);
        spare -= more;
        shorten(&mut own, more + 1, width);
        lines.extend(own.into_iter().map(|line| Line::styled(line, colour)));
    }
    lines
}

/// A warning's colour, and its lines: one that is for information has one.
fn warning(one: &Warning, width: usize) -> (Color, Vec<String>) {
    let told = format!("{}: {} ({}): {}", one.severity.word(), clean(&one.text), one.code, clean(&one.advice));
    match one.severity {
        Severity::Info => (Color::Reset, vec![cut(&told, width)]),
        Severity::Warning => (Color::Yellow, folded(&told, width)),
        Severity::Error => (Color::Red, folded(&told, width)),
    }
}

/// A text on lines of that width, two or, where they are short, as many as hold [`LONG`]; what does not fit is an ellipsis.
fn folded(text: &str, width: usize) -> Vec<String> {
    let (length, most) = (|text: &str| text.chars().count(), (LONG / width.max(1)).max(2));
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(last) if length(last) + 1 + length(word) <= width => *last = format!("{last} {word}"),
            Some(_) => lines.push(format!("  {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    shorten(&mut lines, most, width);
    lines
}

/// As many lines as there may be, at least one; that there were more is an ellipsis.
fn shorten(lines: &mut Vec<String>, most: usize, width: usize) {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = last.chars().take(width.saturating_sub(2)).chain(" …".chars()).collect();
        }
    }
}

/// The columns that have room in `width`, in their order, each with its own: the one that may be cut gives way first, then those
/// that matter least are left out.
fn columns(pane: Pane, widths: &[usize], width: usize) -> Vec<(usize, u16)> {
    let mut kept = pane.by_weight().to_vec();
    let space = usize::from(SPACE);
    loop {
        let others: usize = kept.iter().filter(|column| **column != pane.longest()).map(|column| widths[*column]).sum();
        let spaces = space * kept.len().saturating_sub(1);
        let left = width.saturating_sub(others + spaces);
        let wanted = if kept.contains(&pane.longest()) { widths[pane.longest()] } else { 0 };
        if left >= wanted.min(CUT) && others + spaces <= width || kept.len() <= 1 {
            kept.sort_unstable();
            let own = |column: &usize| if *column == pane.longest() { wanted.min(left) } else { widths[*column] };
            return kept.iter().map(|column| (*column, u16::try_from(own(column)).unwrap_or(u16::MAX))).collect();
        }
        kept.pop();
    }
}

/// A cell of that width at most.
fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn sheet(frame: &mut Frame, view: &View, pane: Pane, area: Rect) {
    let sheet = view.sheet(pane);
    let title = match pane {
        Pane::Connections => "connections",
        Pane::Paths => "paths",
        Pane::Published => "published",
    };
    let is_active = view.pane == pane;
    let title = format!(" {title}: {} ", sheet.rows.len());
    let border = if is_active { Style::from(Color::Cyan) } else { Style::default() };
    let block = Block::bordered().title(title).border_style(border);
    let widths: Vec<_> = (0..sheet.head.len())
        .map(|column| {
            let cells = sheet.rows.iter().map(|row| &row[column]).chain([&sheet.head[column]]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let columns = columns(pane, &widths, usize::from(block.inner(area).width));
    let row = |row: &Vec<String>| {
        Row::new(columns.iter().map(|(column, width)| cut(&row[*column], usize::from(*width))).collect::<Vec<_>>())
    };
    let table = Table::new(sheet.rows.iter().map(row), columns.iter().map(|(_, width)| Constraint::Length(*width)))
        .header(row(&sheet.head).style(Modifier::BOLD))
        .column_spacing(SPACE)
        .row_highlight_style(if is_active { Modifier::REVERSED } else { Modifier::empty() })
        .block(block);
    // What is selected is scrolled to.
    let mut state = TableState::default().with_selected(Some(sheet.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn help(frame: &mut Frame) {
    let lines = HELP.lines().count() + 2;
    let width = HELP.lines().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
    let [height, width] = [lines, width].map(|length| u16::try_from(length).unwrap_or(u16::MAX));
    let area = frame.area().centered(Constraint::Length(width), Constraint::Length(height));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" help ")), area);
}

#[cfg(test)]
mod tests {
    use phantom_ipc::admin::{Hop, OwnRecord, Path, PathKind, PathState};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use tokio::time::Instant;

    use super::super::view::tests::{press, sample, view};
    use super::*;

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    fn warning(code: &str, caused_by: Option<&str>) -> Warning {
        Warning {
            code: code.to_owned(),
            severity: Severity::Error,
            text: format!("text of {code}"),
            advice: "wait".to_owned(),
            affects_connections: true,
            since_seconds: 1,
            caused_by: caused_by.map(str::to_owned),
        }
    }

    #[test]
    fn all_that_matters_is_on_one_screen() {
        let text = drawn(&view(&[(7, 2_000_000)]), 130, 30);
        for part in ["ready; phantom 1.2.3, node abababababab, running for 1 h 1 min", "11 peers, 40 nodes known"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("5 tunnels ready; 1 connection ") && !text.contains("1 connections"), "{text}");
        for part in ["2.0 MB so far, 0 B/s now", "connections: 1", "fd70::1", "paths: 2", "1111 → 2222", "q quit"] {
            let part = part.replace("1111", &"1".repeat(12)).replace("2222", &"2".repeat(12));
            assert!(text.contains(&part), "{part}: {text}");
        }
    }

    #[test]
    fn warnings_and_the_loss_of_the_daemon_are_said() {
        let mut sample = sample(&[]);
        sample.status.ready = false;
        sample.status.waiting_for = "a first path".to_owned();
        sample.status.warnings = ["a", "b", "c", "d"].map(|code| warning(code, None)).to_vec();
        sample.status.warnings.push(warning("effect", Some("a")));
        let mut view = view(&[]);
        view.take(Instant::now(), sample);
        let text = drawn(&view, 100, 30);
        assert!(text.contains("waiting for a first path") && text.contains("error: text of c (c): wait"), "{text}");
        assert!(text.contains("1 more: phantom doctor") && !text.contains("effect"), "{text}");
        view.lose("no daemon answers at s\n  start one");
        assert!(drawn(&view, 100, 30).contains("LOST: no daemon answers at s; what is shown is old"));
    }

    #[test]
    fn what_to_do_is_seen_on_a_narrow_terminal_too() {
        let mut sample = sample(&[]);
        let text = "nobody of those that are known here answers this node any more".to_owned();
        let told = Warning { text, advice: "look whether it is online".to_owned(), ..warning("a", None) };
        sample.status.warnings = vec![told];
        let mut view = view(&[]);
        view.take(Instant::now(), sample);
        let text = drawn(&view, 80, 24);
        assert!(text.contains("any more (a): look") && text.contains("  whether it is online"), "{text}");
        let text = drawn(&view, 40, 24);
        assert!(
            text.contains("  here answers this node any more (a):") && text.contains("  look whether it is online"),
            "{text}"
        );
        assert!(text.contains("q quit   ? help"), "{text}");
        assert_eq!(folded("- one", 80), ["- one"]);
        // Two lines of 80, four of 40.
        let long = "word ".repeat(100);
        for (width, lines) in [(120, 2), (80, 2), (40, 4), (20, 8)] {
            let folded = folded(&long, width);
            assert!(
                folded.len() == lines && folded.last().is_some_and(|last| last.ends_with('…')),
                "{width}: {folded:?}"
            );
            assert!(folded.iter().all(|line| line.chars().count() <= width), "{width}: {folded:?}");
        }
    }

    /// Three hints about this node, of two lines each, once left the tables no row on the usual terminal.
    #[test]
    fn whatever_is_told_the_table_that_is_looked_at_keeps_its_rows() {
        let connections: Vec<_> = (0..9).map(|id| (id, id)).collect();
        let mut sample = sample(&connections);
        let long = |code: &str, severity| Warning {
            severity,
            text: format!("{} of {code}", "nobody of those that are known here answers ".repeat(2)),
            advice: "look whether it is online, and whether others can reach this one by its port".to_owned(),
            ..warning(code, None)
        };
        sample.status.warnings = ["a", "b", "c"].map(|code| long(code, Severity::Info)).to_vec();
        sample.status.notes = vec!["a path was lost, and another is built for it now by this node".to_owned(); 2];
        let path = |id: usize| Path {
            id: id.to_string(),
            kind: PathKind::Spare,
            state: PathState::Ready,
            identity: None,
            hops: vec![Hop { node_id: "1".repeat(64), addr: String::new() }],
            age_seconds: 90,
            ready_tunnels: 2,
        };
        sample.paths = (0..9).map(path).collect();
        let rows = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
        let mut view = View::new(std::path::Path::new("s"));
        view.take(Instant::now(), sample.clone());
        let text = drawn(&view, 80, 24);
        assert!(rows(&text, " fd70::1 ") >= ROWS && rows(&text, "info: nobody") == 3, "{text}");
        assert_eq!(rows(&text, "look whether"), 0, "what is for information has one line: {text}");
        press(&mut view, KeyCode::Tab);
        let text = drawn(&view, 80, 24);
        assert!(rows(&text, " spare ") >= ROWS, "{text}");
        // The gravest first, with what to do; and still there are rows.
        sample.status.warnings =
            [("i", Severity::Info), ("w", Severity::Warning), ("e", Severity::Error), ("f", Severity::Error)]
                .map(|(code, severity)| long(code, severity))
                .to_vec();
        view.take(Instant::now(), sample);
        let text = drawn(&view, 80, 24);
        assert!(rows(&text, " spare ") >= ROWS && text.contains("1 more: phantom doctor"), "{text}");
        let place = |code: &str| text.find(&format!(" of {code} ")).unwrap_or(usize::MAX);
        assert!(place("e") < place("f") && place("f") < place("w"), "{text}");
        for (width, height) in [(80, 24), (80, 16), (120, 30), (40, 24), (200, 60)] {
            let text = drawn(&view, width, height);
            let told = text
                .lines()
                .filter(|line| {
                    ["error: ", "warning: ", "info: ", "- "].iter().any(|begin| line[1..].starts_with(begin))
                })
                .count();
            assert!(told > 0 && told <= usize::from(height) / 3, "{width}x{height}: {text}");
        }
    }

    #[test]
    fn on_forty_columns_what_matters_most_is_whole() {
        let mut sample = sample(&[(7, 2_000_000)]);
        sample.connections[0].peer_address = "fd70:1111:2222:3333:4444:5555:6666:7777".parse().unwrap();
        sample.connections[0].moves = 3;
        sample.status.notes = vec!["a path was lost".to_owned()];
        sample.status.own_record = Some(OwnRecord { kept_by: 12, asked: 14, for_seconds: Some(65) });
        let mut view = View::new(std::path::Path::new("s"));
        view.take(Instant::now(), sample);
        let text = drawn(&view, 40, 24);
        for part in
            ["11 peers, 40 nodes known; 2 paths out, 1", "  12 of 14 asked; by more than half for", "- a path was lost"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in ["peer", "way", "received/s ▼", "fd70:1", "…", "kind", "hops", "exit"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // No head of a column is cut: it is whole, or not there.
        assert!(!text.contains("identi") && !text.contains("mov"), "{text}");
        let wide = drawn(&view, 140, 24);
        assert!(wide.contains("fd70:1111:2222:3333:4444:5555:6666:7777") && wide.contains("moved"), "{wide}");
        view.help = true;
        let help = drawn(&view, 40, 24);
        for line in HELP.lines() {
            assert!(help.contains(line), "{line}: {help}");
        }
    }

    #[test]
    fn what_is_selected_is_seen_however_long_the_list() {
        let mut view = view(&(0..200).map(|id| (id, 0)).collect::<Vec<_>>());
        assert!(!drawn(&view, 100, 24).contains("│199"));
        press(&mut view, KeyCode::End);
        assert!(drawn(&view, 100, 24).contains("│199"));
    }

    #[test]
    fn no_size_is_too_small() {
        let mut view = view(&[(1, 1)]);
        for help in [false, true] {
            view.help = help;
            for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 100)] {
                let text = drawn(&view, width, height);
                assert!(!help || width < 80 || text.contains("this help"), "{text}");
            }
        }
    }
}
