//! Variables of the host that send programs to where Phantom does not lead: proxies, displays, sound by TCP.

use std::env;
use std::net::IpAddr;

/// What programs read, in either case of letters.
const PROXIES: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "socks_proxy",
    "socks_server",
    "rsync_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
];

/// X's first port, and what else names a server.
const DISPLAYS: u16 = 6000;
const SOUND: &str = "PULSE_SERVER";

/// Port of a proxy whose value names none, as curl has it.
const PROXY_PORT: u16 = 1080;

/// One line for each value that leads outside and is not within the program's reach by `allowed`.
pub(crate) fn hints(allowed: &[u16], can_allow: bool) -> Vec<String> {
    let both = PROXIES.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    let proxies = both.filter_map(|name| Some((place(&env::var(&name).ok()?)?, name)));
    let display = env::var("DISPLAY").ok().and_then(|value| screen(&value)).map(|at| (at, "DISPLAY".to_owned()));
    let sound = env::var(SOUND).ok().filter(|value| value.contains("tcp")).and_then(|value| place(&value));
    let all = proxies.chain(display).chain(sound.map(|at| (at, SOUND.to_owned())));
    let mut by_place: Vec<(Place, Vec<String>)> = Vec::new();
    for (at, name) in all {
        match by_place.iter_mut().find(|(known, _)| *known == at) {
            Some((_, names)) => names.push(name),
            None => by_place.push((at, vec![name])),
        }
    }
    by_place.iter().filter_map(|(at, names)| hint(at, names, allowed, can_allow)).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

fn hint(at: &Place, names: &[String], allowed: &[u16], can_allow: bool) -> Option<String> {
    let Place { host, port } = at;
    let unset: Vec<String> = names.iter().map(|name| format!("-u {name}")).collect();
    let without = format!("`env {}` goes without", unset.join(" "));
    let names = names.join(", ");
    if !is_loopback(host) {
        let leads = || format!("{names}: {host} is outside, where no program under phantom-run comes; {without}");
        return (!is_phantom(host)).then(leads);
    }
    if allowed.contains(port) {
        return None;
    }
    let allow = if can_allow { format!("`--allow-local {port}` lets it, ") } else { String::new() };
    Some(format!("{names}: port {port} of this computer is not within the program's reach; {allow}{without}"))
}

/// Host and port of `scheme://user:word@host:port/`, most of which may be missing.
fn place(value: &str) -> Option<Place> {
    let value = value.split_once("://").map_or(value, |(_, rest)| rest);
    let value = value.trim_start_matches("tcp:").trim_start_matches("tcp4:").trim_start_matches("tcp6:");
    let value = value.split(['/', ' ']).next()?;
    let value = value.rsplit_once('@').map_or(value, |(_, rest)| rest);
    let (host, port) = match value.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => value.split_once(':').map_or((value, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(PROXY_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| Place { host: host.to_owned(), port })
}

/// Of a display that is reached by TCP, as ssh makes them: `localhost:10.0`.
fn screen(value: &str) -> Option<Place> {
    let (host, number) = value.rsplit_once(':')?;
    let number: u16 = number.split('.').next()?.parse().ok()?;
    let port = DISPLAYS.checked_add(number)?;
    (!host.is_empty() && !host.starts_with(['/', 'u'])).then(|| Place { host: host.to_owned(), port })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Names and addresses that lead somewhere.
fn is_phantom(host: &str) -> bool {
    host.to_ascii_lowercase().trim_end_matches('.').ends_with(".phantom")
        || host.parse().is_ok_and(|address: IpAddr| match address {
            IpAddr::V6(v6) => v6.octets()[0] & 0xfe == 0xfc,
            IpAddr::V4(v4) => v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_told_by_host_and_port() {
        let at = |host: &str, port| Some(Place { host: host.to_owned(), port });
        for (value, expected) in [
            ("http://127.0.0.1:3128", at("127.0.0.1", 3128)),
            ("http://user:a@b@localhost:3128/", at("localhost", 3128)),
            ("socks5h://[::1]:9050", at("::1", 9050)),
            ("proxy.corp:8080", at("proxy.corp", 8080)),
            ("proxy.corp", at("proxy.corp", PROXY_PORT)),
            ("tcp:sound:4713", at("sound", 4713)),
            ("", None),
            ("http://host:none", None),
        ] {
            assert_eq!(place(value), expected, "{value}");
        }
        assert_eq!(screen("localhost:10.0"), at("localhost", 6010));
        assert_eq!([screen(":0"), screen("unix:0"), screen("/tmp/x:0"), screen("")], [None, None, None, None]);
    }

    #[test]
    fn a_hint_says_how_to_go_on() {
        let at = |host: &str, port| Place { host: host.to_owned(), port };
        let names = ["http_proxy".to_owned(), "HTTP_PROXY".to_owned()];
        let said = hint(&at("127.0.0.1", 3128), &names, &[], true).expect("a hint");
        assert!(said.contains("--allow-local 3128") && said.contains("env -u http_proxy -u HTTP_PROXY"), "{said}");
        let said = hint(&at("127.0.0.1", 3128), &names, &[], false).expect("a hint");
        assert!(!said.contains("--allow-local"), "{said}");
        assert_eq!(hint(&at("localhost", 3128), &names, &[3128], true), None);
        assert!(hint(&at("proxy.corp", 80), &names, &[], true).is_some_and(|said| said.contains("outside")));
        for inside in ["abc.phantom", "fd70::1", "198.18.0.7"] {
            assert_eq!(hint(&at(inside, 80), &names, &[], true), None);
        }
    }
}
