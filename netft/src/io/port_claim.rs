//! One node per UDP port and network namespace.
//!
//! The sockets of a node share their port among its workers (SO_REUSEPORT), so the kernel would
//! give a second node's sockets a part of the first one's datagrams. The claim is a listening
//! socket with an abstract name (unix(7)): such names belong to the network namespace, as ports
//! do, the kernel frees the name when its owner ends, however it ends, and names its process.
//!
//! Any local user can bind the name. A holder that is no netftd (another user's, or one that takes
//! no connections) is ignored with a warning.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::task::JoinHandle;

use crate::io::ownership::{describe_process, is_trusted_user};

/// Attempts to read who owns a claim that is being taken or freed.
const OWNER_ATTEMPTS: usize = 3;
/// Connections of those that ask for the owner, waiting to be closed.
const LISTEN_BACKLOG: i32 = 128;
const OWNER_ATTEMPT_PAUSE: Duration = Duration::from_millis(10);

/// Why a port could not be claimed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another node uses it.
    #[error(
        "UDP port {port} belongs to a running netftd ({}) in this network namespace; stop it, or \
         give this node another session.port",
        describe_process(*pid)
    )]
    Claimed {
        /// The port.
        port: u16,
        /// Process id of the owner; `None` in another PID namespace.
        pid: Option<u32>,
    },
    /// The kernel refused.
    #[error("cannot claim UDP port {port}: {source}")]
    Io {
        /// The port.
        port: u16,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Exclusive claim of a port; released when dropped.
#[derive(Debug)]
pub(crate) struct PortClaim {
    /// The listening socket, for a successor process; `None` for a claim that is ignored.
    listener: Option<OwnedFd>,
    /// Closes the connections of those that ask for the owner, so that their queue stays empty.
    accepting: Option<JoinHandle<()>>,
}

impl Drop for PortClaim {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl PortClaim {
    /// Releases the claim: the port is free when this returns.
    pub(crate) async fn release(mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // It ends cancelled.
            let _ = accepting.await;
        }
    }

    /// Claims `port` in the network namespace of this thread. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ClaimError::Claimed`] when another node has it.
    pub(crate) fn acquire(port: u16) -> Result<Self, ClaimError> {
        let failed = |source| ClaimError::Io { port, source };
        let text = format!("netft-port-{port}");
        let name = SocketAddr::from_abstract_name(&text).map_err(failed)?;
        let mut owner = None;
        for _ in 0..OWNER_ATTEMPTS {
            match UnixListener::bind_addr(&name) {
                Ok(listener) => {
                    warn_of_other_program(port);
                    return Self::hold(listener).map_err(failed);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
            }
            owner = read_owner(&text);
            if owner.is_some() {
                break;
            }
            thread::sleep(OWNER_ATTEMPT_PAUSE);
        }
        refuse_owner(port, owner, is_trusted_user)?;
        Ok(Self { listener: None, accepting: None })
    }

    /// A second descriptor of the claim; `None` where the port is held by another program.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        self.listener.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// The claim of `port` that another process handed over, from here on with this process as its
    /// owner; without one the port is claimed anew.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub(crate) fn inherit(port: u16, descriptor: OwnedFd) -> Result<Self, ClaimError> {
        let name = SocketAddrUnix::new_abstract_name(format!("netft-port-{port}").as_bytes());
        let is_claim = rustix::net::getsockname(&descriptor).is_ok_and(|bound| {
            SocketAddrUnix::try_from(bound).ok().is_some_and(|bound| Ok(bound) == name)
        });
        if !is_claim {
            return Self::acquire(port);
        }
        // Again: the kernel notes the process that listened last (unix(7), SO_PEERCRED).
        let held = rustix::net::listen(&descriptor, LISTEN_BACKLOG)
            .map_err(io::Error::from)
            .and_then(|()| Self::hold(UnixListener::from(descriptor)));
        held.map_err(|source| ClaimError::Io { port, source })
    }

    fn hold(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let descriptor = OwnedFd::from(listener.try_clone()?);
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let accepting = tokio::spawn(async move {
            loop {
                if listener.accept().await.is_err() {
                    // Out of descriptors: those who ask wait.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        Ok(Self { listener: Some(descriptor), accepting: Some(accepting) })
    }
}

/// Refuses a port that a node owns. Any local user can bind the name: only a user that could run
/// netftd is believed.
fn refuse_owner(
    port: u16,
    owner: Option<(u32, Option<u32>)>,
    is_trusted: impl Fn(u32) -> bool,
) -> Result<(), ClaimError> {
    match owner {
        Some((uid, pid)) if is_trusted(uid) => return Err(ClaimError::Claimed { port, pid }),
        Some((uid, _)) => {
            tracing::warn!(port, uid, "another user holds netft's claim of the port: ignored");
        }
        None => {
            tracing::warn!(port, "a program that is no netftd holds netft's claim: ignored");
        }
    }
    Ok(())
}

/// User and process id of the owner of a claim; `None` when it is gone or takes no connections.
fn read_owner(name: &str) -> Option<(u32, Option<u32>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let stream = rustix::net::socket_with(family, kind, flags, None).ok()?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
    // A full queue is EAGAIN: netftd accepts at once.
    rustix::net::connect(&stream, &address).ok()?;
    let owner = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    // A process in a PID namespace that this one cannot see has number 0.
    let pid = u32::try_from(owner.pid.as_raw_pid()).ok().filter(|pid| *pid > 0);
    Some((owner.uid.as_raw(), pid))
}

/// Warns when another program has a socket at `port`: at its address nothing arrives here.
fn warn_of_other_program(port: u16) {
    // A socket that shares nothing conflicts with every other one of the port (socket(7)).
    let bound = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| {
        let used = error.kind() == io::ErrorKind::AddrInUse;
        if used { Err(error) } else { UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) }
    });
    if bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        tracing::warn!(
            port,
            "another program has a UDP socket at this port and takes what arrives at its address: \
             `ss -ulpn sport = :{port}` names it"
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_bound_and_takes_no_connection_stops_nobody() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let name = format!("netft-port-{port}");
        let bound = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&bound, &address).unwrap();
        PortClaim::acquire(port).unwrap();
        // Nor does a queue that is full.
        rustix::net::listen(&bound, 0).unwrap();
        while read_owner(&name).is_some() {}
        PortClaim::acquire(port).unwrap();
    }

    /// F-115.
    #[tokio::test]
    async fn a_claim_is_handed_over_without_a_gap() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let first = PortClaim::acquire(port).unwrap();
        let descriptor = first.duplicate().unwrap().unwrap();
        first.release().await;
        assert!(PortClaim::acquire(port).is_err(), "the descriptor holds it");
        let second = PortClaim::inherit(port, descriptor).unwrap();
        assert!(PortClaim::acquire(port).is_err());
        second.release().await;
        tokio::task::yield_now().await;
        let other = PortClaim::acquire(port).unwrap();
        // What is no claim of the port: it is claimed anew.
        assert!(PortClaim::inherit(port, socket.into()).is_err());
        drop(other);
    }

    #[test]
    fn another_users_claim_is_ignored() {
        let is_trusted = |uid| uid == 0;
        assert!(refuse_owner(1, Some((0, Some(7))), is_trusted).is_err());
        assert!(refuse_owner(1, Some((0, None)), is_trusted).is_err());
        assert!(refuse_owner(1, Some((1000, Some(7))), is_trusted).is_ok());
        assert!(refuse_owner(1, None, is_trusted).is_ok());
    }

    #[tokio::test]
    async fn a_second_claim_is_refused_with_the_owner_and_possible_after_it() {
        // A port of its own: tests of other processes run in this namespace too.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let first = PortClaim::acquire(port).unwrap();
        for _ in 0..300 {
            let error = PortClaim::acquire(port).unwrap_err().to_string();
            let pid = format!("pid {}", std::process::id());
            assert!(error.contains(&pid) && error.contains(&port.to_string()), "{error}");
            assert!(error.contains("session.port"), "{error}");
            tokio::task::yield_now().await;
        }
        drop(first);
        tokio::task::yield_now().await;
        drop(PortClaim::acquire(port).unwrap());
    }
}
