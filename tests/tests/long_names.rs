//! Names of 64 characters in settings of servers, as docs/servers.md has them, and the short one that an identity has for itself.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{CLIENT, Network, SERVER, Way, stdout};

/// A certificate and its key for a name that does not fit into a common name, which holds 64 characters.
fn certificate(folder: &Folder, name: &str) -> Result<(String, String)> {
    let (key, certificate) = (folder.at("key"), folder.at("certificate"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=shop", "-addext", &format!("subjectAltName=DNS:{name}")];
    prepare(Command::new("openssl").args(request).args(names).args(["-keyout", &key, "-out", &certificate]))?;
    Ok((certificate, key))
}

#[test]
fn nginx_knows_its_own_name_and_proves_it() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let folder = Folder::new()?;
        let name = network.address(SERVER, "shop")?;
        let (certificate, key) = certificate(&folder, &name)?;
        let at = folder.at("");
        folder.write("page", "here\n")?;
        let config = format!(
            "daemon off; pid {at}/pid; error_log stderr notice; events {{}}
             http {{
                 server_names_hash_bucket_size 128;
                 access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                 uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                 server {{ listen [::]:443 ssl default_server; server_name other; return 404;
                     ssl_certificate {certificate}; ssl_certificate_key {key}; }}
                 server {{ listen [::]:443 ssl; server_name {name}; root {at};
                     ssl_certificate {certificate}; ssl_certificate_key {key}; }}
             }}"
        );
        let config = folder.write("nginx.conf", config)?;
        let script = format!("exec nginx -c {config} 2>&1");
        let (_server, name) = network.serve(way, "shop", &["sh", "-c", &script], "start worker")?;
        let url = format!("https://{name}/page");
        let page = network.run(Way::Namespace, &["curl", "-sS", "-m", "60", "--cacert", &certificate, &url])?;
        ensure!(page == "here\n", "{way:?}: {page}");
    }
    Ok(())
}

const OWN: &str = "
import socket, sys
def look(name):
    try: return socket.getaddrinfo(name, 80, socket.AF_INET6)[0][4][0]
    except socket.gaierror: return None
print([look(name) for name in ('own-shop', 'own-shop.phantom', 'OWN-SHOP.phantom.')])
";

#[test]
fn an_identity_knows_itself_by_a_short_name_and_nobody_else_does() -> Result<()> {
    let network = Network::shared()?;
    let shown = network.phantom(CLIENT, &["address", "new", "own-shop"])?;
    let address = shown["address"].as_str().context("no address")?;
    for way in Way::ALL {
        let look = |identity| stdout(&network.program(CLIENT, way, identity, &["python3", "-c", OWN]).output()?);
        let said = look(Some("own-shop"))?;
        ensure!(said == format!("['{address}', '{address}', '{address}']\n"), "{way:?}: {said}");
        let said = look(None)?;
        ensure!(said == "[None, None, None]\n", "{way:?}: {said}");
    }
    Ok(())
}
