//! Windows: a pipe to which a file leads, and a greeting that only its daemon knows.

use std::io::{self, ErrorKind};
use std::path::Path;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use phantom_ipc::pipe::Pipe;
use tokio::io::AsyncReadExt;

use crate::os::Owner;

/// Connects; none when whoever is there does not greet as the daemon does that wrote the file.
pub(super) async fn connect(path: &Path) -> io::Result<Option<(Stream, Owner)>> {
    let pipe = Pipe::parse(&std::fs::read_to_string(path)?).ok_or(ErrorKind::InvalidData)?;
    let mut stream = Stream::connect(pipe.path().to_fs_name::<GenericFilePath>()?).await?;
    let mut greeting = [0; Pipe::GREETING];
    stream.read_exact(&mut greeting).await?;
    Ok((greeting == *pipe.greeting()).then(|| (stream, Owner::own())))
}

/// What phantom-run puts over a socket, where it does.
pub(super) fn is_masked(_: &Path) -> bool {
    false
}
