//! Service names and ports: the file /etc/services, read here because libc's reader may ask other services for it.

/// A line of the file.
struct Service<'a> {
    port: u16,
    protocol: &'a str,
    names: std::str::SplitWhitespace<'a>,
    name: &'a str,
}

/// Port of the service `name` over `protocol` ("tcp" or "udp").
pub(crate) fn port(file: &[u8], name: &str, protocol: &str) -> Option<u16> {
    let text = String::from_utf8_lossy(file);
    let mut services = text.lines().filter_map(parse).filter(|service| service.protocol == protocol);
    services.find(|service| service.name == name || service.names.clone().any(|alias| alias == name)).map(|at| at.port)
}

/// Name of the service at `port` over `protocol`.
pub(crate) fn name(file: &[u8], port: u16, protocol: &str) -> Option<String> {
    let text = String::from_utf8_lossy(file);
    let mut services = text.lines().filter_map(parse);
    services.find(|service| service.port == port && service.protocol == protocol).map(|at| at.name.to_owned())
}

fn parse(line: &str) -> Option<Service<'_>> {
    let mut words = line.split('#').next()?.split_whitespace();
    let name = words.next()?;
    let (port, protocol) = words.next()?.split_once('/')?;
    Some(Service { port: port.parse().ok()?, protocol, names: words, name })
}
