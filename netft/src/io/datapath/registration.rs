//! What a worker watches: changed by the driver, read by the worker.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use crate::io::{
    fib::{SocketId, TunQueue, UdpSocket},
    sys::epoll::Epoll,
};

/// Token of the wake-up descriptor.
pub(super) const WAKE: u64 = 0;
/// Token of the adapter's queue.
pub(super) const QUEUE: u64 = 1;
/// Bit of the tokens of sockets; the lower half is the [`SocketId`].
const SOCKET: u64 = 1 << 32;

/// The socket a token stands for.
pub(super) fn socket_of(token: u64) -> Option<SocketId> {
    let id = u32::try_from(token ^ SOCKET).ok()?;
    Some(SocketId(id))
}

/// The descriptors of one worker.
#[derive(Clone, Default)]
pub(super) struct Watched {
    pub(super) queue: Option<Arc<TunQueue>>,
    pub(super) sockets: Vec<Arc<UdpSocket>>,
}

/// What the driver's side and the worker share.
pub(super) struct Shared {
    pub(super) epoll: Epoll,
    wake: OwnedFd,
    stop: AtomicBool,
    /// Counts changes of `watched`, so that the worker takes the lock only after one.
    version: AtomicU64,
    watched: Mutex<Watched>,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        epoll.add(&wake, WAKE)?;
        Ok(Self {
            epoll,
            wake,
            stop: AtomicBool::new(false),
            version: AtomicU64::new(0),
            watched: Mutex::default(),
        })
    }

    pub(super) fn watch_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let mut watched = self.lock();
        self.epoll.add(&socket.fd, SOCKET | u64::from(socket.id.0))?;
        watched.sockets.push(socket.clone());
        self.changed(watched);
        Ok(())
    }

    pub(super) fn unwatch_socket(&self, id: SocketId) {
        let mut watched = self.lock();
        if let Some(place) = watched.sockets.iter().position(|socket| socket.id == id) {
            let socket = watched.sockets.swap_remove(place);
            let _ = self.epoll.remove(&socket.fd);
        }
        self.changed(watched);
    }

    pub(super) fn watch_queue(&self, queue: &Arc<TunQueue>) -> io::Result<()> {
        let mut watched = self.lock();
        if let Some(old) = watched.queue.take() {
            let _ = self.epoll.remove(&old.fd);
        }
        let added = self.epoll.add(&queue.fd, QUEUE);
        if added.is_ok() {
            watched.queue = Some(queue.clone());
        }
        self.changed(watched);
        added
    }

    pub(super) fn unwatch_queue(&self) {
        let mut watched = self.lock();
        if let Some(old) = watched.queue.take() {
            let _ = self.epoll.remove(&old.fd);
        }
        self.changed(watched);
    }

    /// The worker gives up a dead queue, unless the driver has replaced it.
    pub(super) fn give_up(&self, queue: &Arc<TunQueue>) -> bool {
        let mut watched = self.lock();
        if !watched.queue.as_ref().is_some_and(|current| Arc::ptr_eq(current, queue)) {
            return false;
        }
        let _ = self.epoll.remove(&queue.fd);
        watched.queue = None;
        self.changed(watched);
        true
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn drain_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// What is watched, when it changed since the version seen last.
    #[inline]
    pub(super) fn news(&self, seen: &mut u64) -> Option<Watched> {
        if self.version.load(Ordering::Acquire) == *seen {
            return None;
        }
        let watched = self.lock();
        *seen = self.version.load(Ordering::Acquire);
        Some(watched.clone())
    }

    fn changed(&self, watched: MutexGuard<'_, Watched>) {
        self.version.fetch_add(1, Ordering::Release);
        drop(watched);
        self.wake();
    }

    pub(super) fn wake(&self) {
        // A full counter has woken the worker already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Every change leaves it whole.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_of_sockets_are_told_from_the_others() {
        assert_eq!(socket_of(SOCKET), Some(SocketId(0)));
        assert_eq!(socket_of(SOCKET | u64::from(u32::MAX)), Some(SocketId(u32::MAX)));
        assert_eq!(socket_of(WAKE), None);
        assert_eq!(socket_of(QUEUE), None);
    }

    #[test]
    fn news_come_once_per_change() {
        let shared = Shared::new().unwrap();
        let mut seen = 0;
        assert!(shared.news(&mut seen).is_none());
        shared.unwatch_queue();
        assert!(shared.news(&mut seen).is_some());
        assert!(shared.news(&mut seen).is_none());
    }

    #[test]
    fn a_replaced_queue_is_not_given_up_for_its_successor() {
        let shared = Shared::new().unwrap();
        let queue = || {
            let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
            Arc::new(TunQueue { fd, vnet_hdr: true })
        };
        let (old, new) = (queue(), queue());
        shared.watch_queue(&old).unwrap();
        shared.watch_queue(&new).unwrap();
        assert!(!shared.give_up(&old));
        assert!(shared.give_up(&new));
        assert!(!shared.give_up(&new));
    }
}
