//! Programs that tell the other side an address of their own: FTP in its four ways, over both families.

use anyhow::{Result, ensure};
use phantom_tests::{CLIENT, Network, Way};

/// The server's port, curl's options, and whether the file comes; docs/semantics.md and docs/servers.md say so. Port 21
/// listens in both families, 2121 in IPv4.
const TRANSFERS: [(&str, u16, &[&str], bool); 8] = [
    ("passive", 21, &[], true),
    ("active", 21, &["-6", "-P", "-"], true),
    ("passive over IPv4", 21, &["-4"], true),
    // curl does not believe addresses, nor do other clients of today.
    ("by PASV, whose address is not believed", 21, &["-4", "--disable-epsv"], true),
    ("by PASV of a server of IPv4", 2121, &["-4", "--disable-epsv"], true),
    ("passive, a server of IPv4", 2121, &["-6"], true),
    // Every machine is 198.18.0.1 for itself.
    ("by PASV, whose address is believed", 2121, &["-4", "--disable-epsv", "--no-ftp-skip-pasv-ip"], false),
    ("active over IPv4", 2121, &["-4", "-P", "-"], false),
];

#[test]
fn transfers_come_about_where_no_ipv4_address_is_told() -> Result<()> {
    let network = Network::shared()?;
    let server = format!("{}/victims/ftp.py", env!("CARGO_MANIFEST_DIR"));
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "ftp", &["python3", &server], "listening")?;
        for (what, port, options, works) in TRANSFERS {
            let url = format!("ftp://{name}:{port}/file");
            let curl = [&["curl", "-sS", "-v", "-m", "60"], options, &[&*url]].concat();
            let output = network.offering(CLIENT, way, None, &curl).output()?;
            let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!((said == "here\n") == works, "{what} by {way:?}: {said}{told}");
            // Told at once, not after a minute.
            ensure!(works || told.contains("refused") || told.contains("425"), "{what} by {way:?}: {told}");
            ensure!(!told.contains("timed out"), "{what} by {way:?}: {told}");
        }
    }
    Ok(())
}
