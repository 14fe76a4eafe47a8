//! A computer that changes networks gets another /etc/resolv.conf, and what phantom-run had laid over the old one is gone.

use anyhow::{Result, ensure};
use phantom_tests::alone::with_mounts;
use phantom_tests::{Alone, stdout};

/// Asks, waits for the other file, and asks until somebody answers that there is no such name.
const ASKS: &str = "
import pathlib, socket, sys, time
def answer():
    try: socket.getaddrinfo('nobody.phantom', 80)
    except socket.gaierror as error: return error.errno == socket.EAI_NONAME
def wait(whether):
    end = time.time() + 60
    while not whether() and time.time() < end: time.sleep(0.1)
    return whether()
print(answer())
pathlib.Path(sys.argv[1]).touch()
print(wait(lambda: '127.0.0.53' in pathlib.Path('/etc/resolv.conf').read_text()))
print(wait(answer))
";

#[test]
fn names_go_on_when_resolv_conf_is_replaced() -> Result<()> {
    let alone = Alone::shared()?;
    let folder = alone.folder.make("asked")?;
    alone.everywhere(|kind, way| {
        let asked = format!("{folder}/{kind:?}-{way:?}");
        // systemd-resolved and NetworkManager write another file and give it the name.
        let script = format!(
            "mount -t tmpfs tmpfs /mnt; cp -a /etc /mnt/etc; rm -f /mnt/etc/resolv.conf; echo nameserver 192.0.2.1 >/mnt/etc/resolv.conf
            mount --bind /mnt/etc /etc
            (for i in $(seq 600); do [ ! -e {asked} ] || break; sleep 0.1; done
            echo nameserver 127.0.0.53 >/etc/new; mv /etc/new /etc/resolv.conf) >/dev/null 2>&1 & :"
        );
        let output = with_mounts(&script, &alone.run(kind, way, &["python3", "-c", ASKS, &asked])).output()?;
        ensure!(stdout(&output)? == "True\nTrue\nTrue\n", "{output:?}");
        Ok(())
    })
}
