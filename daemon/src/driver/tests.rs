//! The control task does what has a time of its own at that time.

use std::collections::BTreeSet;
use std::time::Duration;

use phantom_proto::crypto::SigningKey;
use phantom_proto::node::TICK;
use tokio::time::sleep;

use crate::assembly::lone;

/// What two identities do at common ticks shows that they are one owner's.
// protocol: K24
#[tokio::test(start_paused = true)]
async fn what_was_drawn_for_a_time_happens_in_its_millisecond() {
    crate::clock::follow_tokio(Duration::from_secs(1_800_000_000));
    let lone = lone::driver();
    lone.handle.want_exit(&SigningKey::from_seed(&[1; 32])).await;
    // It knows nobody: builds fail at once, and begin again at times that are drawn.
    let (mut failures, mut times) = (0, Vec::new());
    for time in 0..60_000 {
        let now = lone.handle.snapshot().await.unwrap().vitals.failures;
        if now > failures {
            times.push(time);
        }
        failures = now;
        sleep(Duration::from_millis(1)).await;
    }
    let on_ticks: BTreeSet<u64> = times.iter().map(|time| time % TICK).collect();
    assert!(times.len() > 5 && on_ticks.len() > 3, "{times:?}");
}
