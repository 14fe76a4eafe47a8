use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::ident::NodeId;
use crate::wire::Wire;
use crate::wire::cells::Open;

const NOW: u64 = 5_000;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn control(whose: Whose) -> Control {
    Control::new(NOW, whose, &mut rng())
}

/// After one more input at `NOW`.
fn then(control: &mut Control, input: Input) -> Vec<Output> {
    control.handle(NOW, input);
    std::iter::from_fn(|| control.poll()).collect()
}

fn serve(record: &[u8]) -> Input {
    Input::Serve(record.to_vec())
}

fn heard(kind: CellKind, data: &[u8]) -> Input {
    Input::Heard { kind, data: data.to_vec() }
}

fn says(record: &[u8]) -> Vec<Output> {
    vec![Output::Say { kind: CellKind::Serve, data: record.to_vec() }]
}

fn wants() -> Vec<Output> {
    vec![Output::Want { limit: 30_000 }]
}

/// With a tunnel on which padding of the other end has come.
fn settled(whose: Whose) -> Control {
    let mut control = control(whose);
    assert_eq!(then(&mut control, Input::Offered), [Output::Keep]);
    assert_eq!(then(&mut control, heard(CellKind::Padding, b"")), []);
    control
}

/// With a tunnel that this end began with padding.
fn begun(whose: Whose) -> Control {
    let mut control = control(whose);
    control.tick(control.deadline(), &mut rng());
    assert_eq!(control.poll(), wants().pop());
    assert_eq!(then(&mut control, Input::Given(true)), [Output::Say { kind: CellKind::Padding, data: Vec::new() }]);
    assert_eq!(then(&mut control, Input::Said(true)), []);
    control
}

fn open() -> Vec<u8> {
    Open { node: NodeId([1; 32]), handle: [2; 16], first: b"data".to_vec() }.to_bytes()
}

// protocol: U14
#[test]
fn a_record_goes_over_the_control_tunnel_and_makes_one_where_none_is() {
    let mut control = control(Whose::Own);
    assert_eq!(then(&mut control, serve(b"first")), wants());
    assert_eq!(then(&mut control, Input::Given(true)), says(b"first"));
    assert_eq!(then(&mut control, Input::Said(true)), []);
    assert_eq!(then(&mut control, serve(b"second")), says(b"second"));
}

#[test]
fn a_record_that_a_broken_tunnel_does_not_take_goes_over_another_once() {
    let mut control = settled(Whose::Own);
    assert_eq!(then(&mut control, serve(b"record")), says(b"record"));
    let again = [Output::Drop, Output::Want { limit: 30_000 }];
    assert_eq!(then(&mut control, Input::Said(false)), again);
    assert_eq!(then(&mut control, Input::Given(true)), says(b"record"));
    assert_eq!(then(&mut control, Input::Said(false)), [Output::Drop], "it tries without end");
    // One that is not to be had is as one that breaks.
    let mut control = self::control(Whose::Own);
    then(&mut control, serve(b"record"));
    assert_eq!(then(&mut control, Input::Given(false)), wants());
    assert_eq!(then(&mut control, Input::Given(false)), []);
}

#[test]
fn each_step_has_its_time() {
    let mut control = settled(Whose::Own);
    then(&mut control, serve(b"record"));
    assert_eq!(control.deadline(), NOW + 30_000);
    control.tick(NOW + 29_999, &mut rng());
    assert_eq!(control.poll(), None);
    control.tick(NOW + 30_000, &mut rng());
    assert_eq!([control.poll(), control.poll()], [Some(Output::Drop), wants().pop()]);
    assert_eq!(control.deadline(), NOW + 60_000);
    control.tick(NOW + 60_000, &mut rng());
    assert_eq!(control.poll(), None, "it tries without end");
    assert!(control.deadline() > NOW + 60_000 || control.deadline() == control.padding);
}

#[test]
fn only_so_many_records_wait_and_they_leave_in_their_order() {
    let mut control = control(Whose::Own);
    assert_eq!(then(&mut control, serve(&[0])), wants());
    for number in 1..10 {
        assert_eq!(then(&mut control, serve(&[number])), []);
    }
    assert_eq!(then(&mut control, Input::Given(true)), says(&[0]));
    for number in 1..5 {
        assert_eq!(then(&mut control, Input::Said(true)), says(&[number]));
    }
    assert_eq!(then(&mut control, Input::Said(true)), []);
}

/// The terminating node had closed the owner's tunnel for its own when the record was on its way: it was lost for an hour.
// protocol: U28
#[test]
fn a_record_that_crosses_the_other_ends_tunnel_is_said_again_on_it_once() {
    let mut control = control(Whose::Own);
    then(&mut control, serve(b"record"));
    then(&mut control, Input::Given(true));
    then(&mut control, Input::Said(true));
    assert_eq!(then(&mut control, Input::Offered), [vec![Output::Keep], says(b"record")].concat());
    then(&mut control, Input::Said(true));
    assert_eq!(then(&mut control, Input::Offered), [Output::Keep]);
    // What was heard of the other end came on the same tunnel: the record has arrived before.
    let mut control = self::control(Whose::Own);
    then(&mut control, serve(b"record"));
    then(&mut control, Input::Given(true));
    then(&mut control, Input::Said(true));
    then(&mut control, heard(CellKind::Padding, b""));
    assert_eq!(then(&mut control, Input::Offered), [Output::Keep]);
    // So has one that left over a tunnel of the other end's.
    let mut control = settled(Whose::Own);
    then(&mut control, serve(b"record"));
    then(&mut control, Input::Said(true));
    assert_eq!(then(&mut control, Input::Offered), [Output::Keep]);
}

// protocol: U15
#[test]
fn of_two_tunnels_that_of_the_terminating_node_stays() {
    assert_eq!(then(&mut begun(Whose::Own), Input::Offered), [Output::Keep]);
    assert_eq!(then(&mut begun(Whose::End), Input::Offered), [Output::Reject]);
    assert_eq!(then(&mut control(Whose::End), Input::Offered), [Output::Keep], "it has none");
}

/// One end pads what the other opens, at the same moment: the path of honest nodes was dropped as misused.
// protocol: U2, U3, U4, U16
#[test]
fn a_tunnel_that_both_ends_begin_to_use_is_for_what_the_other_said() {
    let address = crate::ident::ApAddress::of(&crate::crypto::SigningKey::from_seed(&[1; 32]).verifying_key());
    let firsts = [
        (Whose::End, CellKind::Open, open()),
        (Whose::End, CellKind::Lookup, address.octets().to_vec()),
        (Whose::Own, CellKind::Incoming, b"first".to_vec()),
    ];
    for (whose, kind, data) in firsts {
        let used = [Output::Use { kind, data: data.clone() }];
        assert_eq!(then(&mut begun(whose), heard(kind, &data)), used);
        // On one that is for control by what both have said, it is an error.
        let misused = [Output::Abort(Reason::Protocol), Output::Misused];
        assert_eq!(then(&mut settled(whose), heard(kind, &data)), misused);
        let mut control = begun(whose);
        then(&mut control, heard(CellKind::Padding, b""));
        assert_eq!(then(&mut control, heard(kind, &data)), misused);
    }
}

/// All that may come on a control tunnel that has been used by both, and what comes of each.
// protocol: U2, U4
#[test]
fn on_control_only_padding_and_the_owners_serve_belong() {
    for whose in [Whose::Own, Whose::End] {
        for kind in CellKind::ALL {
            for data in [vec![], vec![2], vec![2; 16], open()] {
                let outputs = then(&mut settled(whose), heard(kind, &data));
                let expected = match (kind, whose) {
                    (CellKind::Padding, _) if data.is_empty() => vec![],
                    (CellKind::Serve, Whose::End) => vec![Output::Served(data)],
                    _ => vec![Output::Abort(Reason::Protocol), Output::Misused],
                };
                assert_eq!(outputs, expected, "{whose:?} {kind:?}");
            }
        }
    }
}

// protocol: X6, O17
#[test]
fn noise_on_an_own_path_ends_it_and_a_loss_only_the_tunnel() {
    assert_eq!(then(&mut settled(Whose::Own), Input::Broke { noise: true }), [Output::Drop, Output::Misused]);
    assert_eq!(then(&mut settled(Whose::Own), Input::Broke { noise: false }), [Output::Drop]);
    assert_eq!(then(&mut settled(Whose::End), Input::Broke { noise: true }), [Output::Drop]);
    // The next cell takes another.
    let mut control = settled(Whose::Own);
    then(&mut control, Input::Broke { noise: false });
    assert_eq!(then(&mut control, serve(b"record")), wants());
}

// protocol: U14
#[test]
fn padding_comes_at_times_of_a_poisson_clock() {
    let (mut rng, mut control) = (rng(), control(Whose::End));
    then(&mut control, Input::Offered);
    let (mut last, mut waits) = (NOW, Vec::new());
    for _ in 0..400 {
        let now = control.deadline();
        waits.push(now - last);
        last = now;
        control.tick(now, &mut rng);
        assert_eq!(control.poll(), Some(Output::Say { kind: CellKind::Padding, data: Vec::new() }));
        control.handle(now, Input::Said(true));
    }
    let mean = waits.iter().sum::<u64>() / 400;
    assert!((450_000..750_000).contains(&mean), "{mean}");
    assert!(waits.iter().any(|wait| *wait < 100_000) && waits.iter().any(|wait| *wait > 1_200_000));
}

fn any_input() -> impl Strategy<Value = Input> {
    let data = prop_oneof![Just(Vec::new()), Just(open()), prop::collection::vec(any::<u8>(), 0..20)];
    let kind = prop::sample::select(&CellKind::ALL[..]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Input::Serve),
        Just(Input::Offered),
        any::<bool>().prop_map(Input::Given),
        any::<bool>().prop_map(Input::Said),
        (kind, data).prop_map(|(kind, data)| Input::Heard { kind, data }),
        any::<bool>().prop_map(|noise| Input::Broke { noise }),
    ]
}

/// What whoever steps it holds: it must never be told to use a tunnel that it has not.
#[derive(Default)]
struct Shell {
    has: bool,
    offered: bool,
    asked: bool,
}

impl Shell {
    fn does(&mut self, output: &Output) {
        match output {
            Output::Want { .. } => assert!(!self.has && !std::mem::replace(&mut self.asked, true)),
            Output::Say { .. } => assert!(self.has && !std::mem::replace(&mut self.asked, true)),
            Output::Keep => (self.has, self.offered) = (std::mem::take(&mut self.offered), false),
            Output::Reject => assert!(std::mem::take(&mut self.offered)),
            Output::Drop | Output::Abort(_) | Output::Use { .. } => assert!(std::mem::take(&mut self.has)),
            Output::Served(_) | Output::Misused => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_its_memory_is_bounded_and_what_is_said_ends(
        own in any::<bool>(),
        steps in prop::collection::vec((0..700_000_u64, prop::option::of(any_input())), 0..80),
    ) {
        let (mut rng, mut shell, mut now) = (rng(), Shell::default(), 0);
        let mut control = Control::new(0, if own { Whose::Own } else { Whose::End }, &mut rng);
        for (passes, input) in steps {
            now += passes;
            match input {
                // Late answers come, too.
                Some(Input::Given(true)) if !control.saying.as_ref().is_some_and(|saying| saying.wanting) => {}
                Some(input) => {
                    shell.offered |= input == Input::Offered;
                    shell.asked &= !matches!(input, Input::Given(_) | Input::Said(_));
                    shell.has |= input == Input::Given(true);
                    control.handle(now, input);
                }
                None => {
                    shell.asked &= now < control.deadline();
                    control.tick(now, &mut rng);
                }
            }
            while let Some(output) = control.poll() {
                shell.does(&output);
            }
            prop_assert_eq!(control.has, shell.has);
            prop_assert!(control.waiting.len() <= WAITING);
        }
        // Every wait has an end, and nobody waits behind it for ever.
        for _ in 0..2 * ATTEMPTS * (WAITING + 2) {
            if control.saying.is_none() {
                break;
            }
            now = control.deadline();
            control.tick(now, &mut rng);
            while control.poll().is_some() {}
        }
        prop_assert!(control.saying.is_none() && control.waiting.is_empty());
    }
}
