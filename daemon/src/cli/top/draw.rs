//! A [`View`] on a terminal of any size.

use phantom_ipc::admin::Severity;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState};

use super::super::show::{age, short};
use super::super::table::{bytes, clean};
use super::view::{Pane, View};

/// Warnings that are shown; `phantom doctor` has all of them.
const WARNINGS: usize = 3;

const KEYS: &str = " q quit   Tab other table   s or arrows sort by   r turn round   ? help ";

const HELP: &str = "\
q, Esc, Ctrl-C   end
Tab              the other table
s, Right, Left   sort by another column
r                sort the other way round
Up, Down, j, k   select a row
PgUp, PgDn       ten rows
Home, End        the first, the last
?, h             this help

connections      what programs have open; sent and received
                 are bytes per second
paths            exit: connects; lookup: asks; entry: serves;
                 spare: stands ready for what comes";

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, view: &View) {
    let warnings = warnings(view);
    let sizes = [
        Constraint::Length(3),
        Constraint::Length(u16::try_from(warnings.len()).unwrap_or(u16::MAX)),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [head, told, connections, paths, keys] = Layout::vertical(sizes).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(view)), head);
    frame.render_widget(Paragraph::new(warnings), told);
    sheet(frame, view, Pane::Connections, connections);
    sheet(frame, view, Pane::Paths, paths);
    frame.render_widget(Paragraph::new(KEYS).style(Modifier::REVERSED), keys);
    if view.help {
        help(frame);
    }
}

fn summary(view: &View) -> Vec<Line<'static>> {
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
    let first = Line::from(vec![Span::styled(state, colour), who.into()]);
    let second = format!(
        "{} peers, {} nodes known; {} paths out, {} in, {} tunnels ready; {} connections",
        status.peers,
        sample.known,
        status.exit_paths,
        status.entry_paths,
        status.ready_tunnels,
        status.open_connections
    );
    let third = format!(
        "for others: {} paths, {} tunnels, {} so far, {}/s now",
        status.relayed_paths,
        status.relayed_tunnels,
        bytes(status.relayed_bytes),
        bytes(view.relayed)
    );
    vec![first, second.into(), third.into()]
}

/// Those that are no effect of another.
fn warnings(view: &View) -> Vec<Line<'static>> {
    let Some(sample) = view.sample() else { return Vec::new() };
    let all: Vec<_> = sample.status.warnings.iter().filter(|one| one.caused_by.is_none()).collect();
    let colour = |severity| match severity {
        Severity::Info => Color::Reset,
        Severity::Warning => Color::Yellow,
        Severity::Error => Color::Red,
    };
    let mut lines: Vec<_> = all
        .iter()
        .take(WARNINGS)
        .map(|one| Line::styled(format!("! {} ({}): {}", clean(&one.text), one.code, one.advice), colour(one.severity)))
        .collect();
    if all.len() > WARNINGS {
        lines.push(format!("! {} more: phantom doctor", all.len() - WARNINGS).into());
    }
    lines
}

fn sheet(frame: &mut Frame, view: &View, pane: Pane, area: Rect) {
    let sheet = view.sheet(pane);
    let title = match pane {
        Pane::Connections => "connections",
        Pane::Paths => "paths",
    };
    let is_active = view.pane == pane;
    let title = format!(" {title}: {} ", sheet.rows.len());
    let border = if is_active { Style::from(Color::Cyan) } else { Style::default() };
    let block = Block::bordered().title(title).border_style(border);
    let widths: Vec<_> = (0..sheet.head.len())
        .map(|column| {
            let cells = sheet.rows.iter().map(|row| &row[column]).chain([&sheet.head[column]]);
            let width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
        })
        .collect();
    let table = Table::new(sheet.rows.into_iter().map(Row::new), widths)
        .header(Row::new(sheet.head).style(Modifier::BOLD))
        .column_spacing(2)
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
    use phantom_ipc::admin::Warning;
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
        assert!(text.contains("waiting for a first path") && text.contains("! text of c (c): wait"), "{text}");
        assert!(text.contains("! 1 more: phantom doctor") && !text.contains("effect"), "{text}");
        view.lose("no daemon listens on s\n  start one");
        assert!(drawn(&view, 100, 30).contains("LOST: no daemon listens on s; what is shown is old"));
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
