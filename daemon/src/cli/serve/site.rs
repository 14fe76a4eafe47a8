//! The files of one folder over HTTP, to read only. Nothing outside the folder is opened, however a path is spelt and whatever is linked
//! where: the kernel sees to it while it walks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, openat2};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::percent::{decoded, encoded};

/// Part of a file that is in memory at once.
const PART: usize = 64 * 1024;

/// Entries of a folder that are listed.
const LISTED: usize = 10_000;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A folder that is shown.
pub(super) struct Site(Arc<OwnedFd>);

/// What lies under a path.
enum Found {
    File(File, u64),
    /// With its entries, folders marked by a slash; one more than are listed where there are more.
    Folder(Vec<String>),
    /// A folder that was asked for without the slash at its end: links within it would lead elsewhere.
    NoSlash,
}

impl Site {
    /// Of this folder.
    ///
    /// # Errors
    /// When it is none, or the kernel cannot keep a walk inside it.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let hint = "it takes a folder, as in: phantom serve ./public; `phantom forward list` shows what is offered now";
        // The system's word first: the hint is a line of its own, and the last.
        let opened = File::open(folder);
        let opened = opened.map_err(|error| anyhow::anyhow!("cannot read {}: {error}\n  {hint}", folder.display()))?;
        anyhow::ensure!(opened.metadata()?.is_dir(), "{} is no folder\n  {hint}", folder.display());
        let root = OwnedFd::from(opened);
        beneath(&root, Path::new("."))
            .context("this kernel cannot keep a site inside its folder (openat2, Linux 5.6)")?;
        Ok(Self(Arc::new(root)))
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let (root, asked) = (self.0.clone(), path.to_owned());
        let found = spawn_blocking(move || find(&root, &asked)).await.ok().flatten();
        let mut response = match found {
            None => error(StatusCode::NOT_FOUND),
            Some(Found::NoSlash) => elsewhere(&format!("{path}/")),
            Some(Found::Folder(entries)) => page(StatusCode::OK, &listing(path, &entries)),
            Some(Found::File(file, length)) => content(file, length, path, request.headers()),
        };
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if *method == Method::HEAD { response.map(|_| full("")) } else { response }
    }
}

/// No link leads out.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Opens what a path names, never outside `root`. A pipe that nobody writes to is not waited for.
fn beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(root, path, flags, Mode::empty(), WITHIN)
}

/// Of which kind it is, without opening it: that would start a device, or wake who writes into a pipe. None, where it may not be read.
fn named(root: &OwnedFd, path: &Path) -> Option<FileType> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let named = openat2(root, path, flags, Mode::empty(), WITHIN).ok()?;
    let kind = kind(&named)?;
    let wanted = if kind == FileType::Directory { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    let itself = format!("/proc/self/fd/{}", named.as_raw_fd());
    match accessat(CWD, itself, wanted, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => None,
        // A computer that cannot say has it listed.
        _ => Some(kind),
    }
}

fn find(root: &OwnedFd, asked: &str) -> Option<Found> {
    let decoded = decoded(asked)?;
    let path = decoded.trim_matches('/');
    // What begins with a dot is not for others: keys, histories, repositories. That covers `..` as well.
    if path.split('/').any(|part| part.starts_with('.')) {
        return None;
    }
    let path = if path.is_empty() { "." } else { path };
    let opened = beneath(root, Path::new(path)).ok()?;
    match kind(&opened)? {
        FileType::RegularFile if !decoded.ends_with('/') => file(opened),
        FileType::Directory if !decoded.ends_with('/') => Some(Found::NoSlash),
        FileType::Directory => match beneath(root, &Path::new(path).join("index.html")) {
            Ok(index) if kind(&index) == Some(FileType::RegularFile) => file(index),
            _ => entries(root, Path::new(path), &opened).map(Found::Folder),
        },
        _ => None,
    }
}

fn kind(opened: &OwnedFd) -> Option<FileType> {
    fstat(opened).ok().map(|about| FileType::from_raw_mode(about.st_mode))
}

fn file(opened: OwnedFd) -> Option<Found> {
    let file = File::from(opened);
    let length = file.metadata().ok()?.len();
    Some(Found::File(file, length))
}

/// What the folder at `path` shows.
fn entries(root: &OwnedFd, path: &Path, folder: &OwnedFd) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).ok()?.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if names.len() > LISTED {
            break;
        }
        // What cannot be had is not named either: links that lead out, pipes, what is not for this user.
        let slash = match named(root, &path.join(name)) {
            Some(FileType::Directory) => "/",
            Some(FileType::RegularFile) => "",
            _ => continue,
        };
        names.push(format!("{name}{slash}"));
    }
    names.sort_by_key(|name| (!name.ends_with('/'), name.to_lowercase()));
    Some(names)
}

/// The part of the file that was asked for. No date and no tag: they would tell of this computer.
fn content(mut file: File, length: u64, path: &str, asked: &HeaderMap) -> Response<Body> {
    let range = asked.get(RANGE).and_then(|range| part(range.to_str().ok()?, length));
    let (first, count) = match range {
        Some(Ok((first, last))) => (first, last - first + 1),
        Some(Err(Unsatisfiable)) => {
            let mut response = error(StatusCode::RANGE_NOT_SATISFIABLE);
            header(&mut response, CONTENT_RANGE, &format!("bytes */{length}"));
            return response;
        }
        None => (0, length),
    };
    if file.seek(SeekFrom::Start(first)).is_err() {
        return error(StatusCode::NOT_FOUND);
    }
    let mut response = Response::new(parts(file.take(count)));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        header(&mut response, CONTENT_RANGE, &format!("bytes {first}-{}/{length}", first + count - 1));
    }
    header(&mut response, CONTENT_TYPE, &kind_of(path));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response.headers_mut().insert(CONTENT_LENGTH, count.into());
    response
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unsatisfiable;

/// First and last byte of a range (RFC 9110, section 14.1.2). `None`: none, or several, which may be answered with the whole.
fn part(range: &str, length: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.trim(), last.trim()) {
        ("", count) => (length.saturating_sub(count.parse().ok()?), length.checked_sub(1)),
        (first, "") => (first.parse().ok()?, length.checked_sub(1)),
        (first, last) => {
            let last: u64 = last.parse().ok()?;
            (first.parse().ok()?, length.checked_sub(1).map(|end| end.min(last)))
        }
    };
    Some(last.filter(|last| first <= *last).map(|last| (first, last)).ok_or(Unsatisfiable))
}

/// A file's bytes, a part at a time, read where it may wait.
fn parts(file: io::Take<File>) -> Body {
    let parts = stream::try_unfold(file, |mut file| async move {
        let read = spawn_blocking(move || {
            let mut part = vec![0; PART];
            let count = file.read(&mut part)?;
            part.truncate(count);
            Ok::<_, io::Error>((part, file))
        });
        let (part, file) = read.await.map_err(io::Error::other)??;
        Ok((!part.is_empty()).then(|| (Frame::data(Bytes::from(part)), file)))
    });
    StreamBody::new(parts).boxed_unsync()
}

/// As text of a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn listing(path: &str, entries: &[String]) -> String {
    let title = escaped(&decoded(path).unwrap_or_default());
    let up = if path == "/" { "" } else { "<li><a href=\"../\">../</a>\n" };
    let one = |name: &String| format!("<li><a href=\"./{}\">{}</a>\n", encoded(name), escaped(name));
    let list: String = entries.iter().take(LISTED).map(one).collect();
    let more = if entries.len() > LISTED { format!("<p>Only {LISTED} are listed.\n") } else { String::new() };
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{up}{list}</ul>\n{more}"
    )
}

/// What a file is, by its name. Text that browsers have no use for but to show it is plain text, else they would save it.
fn kind_of(path: &str) -> String {
    let name = if path.ends_with('/') { "index.html" } else { path };
    let Some(kind) = mime_guess::from_path(name).first_raw() else { return "application/octet-stream".to_owned() };
    match kind.strip_prefix("text/") {
        // It says itself how it is written.
        Some("xml") | None => kind.to_owned(),
        Some(text) if text == "markdown" || text.starts_with("x-") => "text/plain; charset=utf-8".to_owned(),
        Some(_) => format!("{kind}; charset=utf-8"),
    }
}

fn full(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

fn page(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    response
}

fn error(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    page(status, &format!("<!doctype html>\n<title>{reason}</title>\n<h1>{reason}</h1>\n"))
}

fn elsewhere(path: &str) -> Response<Body> {
    let mut response = error(StatusCode::MOVED_PERMANENTLY);
    // Two slashes at its begin would name another host.
    header(&mut response, LOCATION, &format!("/{}", path.trim_start_matches('/')));
    response
}

/// A value that cannot stand in a header leaves it out.
fn header(response: &mut Response<Body>, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// A folder beside a secret, with what leads there.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site");
        fs::create_dir_all(site.join("sub dir/.git")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(site.join("a&<b>.txt"), "0123456789").unwrap();
        fs::write(site.join("sub dir/index.html"), "<p>index").unwrap();
        fs::write(site.join("sub dir/.git/config"), "secret").unwrap();
        fs::write(site.join(".env"), "secret").unwrap();
        symlink(dir.path().join("secret"), site.join("absolute")).unwrap();
        symlink("../secret", site.join("relative")).unwrap();
        symlink("..", site.join("up")).unwrap();
        symlink("sub dir", site.join("within")).unwrap();
        rustix::fs::mknodat(CWD, site.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        dir
    }

    async fn ask(site: &Site, method: Method, path: &str, range: Option<&str>) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let (head, body) = site.answer(&request.body(()).unwrap()).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_and_nothing_hidden_is_served() {
        let dir = folder();
        let site = Site::open(&dir.path().join("site")).unwrap();
        for path in [
            "/../secret",
            "/%2e%2e/secret",
            "/sub%20dir/../../secret",
            "/..%2fsecret",
            "/absolute",
            "/relative",
            "/up/secret",
            "/up/",
            "/up",
            "/.env",
            "/%2eenv",
            "/sub%20dir/.git/config",
            "/pipe",
            "/none",
            "//etc/passwd",
            "/%00",
            "/%zz",
        ] {
            let (status, _, body) = ask(&site, Method::GET, path, None).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert!(!body.contains("secret"), "{path}");
        }
        let (status, _, body) = ask(&site, Method::GET, "/within/", None).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "<p>index"), "a link within the folder");
        assert!(Site::open(&dir.path().join("secret")).is_err() && Site::open(&dir.path().join("none")).is_err());
    }

    #[tokio::test]
    async fn files_folders_and_parts_are_served_and_nothing_is_told_of_this_computer() {
        let dir = folder();
        let site = Site::open(&dir.path().join("site")).unwrap();
        let (status, headers, body) = ask(&site, Method::GET, "/", None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("<a href=\"./a%26%3Cb%3E.txt\">a&amp;&lt;b&gt;.txt</a>"), "{body}");
        assert!(body.contains("./sub%20dir/") && !body.contains(".env"), "{body}");
        assert!(body.contains("./within/"), "{body}");
        for name in ["absolute", "relative", "\"./up", "pipe"] {
            assert!(!body.contains(name), "{name} cannot be had: {body}");
        }
        for name in ["date", "server", "last-modified", "etag"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        let (status, headers, _) = ask(&site, Method::GET, "/sub%20dir", None).await;
        assert_eq!(
            (status, &headers[LOCATION]),
            (StatusCode::MOVED_PERMANENTLY, &HeaderValue::from_static("/sub%20dir/"))
        );
        let name = "/a%26%3Cb%3E.txt";
        assert_eq!(ask(&site, Method::GET, name, None).await.2, "0123456789");
        let (_, headers, body) = ask(&site, Method::HEAD, name, None).await;
        assert_eq!((headers[CONTENT_LENGTH].to_str().unwrap(), body.as_str()), ("10", ""));
        assert_eq!(ask(&site, Method::POST, name, None).await.0, StatusCode::METHOD_NOT_ALLOWED);
        for (range, status, part) in [
            ("bytes=2-4", 206, "234"),
            ("bytes=7-", 206, "789"),
            ("bytes=-3", 206, "789"),
            ("bytes=0-99", 206, "0123456789"),
            ("bytes=-99", 206, "0123456789"),
            ("bytes=1-2,4-5", 200, "0123456789"),
            ("lines=1-2", 200, "0123456789"),
        ] {
            let (got, _, body) = ask(&site, Method::GET, name, Some(range)).await;
            assert_eq!((got.as_u16(), body.as_str()), (status, part), "{range}");
        }
        for range in ["bytes=10-", "bytes=5-4", "bytes=-0"] {
            assert_eq!(ask(&site, Method::GET, name, Some(range)).await.0.as_u16(), 416, "{range}");
        }
    }

    #[test]
    fn what_may_not_be_read_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str, mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(dir.path().join(name), permissions).unwrap();
        };
        for folder in ["open", "shut", "unnamed"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in ["mine", "public", "open/public"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        for (name, own) in
            [("", 0o755), ("open", 0o755), ("shut", 0), ("unnamed", 0o111), ("mine", 0), ("public", 0o644)]
        {
            mode(name, own);
        }
        let listed = || {
            let root = OwnedFd::from(File::open(dir.path()).unwrap());
            let opened = beneath(&root, Path::new(".")).unwrap();
            entries(&root, Path::new("."), &opened).unwrap()
        };
        // Root may read all, so a thread of its own is somebody else.
        let somebody = || {
            let nobody = rustix::process::Uid::from_raw(65_534);
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            listed()
        };
        let listed = std::thread::scope(|scope| scope.spawn(somebody).join().unwrap());
        assert_eq!(listed, ["open/", "public"]);
    }

    #[test]
    fn browsers_are_told_what_files_are() {
        for (name, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/a/INDEX.HTML", "text/html; charset=utf-8"),
            ("/app.wasm", "application/wasm"),
            ("/a.mjs", "application/javascript"),
            ("/a.js", "text/javascript; charset=utf-8"),
            ("/film.webm", "video/webm"),
            ("/font.woff2", "font/woff2"),
            ("/a.avif", "image/avif"),
            ("/a.svg", "image/svg+xml"),
            ("/a.csv", "text/csv; charset=utf-8"),
            ("/feed.xml", "text/xml"),
            ("/README.md", "text/plain; charset=utf-8"),
            ("/main.c", "text/plain; charset=utf-8"),
            ("/a.log", "text/plain; charset=utf-8"),
            ("/a.tar.gz", "application/gzip"),
            ("/none", "application/octet-stream"),
            ("/.html", "application/octet-stream"),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn a_list_that_is_not_all_says_so() {
        let entries = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        let (all, some) = (listing("/", &entries(LISTED)), listing("/", &entries(LISTED + 1)));
        assert!(!all.contains("Only") && some.contains("Only 10000 are listed"));
        assert_eq!([&all, &some].map(|page| page.matches("<li>").count()), [LISTED; 2]);
    }

    proptest! {
        #[test]
        fn any_path_and_range_are_read_without_panic(path: String, range: String, length: u64) {
            let _ = (decoded(&path), part(&range, length), kind_of(&path));
            let _ = part(&format!("bytes={range}"), length);
        }
    }
}
