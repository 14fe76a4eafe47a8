//! A neighbour of whom nothing comes any more ends its path, with all that runs over it.

use super::*;

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

/// Whether tunnels that stand end, and how many paths are gone.
fn ends(outputs: &[Output]) -> (bool, usize) {
    let down = |output: &&Output| matches!(output, Output::PathDown { .. });
    let cut = outputs.iter().any(|output| matches!(output, Output::Cut { .. }));
    (cut, outputs.iter().filter(down).count())
}

fn closed(outputs: &[Output]) -> Vec<LinkId> {
    let close = |output: &Output| if let Output::Close { link } = output { Some(*link) } else { None };
    outputs.iter().filter_map(close).collect()
}

/// A hop whose two neighbours have attached.
fn hop() -> Node {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, false), segment(3, 8, false)])));
    attaches(&mut node, 1, 2, 7);
    attaches(&mut node, 3, 3, 8);
    let standing: Vec<_> = outputs(&mut node)
        .into_iter()
        .filter_map(|output| if let Output::Standing { link } = output { Some(link) } else { None })
        .collect();
    assert_eq!(standing, [LinkId(1), LinkId(3)], "the shell says on them that it is there");
    node
}

// protocol: A3, A5, F14, O19
#[test]
fn a_silent_neighbour_ends_the_path_and_what_runs_over_it() {
    let mut node = hop();
    node.handle(NOW + 1, Input::LinkSilent { link: LinkId(1) });
    let outputs = outputs(&mut node);
    assert_eq!((ends(&outputs), closed(&outputs)), ((true, 1), vec![LinkId(3)]));
    assert_eq!(node.load(), [0; 7]);
    assert_eq!(node.away.keys().collect::<Vec<_>>(), [&neighbour(2).node_id()], "the next path is not built over it");
}

/// One that ends in order, or is killed, leaves to tunnels that stand what they have.
// protocol: F15
#[test]
fn tunnels_outlive_a_standing_connection_that_was_closed() {
    let mut node = hop();
    node.handle(NOW + 1, Input::LinkDown { link: LinkId(1) });
    assert_eq!(ends(&outputs(&mut node)), (false, 1));
}

/// The shell may say so of a link that has just become something else.
#[test]
fn silence_on_what_is_no_standing_connection_ends_no_path() {
    let mut node = hop();
    node.handle(NOW, Input::LinkUp { link: LinkId(5), peer: neighbour(2).node_id() });
    for link in [5, 7] {
        node.handle(NOW + 1, Input::LinkSilent { link: LinkId(link) });
    }
    assert_eq!(ends(&outputs(&mut node)), (false, 0));
    assert_eq!(node.relayed_paths(), 1);
}
