//! One node per UDP port and network namespace.
//!
//! The sockets of a node share their port among its workers (SO_REUSEPORT), so the kernel would
//! give a second node's sockets a part of the first one's datagrams. The claim is a listening
//! socket with an abstract name (unix(7)): such names belong to the network namespace, as ports
//! do, the kernel frees the name when its owner ends, however it ends, and tells who owns it.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use tokio::task::JoinHandle;

/// Attempts to read who owns a claim that is being freed.
const OWNER_ATTEMPTS: usize = 3;

/// Why a port could not be claimed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another node uses it.
    #[error(
        "UDP port {port} belongs to a running netftd ({}) in this network namespace; stop it, or \
         give this node another session.port",
        describe_owner(*pid)
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

fn describe_owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "in another PID namespace".into(), |pid| format!("pid {pid}"))
}

/// Exclusive claim of a port; released when dropped.
#[derive(Debug)]
pub(crate) struct PortClaim {
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
    /// Claims `port` in the network namespace of this thread. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ClaimError::Claimed`] when another node has it.
    pub(crate) fn acquire(port: u16) -> Result<Self, ClaimError> {
        let failed = |source| ClaimError::Io { port, source };
        let name = SocketAddr::from_abstract_name(format!("netft-port-{port}")).map_err(failed)?;
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
            owner = read_owner(&name);
            if owner.is_some() {
                break;
            }
        }
        match owner {
            // Any local user can bind the name: only a user that could run netftd is believed.
            Some((uid, _)) if uid != 0 && uid != rustix::process::geteuid().as_raw() => {
                tracing::warn!(port, uid, "another user holds netft's claim of the port: ignored");
                Ok(Self { accepting: None })
            }
            owner => Err(ClaimError::Claimed { port, pid: owner.and_then(|(_, pid)| pid) }),
        }
    }

    fn hold(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let accepting = tokio::spawn(async move {
            loop {
                if listener.accept().await.is_err() {
                    // Out of descriptors: those who ask wait.
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        });
        Ok(Self { accepting: Some(accepting) })
    }
}

/// User and process id of the owner of a claim; `None` when it is gone.
fn read_owner(name: &SocketAddr) -> Option<(u32, Option<u32>)> {
    let stream = UnixStream::connect_addr(name).ok()?;
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
