//! One question to one server: by UDP, and by TCP where the answer does not fit into a packet.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::error::Answered;
use crate::message::{self, Answer, Family};

/// The largest packet by UDP that is read; without an extension no server sends more than 512 bytes.
const LARGEST_PACKET: usize = 4096;

/// Asks and waits, `patience` for each way. `Answer::Truncated` never comes back.
pub(crate) async fn exchange(
    server: SocketAddr,
    name: &str,
    family: Family,
    patience: Duration,
) -> Result<Answer, Answered> {
    match timeout(patience, by_udp(server, name, family)).await {
        Err(_) => Err(Answered::Nothing(patience)),
        Ok(Err(error)) => Err(broken(&error)),
        Ok(Ok(Answer::Truncated)) => match timeout(patience, by_tcp(server, name, family)).await {
            Err(_) => Err(Answered::Broken(format!(
                "a truncated answer, and nothing by TCP within {:.1} s",
                patience.as_secs_f64()
            ))),
            Ok(Err(error)) => Err(Answered::Broken(format!("a truncated answer, and by TCP: {error}"))),
            Ok(Ok(answer)) => Ok(answer),
        },
        Ok(Ok(answer)) => Ok(answer),
    }
}

fn broken(error: &io::Error) -> Answered {
    Answered::Broken(match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".into(),
        _ => error.to_string(),
    })
}

async fn by_udp(server: SocketAddr, name: &str, family: Family) -> io::Result<Answer> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket and a port for each question, and connected: packets of others do not come through.
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    let id = random();
    let question = message::question(id, name, family).ok_or(io::ErrorKind::InvalidInput)?;
    socket.send(&question).await?;
    let mut buffer = vec![0; LARGEST_PACKET];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let packet = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = message::answer(packet, id, name, family) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, name: &str, family: Family) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random();
    let question = message::question(id, name, family).ok_or(io::ErrorKind::InvalidInput)?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    match message::answer(&packet, id, name, family) {
        Some(Answer::Truncated) | None => Err(io::Error::other("what came is no answer")),
        Some(answer) => Ok(answer),
    }
}

/// A number that cannot be guessed from earlier ones: the standard library seeds its hashes from the kernel.
fn random() -> u16 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    let [a, b, ..] = hasher.finish().to_ne_bytes();
    u16::from_ne_bytes([a, b])
}
