//! Whether a server answers through one interface, whatever the routing table prefers.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike};

/// Opens a TCP connection that leaves through the interface with this index, and returns it. Needs root. Waits `patience` at most.
pub fn connect_through(interface: u32, server: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = super::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    let index = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one int from `index`, which outlives the call.
    let bound = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            super::length_of::<libc::c_int>(),
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    let address: Box<dyn SockaddrLike> = match server {
        SocketAddr::V4(v4) => Box::new(SockaddrIn::from(v4)),
        SocketAddr::V6(v6) => Box::new(SockaddrIn6::from(v6)),
    };
    match nix::sys::socket::connect(socket.as_raw_fd(), address.as_ref()) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    if poll(&mut waiting, patience)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let stream = TcpStream::from(socket);
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::route::{interface_index, set_up, tests::in_own_network};

    #[test]
    fn netns_a_server_is_reached_through_its_own_interface_alone() {
        in_own_network(|| {
            let lo = interface_index("lo").unwrap();
            set_up(lo).unwrap();
            let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let limit = Duration::from_secs(5);
            connect_through(lo, address, limit).unwrap();
            drop(server);
            let refused = connect_through(lo, address, limit).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            assert!(connect_through(9999, address, limit).is_err());
        });
    }
}
