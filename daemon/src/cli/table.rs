//! Plain tables for people: columns as wide as their widest cell, no lines, no colours.

use std::fmt::Display;

use crate::say::clean;

/// Lays out `rows` under `head`; every row has as many cells as the head.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&widths, head.iter().copied());
    for row in rows {
        text.push_str(&line(&widths, row.iter().map(String::as_str)));
    }
    text
}

/// Labels and values, one pair per line.
pub(super) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(label, value)| format!("{label:width$}  {value}\n")).collect()
}

fn line<'a>(widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<String> = widths.iter().zip(cells).map(|(&width, cell)| format!("{:width$}", clean(cell))).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// How many there are of something.
pub(super) fn counted<N: Display + From<u8> + PartialEq>(count: N, what: &str) -> String {
    format!("{count} {what}{}", if count == N::from(1) { "" } else { "s" })
}

/// A number of bytes as people read it.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // Tenths of the unit, in whole numbers: exact for every u64.
    let mut tenths = u128::from(count) / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".into(), "long cell".into()], ["längst".into(), "x".into()]];
        assert_eq!(table(["id", "state"], &rows), "id      state\na       long cell\nlängst  x\n");
        assert_eq!(pairs(&[("ready", "yes".into()), ("id", "1".into())]), "ready  yes\nid     1\n");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "path")), ["0 paths", "1 path", "2 paths"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(table(["x"], &[["\x1b[2J".into()]]), "x\n?[2J\n");
    }

    #[test]
    fn bytes_are_readable() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "999.9 kB"), (1_000_000, "1.0 MB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }
}
