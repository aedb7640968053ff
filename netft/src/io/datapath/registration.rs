//! The descriptors registered with a worker: changed by the driver, read by the worker.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use netft_proto::time::Time;
use rustix::event::{EventfdFlags, eventfd};

use crate::io::{
    socket::{SocketId, TunQueue, UdpSocket},
    sys::epoll::Epoll,
};

/// Token of the wake-up descriptor.
pub(super) const WAKE_TOKEN: u64 = 0;
/// Token of the adapter's queue.
pub(super) const QUEUE_TOKEN: u64 = 1;
/// Bit of the tokens of sockets; the lower half is the [`SocketId`].
const SOCKET_TOKEN_BIT: u64 = 1 << 32;

/// The token of a socket.
fn token_of(id: SocketId) -> u64 {
    SOCKET_TOKEN_BIT | u64::from(id.0)
}

/// The socket of a token.
pub(super) fn socket_of(token: u64) -> Option<SocketId> {
    let id = u32::try_from(token ^ SOCKET_TOKEN_BIT).ok()?;
    Some(SocketId(id))
}

/// The descriptors of one worker.
#[derive(Clone, Default)]
pub(super) struct RegisteredFds {
    pub(super) queue: Option<Arc<TunQueue>>,
    pub(super) sockets: Vec<Arc<UdpSocket>>,
}

/// The state shared by the driver and a worker.
pub(super) struct WorkerShared {
    pub(super) epoll: Epoll,
    wake_fd: OwnedFd,
    stop_flag: AtomicBool,
    /// When the present turn began, nanoseconds; 0 between two turns.
    turn_began: AtomicU64,
    /// Number of changes of `registered`, so that the worker takes the lock only after one.
    version: AtomicU64,
    registered: Mutex<RegisteredFds>,
}

impl WorkerShared {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        epoll.add(&wake, WAKE_TOKEN)?;
        Ok(Self {
            epoll,
            wake_fd: wake,
            stop_flag: AtomicBool::new(false),
            turn_began: AtomicU64::new(0),
            version: AtomicU64::new(0),
            registered: Mutex::default(),
        })
    }

    pub(super) fn register_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let mut registered = self.lock_registered();
        self.epoll.add(socket.kernel_fd(), token_of(socket.id))?;
        registered.sockets.push(socket.clone());
        self.publish_change(registered);
        Ok(())
    }

    /// Puts a socket in the place of the registered one of its number and descriptor: the same one
    /// with a fault, or without.
    pub(super) fn replace_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let mut registered = self.lock_registered();
        let place = registered.sockets.iter().position(|known| known.id == socket.id);
        let Some(place) = place else { return Ok(()) };
        if let Some(timer) = socket.fault_timer() {
            self.epoll.add(timer, token_of(socket.id))?;
        }
        let before = std::mem::replace(&mut registered.sockets[place], socket.clone());
        if let Some(timer) = before.fault_timer() {
            let _ = self.epoll.remove(timer);
        }
        self.publish_change(registered);
        Ok(())
    }

    pub(super) fn deregister_socket(&self, id: SocketId) {
        let mut registered = self.lock_registered();
        if let Some(place) = registered.sockets.iter().position(|socket| socket.id == id) {
            let socket = registered.sockets.swap_remove(place);
            let _ = self.epoll.remove(socket.kernel_fd());
            if let Some(timer) = socket.fault_timer() {
                let _ = self.epoll.remove(timer);
            }
        }
        self.publish_change(registered);
    }

    pub(super) fn register_queue(&self, queue: &Arc<TunQueue>) -> io::Result<()> {
        let mut registered = self.lock_registered();
        if let Some(old) = registered.queue.take() {
            let _ = self.epoll.remove(&old.fd);
        }
        let added = self.epoll.add(&queue.fd, QUEUE_TOKEN);
        if added.is_ok() {
            registered.queue = Some(queue.clone());
        }
        self.publish_change(registered);
        added
    }

    /// The registered queue.
    pub(super) fn registered_queue(&self) -> Option<Arc<TunQueue>> {
        self.lock_registered().queue.clone()
    }

    /// Removes a dead queue, unless the driver has replaced it. Returns whether it did.
    pub(super) fn abandon_queue(&self, queue: &Arc<TunQueue>) -> bool {
        let mut registered = self.lock_registered();
        if !registered.queue.as_ref().is_some_and(|current| Arc::ptr_eq(current, queue)) {
            return false;
        }
        let _ = self.epoll.remove(&queue.fd);
        registered.queue = None;
        self.publish_change(registered);
        true
    }

    pub(super) fn request_stop(&self) {
        self.stop_flag.store(true, Ordering::Release);
        self.wake_worker();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop_flag.load(Ordering::Acquire)
    }

    pub(super) fn begin_turn(&self, now: Time) {
        self.turn_began.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn end_turn(&self) {
        self.turn_began.store(0, Ordering::Release);
    }

    /// Length of the turn that the worker is in.
    pub(super) fn turn_length(&self, now: Time) -> Option<Duration> {
        let began = self.turn_began.load(Ordering::Acquire);
        (began > 0).then(|| now.since(Time::from_nanos(began)))
    }

    pub(super) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake_fd, &mut [0; 8]);
    }

    /// The registered descriptors, if they changed since the version seen last.
    #[inline]
    pub(super) fn changed_since(&self, seen: &mut u64) -> Option<RegisteredFds> {
        if self.version.load(Ordering::Acquire) == *seen {
            return None;
        }
        let registered = self.lock_registered();
        *seen = self.version.load(Ordering::Acquire);
        Some(registered.clone())
    }

    fn publish_change(&self, registered: MutexGuard<'_, RegisteredFds>) {
        self.version.fetch_add(1, Ordering::Release);
        drop(registered);
        self.wake_worker();
    }

    pub(super) fn wake_worker(&self) {
        // The write fails only when the counter is full, and the worker awake.
        let _ = rustix::io::write(&self.wake_fd, &1u64.to_ne_bytes());
    }

    fn lock_registered(&self) -> MutexGuard<'_, RegisteredFds> {
        // Every change leaves it consistent, so a poisoned lock is usable.
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft_proto::packet::virtio_net::VnetFormat;

    use super::*;

    #[test]
    fn tokens_of_sockets_differ_from_the_others() {
        assert_eq!(socket_of(SOCKET_TOKEN_BIT), Some(SocketId(0)));
        assert_eq!(socket_of(SOCKET_TOKEN_BIT | u64::from(u32::MAX)), Some(SocketId(u32::MAX)));
        assert_eq!(socket_of(WAKE_TOKEN), None);
        assert_eq!(socket_of(QUEUE_TOKEN), None);
    }

    #[test]
    fn a_turn_has_a_length_until_it_ends() {
        let (shared, at) = (WorkerShared::new().unwrap(), Time::from_millis);
        assert_eq!(shared.turn_length(at(5)), None);
        shared.begin_turn(at(5));
        assert_eq!(shared.turn_length(at(25)), Some(Duration::from_millis(20)));
        shared.end_turn();
        assert_eq!(shared.turn_length(at(25)), None);
    }

    #[test]
    fn a_change_is_seen_once() {
        let shared = WorkerShared::new().unwrap();
        let mut seen = 0;
        assert!(shared.changed_since(&mut seen).is_none());
        shared.deregister_socket(SocketId(1));
        assert!(shared.changed_since(&mut seen).is_some());
        assert!(shared.changed_since(&mut seen).is_none());
    }

    #[test]
    fn a_replaced_queue_is_not_abandoned_for_its_successor() {
        let shared = WorkerShared::new().unwrap();
        let queue = || {
            let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
            Arc::new(TunQueue { fd, format: VnetFormat::Basic })
        };
        let (old, new) = (queue(), queue());
        shared.register_queue(&old).unwrap();
        shared.register_queue(&new).unwrap();
        assert!(!shared.abandon_queue(&old));
        assert!(shared.abandon_queue(&new));
        assert!(!shared.abandon_queue(&new));
    }
}
