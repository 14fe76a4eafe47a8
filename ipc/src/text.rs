//! Text for people, as each program says it: nothing in it steers a terminal, and where a terminal is narrow no word is broken.

use std::env;
use std::ffi::OsString;

/// Text of several lines that cannot steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '?' } else { letter }).collect()
}

/// The same of one line.
pub fn clean(text: &str) -> String {
    plain(text).replace('\n', "?")
}

/// A message, of which whatever repeats this process's own arguments, or the variables that name its files, begins no line: a name that
/// somebody else chose (`phantom serve "$FOLDER"`) could say anything there.
pub fn message(text: &str) -> String {
    let variables = env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["HOME", "PWD", "TMPDIR"].contains(&&*name) || name.starts_with("XDG_") || name.starts_with("PHANTOM_")
    });
    repeated(&plain(text), env::args_os().skip(1).chain(variables.map(|(_, value)| value)))
}

/// The text, without the line ends that are theirs.
fn repeated(text: &str, sayings: impl Iterator<Item = OsString>) -> String {
    let (mut body, end) = match text.strip_suffix('\n') {
        Some(body) => (body.to_owned(), "\n"),
        None => (text.to_owned(), ""),
    };
    for saying in sayings {
        // As they stand in a message.
        let saying: Vec<char> = plain(&saying.to_string_lossy()).chars().collect();
        for at in (0..saying.len()).filter(|at| saying[*at] == '\n') {
            // With its neighbours, since a part of the saying may be all that is repeated.
            let around: String = saying[at.saturating_sub(1)..saying.len().min(at + 2)].iter().collect();
            body = body.replace(&around, &around.replace('\n', "?"));
        }
    }
    body + end
}

/// The text for a terminal of `width` columns: lines that are longer go on in further ones, below the column in which their last part
/// begins, or a little to the right. Words, and commands between backticks, stay whole, whatever room they take.
pub fn folded(text: &str, width: usize) -> String {
    text.split_inclusive('\n')
        .map(|line| if columns(line.trim_end()) > width { fold(line, width) } else { line.to_owned() })
        .collect()
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn fold(line: &str, width: usize) -> String {
    let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
    let label = label(body, width);
    let words = words(&body[label..]);
    let indent = if label > 0 { columns(&body[..label]) } else { 2 };
    // A name that would just fit without it is not pushed over the edge.
    let longest = words.iter().map(|(_, word)| columns(word)).filter(|length| *length <= width).max().unwrap_or(0);
    let indent = indent.min(width - longest);
    let (mut folded, mut at) = (body[..label].to_owned(), columns(&body[..label]));
    for (place, (gap, word)) in words.into_iter().enumerate() {
        if place > 0 && at + gap + columns(word) > width {
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            at = indent;
        } else {
            folded.push_str(&" ".repeat(gap));
            at += gap;
        }
        folded.push_str(word);
        at += columns(word);
    }
    folded + end
}

/// How many bytes stand before the last column that begins in the first third: tables and pairs have two spaces between columns, prose has
/// one. Of a line that is indented, the indentation; else nothing.
fn label(line: &str, width: usize) -> usize {
    let indentation = line.len() - line.trim_start_matches(' ').len();
    let first_third = line.char_indices().nth(width / 3).map_or(line.len(), |(at, _)| at);
    let begins =
        |at: &usize| line.is_char_boundary(*at) && line[..*at].ends_with("  ") && !line[*at..].starts_with(' ');
    (indentation + 1..=first_third).rev().find(begins).unwrap_or(indentation)
}

/// Words with the number of spaces before them.
fn words(text: &str) -> Vec<(usize, &str)> {
    let (mut words, mut rest) = (Vec::new(), text);
    loop {
        let begins = rest.len() - rest.trim_start_matches(' ').len();
        if begins == rest.len() {
            return words;
        }
        let word = &rest[begins..];
        // What is between backticks is one: whoever copies it gets one line.
        let (mut length, mut ticks) = (0, 0);
        for (at, letter) in word.char_indices() {
            if letter == ' ' && (ticks % 2 == 0 || !word[at..].contains('`')) {
                break;
            }
            ticks += usize::from(letter == '`');
            length = at + letter.len_utf8();
        }
        words.push((begins, &word[..length]));
        rest = &word[length..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_text_steers_a_terminal() {
        let hostile = "a\u{1b}[2Jb\u{7}\rc\u{9b}31md\ne\tf\u{7f}ü";
        assert_eq!(plain(hostile), "a?[2Jb??c?31md\ne?f?ü");
        assert_eq!(clean(hostile), "a?[2Jb??c?31md?e?f?ü");
    }

    #[test]
    fn what_was_said_begins_no_line() {
        let own = |text: &str, saying: &str| repeated(text, [OsString::from(saying)].into_iter());
        let text = "no a\nb.service here\n  say another\n";
        assert_eq!(own(text, "a\nb"), "no a?b.service here\n  say another\n");
        assert_eq!(
            own("no x\nphantom: all is well is there\n  help\n", "--of=x\nphantom: all is well"),
            "no x?phantom: all is well is there\n  help\n"
        );
        assert_eq!(own("no a\n\n  b\n  help", "a\n\n  b"), "no a??  b\n  help");
        assert_eq!(own("no \n is\n", "\n"), "no ? is\n");
        assert_eq!(own(text, "ab"), text);
    }

    #[test]
    fn long_lines_go_on_below_their_last_part() {
        let pair = "ready   no, waiting for: a first path that can be used\n";
        assert_eq!(folded(pair, 30), "ready   no, waiting for: a\n        first path that can be\n        used\n");
        assert_eq!(folded(pair, 80), pair);
        let prose = "phantom: no such thing is here\n  say another one of those\n";
        assert_eq!(folded(prose, 20), "phantom: no such\n  thing is here\n  say another one of\n  those\n");
        // The columns of a row that begin later are none to go on below.
        assert_eq!(
            folded("ok    port   other nodes have tried it", 30),
            "ok    port   other nodes have\n      tried it"
        );
    }

    #[test]
    fn what_is_to_be_copied_stays_whole() {
        let name = format!("{}.phantom", "a".repeat(30));
        assert_eq!(folded(&format!("published      at {name} now"), 40), format!("published      at\n  {name}\n  now"));
        let command = "do that by `phantom identity export web FILE`, then go on";
        assert_eq!(folded(command, 30), "do that by\n  `phantom identity export web FILE`,\n  then go on");
        assert_eq!(folded("one tick ` is none that ends anything", 20), "one tick ` is none\n  that ends anything");
        assert_eq!(folded(&"x".repeat(50), 20), "x".repeat(50));
        assert_eq!(folded("", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_but_spaces_and_line_ends_is_changed(text in "[a-zü` \n]{0,200}", width in 0_usize..100) {
            let without = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let shown = folded(&text, width);
            prop_assert_eq!(without(&shown), without(&text));
            let is_whole = |line: &str| columns(line.trim_end()) <= width || words(line.trim()).len() <= 2 || line.contains('`');
            prop_assert!(shown.lines().all(is_whole), "{:?}", shown);
        }
    }
}
