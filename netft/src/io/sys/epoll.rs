//! A level-triggered epoll set whose members are identified by a 64-bit token.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec, epoll,
        epoll::{CreateFlags, EventData, EventFlags},
    },
};

/// The set. Adding and removing is safe from any thread while another waits.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// Buffer for the result of a wait, kept by the caller so that waiting does not allocate.
pub struct EpollEvents(Vec<epoll::Event>);

impl EpollEvents {
    /// A buffer for `capacity` ready members per wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Returns whether the last wait found nothing ready.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tokens of the members that the last wait found ready.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|event| {
            let data = event.data;
            data.u64()
        })
    }
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// The descriptor limit is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches `fd` for input and errors.
    ///
    /// # Errors
    /// `fd` is a member already, or cannot be watched.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Forgets `fd`.
    ///
    /// # Errors
    /// `fd` is no member.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until a member is ready, at most `limit`; an interrupted wait yields none.
    ///
    /// # Errors
    /// Only a broken set can fail.
    pub fn wait(&self, events: &mut EpollEvents, limit: Option<Duration>) -> io::Result<()> {
        events.0.clear();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match epoll::wait(&self.0, spare_capacity(&mut events.0), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
