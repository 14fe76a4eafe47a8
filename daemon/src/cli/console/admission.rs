//! Who may see the page: whoever opened the link first, with that browser, and no page of anybody else's.
//!
//! ```text
//!  GET /ROOM/TOKEN ─ once ─> Set-Cookie: KEY (for /ROOM/ alone) ──> GET /ROOM/ ──> GET /ROOM/state, again and again
//! ```
//! Browsers send cookies to every port of an address. The room keeps ours from other servers there: they do not know its name.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64URL_NOPAD;
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use hyper::{Method, Request};
use rand::Rng;
use zeroize::Zeroizing;

use crate::local::{is_from_here, names_loopback};

/// Bytes of token and key: nobody guesses them.
const SECRET: usize = 32;

/// Bytes of the room's name.
const ROOM: usize = 12;

/// Name of the cookie.
const KEY_NAME: &str = "phantom-console";

/// See the module.
pub(super) struct Admission {
    /// Where it is reached; none for a socket, which somebody else leads a port to.
    at: Option<SocketAddr>,
    room: String,
    token: Zeroizing<String>,
    /// Whether somebody has come by the token.
    is_used: AtomicBool,
    key: Zeroizing<String>,
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The cookie, and the page.
    Enter,
    /// The page: it has the cookie already.
    Again,
    /// The page itself.
    Page,
    /// What the daemon says now.
    State,
    /// A file of the page's, which tells nothing.
    File(File),
    /// It has neither the cookie nor a token that is still good.
    UsedUp,
    /// The same, asked by a page whose browser has lost the cookie.
    NotAdmitted,
    /// There is nothing.
    Nothing,
    /// Another method than GET.
    Method,
    /// A request with a body.
    Body,
    /// By another name than the loopback device's.
    Host,
    /// From a page of somebody else's.
    Elsewhere,
}

/// What the page consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    Style,
    Script,
    Icon,
}

impl Admission {
    /// With new secrets.
    pub(super) fn new(rng: &mut impl Rng, at: Option<SocketAddr>) -> Self {
        let mut room = [0; ROOM];
        rng.fill_bytes(&mut room);
        let mut secret = || {
            let mut bytes = Zeroizing::new([0; SECRET]);
            rng.fill_bytes(&mut *bytes);
            Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes))
        };
        let (token, key) = (secret(), secret());
        Self { at, room: BASE64URL_NOPAD.encode(&room), token, is_used: AtomicBool::new(false), key }
    }

    /// What opens the page once.
    pub(super) fn link(&self) -> String {
        // By number: ssh takes one of localhost's addresses without a word when somebody else has the other.
        let host = self.at.map_or_else(|| "127.0.0.1:8000".to_owned(), |at| at.to_string());
        format!("http://{host}/{}/{}", self.room, *self.token)
    }

    /// Where the page is.
    pub(super) fn page(&self) -> String {
        format!("/{}/", self.room)
    }

    /// The cookie: for this page's paths alone, not for scripts, not for requests from pages of others.
    pub(super) fn cookie(&self) -> String {
        format!("{KEY_NAME}={}; Path=/{}/; HttpOnly; SameSite=Strict", *self.key, self.room)
    }

    /// What a request gets. The first who comes by the token uses it up.
    pub(super) fn judge<B>(&self, request: &Request<B>) -> Verdict {
        let headers = request.headers();
        let Some(host) = one(headers, &HOST).filter(|host| self.is_own(host)) else { return Verdict::Host };
        if *request.method() != Method::GET {
            return Verdict::Method;
        }
        let is_empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
        if !is_empty || headers.contains_key(TRANSFER_ENCODING) {
            return Verdict::Body;
        }
        if !is_from_here(headers, host) {
            return Verdict::Elsewhere;
        }
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let Some((_, name)) = path.filter(|(room, _)| *room == self.room) else { return Verdict::Nothing };
        let has_key = self.has_key(headers);
        match name {
            "style.css" => Verdict::File(File::Style),
            "script.js" => Verdict::File(File::Script),
            "icon.svg" => Verdict::File(File::Icon),
            "state" if has_key => Verdict::State,
            "state" => Verdict::NotAdmitted,
            "" if has_key => Verdict::Page,
            _ if name.contains('/') => Verdict::Nothing,
            // Whoever opens the link again, in the same browser.
            _ if has_key => Verdict::Again,
            _ if is_equal(name, &self.token) && !self.is_used.swap(true, Ordering::SeqCst) => Verdict::Enter,
            _ => Verdict::UsedUp,
        }
    }

    /// A page of the web could lead its own name here, and read what it is told then.
    fn is_own(&self, host: &str) -> bool {
        match self.at {
            Some(at) => host == at.to_string() || host == format!("localhost:{}", at.port()),
            // The port is that of whoever leads here.
            None => names_loopback(host),
        }
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == KEY_NAME && is_equal(value, &self.key))
    }
}

/// In a time that does not tell how far they agree.
fn is_equal(given: &str, secret: &str) -> bool {
    verify_slices_are_equal(given.as_bytes(), secret.as_bytes()).is_ok()
}

/// The only value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}
