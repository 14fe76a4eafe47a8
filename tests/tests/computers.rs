//! docs/computers.md and docs/everyday-shown.md name tests and scripts; they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What the table speaks of.
const ROWS: u32 = 44;

/// `file::test` of a line, between backticks.
fn named(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"))
}

/// Where a test of that file's name stands.
fn path(root: &Path, file: &str) -> PathBuf {
    let at =
        if file.contains("/src/") || file.contains("/tests/") { root.to_owned() } else { root.join("tests/tests") };
    at.join(file).with_extension("rs")
}

/// Whether the text has a test of that name.
fn has(text: &str, test: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let declared = [format!("fn {test}("), format!("async fn {test}(")];
    lines.iter().enumerate().any(|(at, line)| {
        let attributes =
            lines[..at].iter().rev().take_while(|above| above.starts_with("#[") || above.starts_with("//"));
        declared.iter().any(|begin| line.starts_with(begin))
            && attributes.into_iter().any(|above| above.contains("test]") || above.contains("test("))
    })
}

#[test]
fn each_row_names_tests_that_exist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let text = include_str!("../../docs/computers.md");
    let (rows, after) = text.split_once("\n## In which ways").context("where the rows end")?;
    let rows = rows
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| no.") && !line.starts_with("| computer"));
    let mut numbers = BTreeSet::new();
    for row in rows {
        let first = row.split('|').nth(1).context("a cell")?.trim();
        let mut tests = named(row).peekable();
        ensure!(tests.peek().is_some(), "{first}: no test is named");
        numbers.extend(first.parse::<u32>());
        for (file, test) in tests {
            let path = path(root, file);
            let text = fs::read_to_string(&path).with_context(|| format!("{first}: {}", path.display()))?;
            ensure!(has(&text, test), "{first}: there is no test {test} in {}", path.display());
        }
    }
    ensure!(numbers == (1..=ROWS).collect(), "{numbers:?}");
    for (file, test) in after.lines().flat_map(named) {
        let path = path(root, file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(has(&text, test), "there is no test {test} in {}", path.display());
    }
    Ok(())
}

#[test]
fn what_shows_everyday_use_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let rows = include_str!("../../docs/everyday-shown.md").lines().filter(|line| line.starts_with("| "));
    let rows: Vec<_> = rows.filter(|line| !line.starts_with("| promise")).collect();
    for row in &rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, promise, shown, left, _] = cells[..] else { anyhow::bail!("{row}: not three cells") };
        ensure!(!shown.is_empty() || !left.is_empty(), "{promise}: neither shown nor said to be left");
        for (file, test) in named(shown).chain(named(left)) {
            let path = path(root, file);
            let text = fs::read_to_string(&path).with_context(|| format!("{promise}: {}", path.display()))?;
            ensure!(has(&text, test), "{promise}: there is no test {test} in {}", path.display());
        }
        for script in shown.split('`').filter(|word| word.starts_with("scripts/")) {
            ensure!(root.join(script).is_file(), "{promise}: no {script}");
        }
    }
    ensure!(rows.len() > 25, "{} rows", rows.len());
    Ok(())
}

#[test]
fn only_tests_count() {
    let text = "#[test]\nfn one() {}\n    #[tokio::test]\n    // why\n    async fn two() {}\nfn three() {}\n";
    assert!(has(text, "one") && has(text, "two"));
    assert!(!has(text, "three") && !has(text, "on"));
}
