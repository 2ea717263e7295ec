//! Ethernet frames of one type, heard on several interfaces at once: what a switch announces about itself (LLDP).
//!
//! Listens only. The interface is promiscuous for as long as its socket is open; closing it undoes that, whatever happens.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longer than any frame of an ordinary Ethernet.
const LONGEST: usize = 2048;

/// See [`crate::Kernel::capture_frames`].
pub(crate) fn capture(
    interfaces: &[String],
    ethertype: u16,
    silence: Duration,
) -> Vec<io::Result<Option<Vec<u8>>>> {
    let mut answers: Vec<io::Result<Option<Vec<u8>>>> = Vec::new();
    let mut listening = Vec::new();
    for (position, interface) in interfaces.iter().enumerate() {
        match open(interface, ethertype) {
            Ok(socket) => {
                listening.push((position, socket));
                answers.push(Ok(None));
            }
            Err(error) => answers.push(Err(error)),
        }
    }
    let mut deadline = Instant::now() + silence;
    while !listening.is_empty() && Instant::now() < deadline {
        let ready = match wait(&listening, deadline.saturating_duration_since(Instant::now())) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::warn!(%error, "waiting for frames failed");
                break;
            }
        };
        for position in ready {
            let Some(at) = listening.iter().position(|(p, _)| *p == position) else { continue };
            let (_, socket) = listening.swap_remove(at);
            deadline = Instant::now() + silence;
            if let Some(answer) = answers.get_mut(position) {
                *answer = receive(&socket).map(Some);
            }
        }
    }
    answers
}

/// A socket that receives frames of this type from one interface, whoever they are addressed to.
fn open(interface: &str, ethertype: u16) -> io::Result<OwnedFd> {
    let index = i32::try_from(super::route::interface_index(interface)?).map_err(io::Error::other)?;
    // Protocol 0 receives nothing until the socket is bound to its interface.
    let socket = super::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(), // 1
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the kernel reads one `packet_mreq` from `membership`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            super::length_of::<libc::packet_mreq>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(), // 17
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    super::bind(&socket, &address)?;
    Ok(socket)
}

/// The positions whose sockets have something to say; none when the time is up.
fn wait(listening: &[(usize, OwnedFd)], patience: Duration) -> io::Result<Vec<usize>> {
    let mut waiting: Vec<_> =
        listening.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up, so that the last fraction of a millisecond is no busy loop.
    let patience = patience.saturating_add(Duration::from_micros(999));
    match poll(&mut waiting, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = waiting.iter().zip(listening);
    Ok(ready.filter(|(poll, _)| poll.any().unwrap_or(false)).map(|(_, (position, _))| *position).collect())
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; LONGEST];
    let length =
        nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
    frame.truncate(length);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_fails_alone_and_silence_ends_the_wait() {
        let started = Instant::now();
        let names = ["no-such-if0".to_owned(), "lo".to_owned()];
        let answers = capture(&names, 0x88b7, Duration::from_millis(50));
        assert!(answers[0].is_err());
        if nix::unistd::geteuid().is_root() {
            assert!(matches!(answers[1], Ok(None)), "{answers:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn one_frame_of_the_type_is_heard_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            // Only root may listen to frames. Past cargo's capture: it counts.
            let _ = io::Write::write_all(&mut io::stderr(), b"SKIPPED: listening to frames needs root\n");
            return;
        }
        // 0x88b5 is free for experiments; the loopback interface hears what is sent on it.
        let speaker = open("lo", 0x88b5).unwrap();
        let frame = |kind: [u8; 2], text: &[u8]| [&[0; 12], kind.as_slice(), text].concat();
        let talking = std::thread::spawn(move || {
            for _ in 0..200 {
                for bytes in [frame([0x88, 0xb6], b"other"), frame([0x88, 0xb5], b"hello")] {
                    nix::unistd::write(&speaker, &bytes).unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let heard = capture(&["lo".to_owned()], 0x88b5, Duration::from_secs(10)).remove(0).unwrap();
        assert_eq!(heard.unwrap(), frame([0x88, 0xb5], b"hello"));
        talking.join().unwrap();
    }
}
