//! `phantomd`, the daemon.
use phantom_daemon::gate;

fn main() {
    // First of all: the helper must have one thread only.
    if std::env::args_os().nth(1).is_some_and(|first| first == gate::HELPER_ARGUMENT) {
        std::process::exit(gate::helper::main());
    }
}
