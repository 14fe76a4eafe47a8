//! A tokio program that knows nothing of Phantom: sends back reversed what it got until the client was done; also the client.

use std::io::{Error, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Serves each client in a task of its own.
async fn serve() -> Result<()> {
    let listener = TcpListener::bind("[::]:7000").await?;
    println!("listening");
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut data = Vec::new();
            client.read_to_end(&mut data).await?;
            data.reverse();
            client.write_all(&data).await
        });
    }
}

/// Sends a file and takes the answer at the same time, at each address of the name.
async fn ask(name: &str, file: &str) -> Result<()> {
    let data = tokio::fs::read(file).await?;
    let mut expected = data.clone();
    expected.reverse();
    for address in lookup_host((name, 7000)).await? {
        let (mut from, mut to) = TcpStream::connect(address).await?.into_split();
        let data = data.clone();
        let writer = tokio::spawn(async move {
            to.write_all(&data).await?;
            to.shutdown().await
        });
        let mut got = Vec::new();
        from.read_to_end(&mut got).await?;
        writer.await??;
        if got != expected {
            return Err(Error::other(format!("{} bytes, others than expected", got.len())));
        }
    }
    println!("all well");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().collect();
    match &words[..] {
        [_, role] if role == "server" => serve().await,
        [_, role, name, file] if role == "client" => ask(name, file).await,
        _ => Err(Error::other("server, or client NAME FILE")),
    }
}
