//! A whole build under attack: it ends in silence, or in a path on which owner and hops agree.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::world::{a_plan, candidate, hop, number};
use phantom_fuzz::{NOW, rng};
use phantom_proto::path::{Build, Step};
use phantom_proto::wire::Wire;
use phantom_proto::wire::array::ArrayFrame;

#[derive(Arbitrary, Debug)]
struct Case {
    changes: Vec<(u8, u32, u8)>,
    delays: Vec<(u8, u8)>,
}

fn change(frame: ArrayFrame, frames: u8, case: &Case) -> ArrayFrame {
    let mut bytes = frame.to_bytes();
    for (_, at, with) in case.changes.iter().filter(|(when, ..)| *when == frames) {
        bytes[*at as usize % ArrayFrame::LEN] ^= with;
    }
    ArrayFrame::from_bytes(&bytes).expect("as long as before")
}

fuzz_target!(|case: Case| {
    let mut rng = rng(3);
    let (plan, mut now) = (a_plan(&mut rng), NOW);
    let (mut build, mut send) =
        Build::start(&mut rng, now, plan.clone(), candidate(0), now + 3600).expect("good terms");
    let numbers: Vec<u8> = plan.nodes().into_iter().filter_map(number).collect();
    let mut hops: BTreeMap<u8, _> = numbers.iter().map(|number| (*number, hop(*number))).collect();
    let (mut frames, mut taken) = (0, BTreeMap::new());
    loop {
        let mut from = candidate(0).contact.node_id();
        for number in &numbers {
            let delay = case.delays.iter().filter(|(when, _)| *when == frames).map(|(_, by)| u64::from(*by));
            now += delay.sum::<u64>();
            let frame = change(send.frame, frames, &case);
            frames += 1;
            let Ok(done) = hops.get_mut(number).expect("of the circle").handle(&mut rng, now, from, frame) else {
                return;
            };
            taken.extend(done.path.map(|path| (*number, path)));
            from = candidate(*number).contact.node_id();
            send = done.send;
        }
        assert_eq!(send.to, candidate(0).contact);
        let frame = change(send.frame, frames, &case);
        frames += 1;
        match build.handle(&mut rng, now, from, frame) {
            Err(_) => return,
            Ok(Step::Send(next, first)) => (build, send) = (*next, first),
            Ok(Step::Built(path)) => {
                assert_eq!(path.hops.len(), taken.len());
                for built in &path.hops {
                    let number = number(built.contact.node_id()).expect("of the circle");
                    assert_eq!(built.secret.0, taken[&number].secret.0);
                }
                return;
            }
        }
    }
});
