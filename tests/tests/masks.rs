//! What is masked stays so wherever it lies and whenever it comes, and what lies over files of the system's holds all of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use phantom_tests::alone::with_mounts;
use phantom_tests::{Alone, stdout};

/// Listens at the places that are named until whoever started it ends.
const SERVE: &str = "
import os, pathlib, socket, sys
kept = []
for path in sys.argv[2:]:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind(path); os.chmod(path, 0o777); kept[-1].listen(64)
pathlib.Path(sys.argv[1]).touch()
import time; time.sleep(600)
";

/// Lines of a script that has it listen; it ends with the program that the script becomes.
fn serve(ready: &str, places: &[&str]) -> String {
    let places: Vec<String> = places.iter().map(|place| format!("'{place}'")).collect();
    format!(
        "setpriv --pdeathsig KILL python3 -c \"{SERVE}\" '{ready}' {} >/dev/null 2>&1 &
        for i in $(seq 600); do [ ! -e '{ready}' ] || break; sleep 0.1; done",
        places.join(" ")
    )
}

/// Says which sockets it reaches, and which files it may open for writing.
const TRIES: &str = "
import os, socket, sys
for path in sys.argv[1:]:
    try: found = os.stat(path) and not path.endswith('sock') and os.close(os.open(path, os.O_WRONLY)) is None
    except OSError: found = False
    try: found = found or socket.socket(socket.AF_UNIX).connect(path) is None
    except OSError: pass
    if found: print(repr(path))
";

/// The kernel writes such names in another way than they are.
#[test]
fn mounts_with_odd_names_are_masked_too() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let odd = alone.folder.make(&format!("my \\{kind:?}\t{way:?}\n"))?;
        let ready = alone.folder.at(&format!("odd-{kind:?}-{way:?}"));
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir '{odd}/proc' '{odd}/run'; mount -t proc none '{odd}/proc'
            mount --bind /run '{odd}/run'; {}",
            serve(&ready, &["/run/docker.sock"])
        );
        let (file, socket) = (format!("{odd}/proc/sys/kernel/core_pattern"), format!("{odd}/run/docker.sock"));
        let tries = ["python3", "-c", TRIES, &file, &socket, "/run/docker.sock"];
        let said = stdout(&with_mounts(&script, &alone.run(kind, way, &tries)).output()?)?;
        ensure!(said.is_empty(), "open: {said}");
        Ok(())
    })
}

/// A disk, a copy of /proc for a jail: it would lie there without a mask.
#[test]
fn what_is_mounted_later_stays_outside() -> Result<()> {
    let alone = Alone::shared()?;
    let program = "
import os, pathlib, sys, time
asked, late = sys.argv[1:]
pathlib.Path(asked).touch()
end = time.time() + 240
while not os.path.exists(asked + '.mounted') and time.time() < end: time.sleep(0.1)
print(os.path.exists(asked + '.mounted'), len(os.listdir(late)), late in open('/proc/self/mountinfo').read())
";
    let folder = alone.folder.make("later")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        let late = alone.folder.make(&format!("late-{kind:?}-{way:?}"))?;
        let script = format!(
            "mount --make-rshared /
            (for i in $(seq 600); do [ ! -e {asked} ] || break; sleep 0.1; done; mount -t proc none {late} && touch {asked}.mounted) >/dev/null 2>&1 & true"
        );
        let mut waiting = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", program, &asked, &late]));
        let said = stdout(&waiting.output()?)?;
        ensure!(said == "True 0 False\n", "{said}");
        Ok(())
    })
}

/// Lists of names that are to lead nowhere have megabytes, and old files hold other letters than UTF-8.
#[test]
fn files_of_any_length_and_letters_are_replaced() -> Result<()> {
    let alone = Alone::shared()?;
    let blocked: String = (0..100_000).map(|number| format!("0.0.0.0 number-{number}.example\n")).collect();
    let hosts = alone.folder.write("hosts", [b"# caf\xe9\n", blocked.as_bytes()].concat())?;
    let modules =
        b"# caf\xe9\npasswd: files\nhosts : mymachines\nhosts: files resolve [!UNAVAIL=return] mdns4_minimal\n";
    let modules = alone.folder.write("nsswitch.conf", modules)?;
    let script = format!("mount --bind '{hosts}' /etc/hosts; mount --bind '{modules}' /etc/nsswitch.conf");
    for file in [&hosts, &modules] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    }
    let look = "grep -ac 0.0.0.0 /etc/hosts; grep -a number-99999 /etc/hosts; grep -a hosts /etc/nsswitch.conf";
    alone.everywhere(|kind, way| {
        let said = stdout(&with_mounts(&script, &alone.run(kind, way, &["sh", "-c", look])).output()?)?;
        let words: Vec<&str> = said.split_whitespace().collect();
        ensure!(words == ["100000", "0.0.0.0", "number-99999.example", "hosts:", "files", "dns"], "{said}");
        Ok(())
    })
}
