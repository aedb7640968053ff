//! Authorization and limits of control clients.
//!
//! Root and the daemon's user may do everything. With a group of readers the socket is open to its
//! members, too, who may only query.
//!
//! Bounds: [`MAX_CLIENTS`] clients; one request each, complete within [`CLIENT_TIMEOUT`] and
//! [`MAX_REQUEST_BYTES`] bytes; an answer that is not read for [`CLIENT_TIMEOUT`] is cut off. When
//! every place is taken, the client that has been idle longest is closed.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    os::unix::{
        fs as unix_fs,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use netft::roster::MAX_ROSTER_LEN;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, Sleep},
};

use super::schema::{ErrorBody, VersionedBody};

/// Clients served at a time.
pub const MAX_CLIENTS: usize = 32;
/// Time limit for a request, and for a reader of an answer that does not read.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest request body, bytes.
pub const MAX_BODY_BYTES: usize = 64 << 10;
/// Largest request with its head, bytes.
const MAX_REQUEST_BYTES: usize = MAX_ROSTER_LEN + (16 << 10);

/// The control socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refused.
    #[error("cannot create the control socket {}: {error}", .path.display())]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// Kernel error.
        error: io::Error,
    },
    /// The directory belongs to another user, or is none.
    #[error("{} {reason}: give another --runtime-dir", .path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// Description.
        reason: String,
    },
    /// The path exists and is not a socket.
    #[error("{} exists and is not a socket: remove it", .0.display())]
    InTheWay(PathBuf),
}

/// The control socket.
pub struct ControlListener {
    socket: UnixListener,
    path: PathBuf,
    owner: u32,
    /// The socket is open to the group of readers.
    has_readers: bool,
    permits: Arc<Semaphore>,
    /// Clients that have not sent their request, oldest first.
    pending_requests: VecDeque<oneshot::Sender<()>>,
}

impl ControlListener {
    /// Creates the socket at `path`, mode 0600, in a directory of mode 0700; with a group of
    /// `readers` 0660 and 0750. A socket left there is removed: the caller holds the lock of this
    /// adapter, so no daemon listens on it.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, readers: Option<u32>) -> Result<Self, BindError> {
        let io = |error| BindError::Io { path: path.to_owned(), error };
        let owner = rustix::process::geteuid().as_raw();
        let folder = path.parent().unwrap_or(Path::new("."));
        make_folder(folder, owner)?;
        match fs::symlink_metadata(path) {
            // A symlink is removed itself, never what it points to.
            Ok(meta) if meta.file_type().is_socket() || meta.is_symlink() => {
                fs::remove_file(path).map_err(io)?;
            }
            Ok(_) => return Err(BindError::InTheWay(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        // Until the mode is set, the directory's mode keeps other users out.
        let socket = UnixListener::bind(path).map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        let has_readers = readers.is_some_and(|group| match admit_group(folder, path, group) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    "the control socket stays closed to group {group}: {error}; give netftd the \
                     group (SupplementaryGroups= in its unit)"
                );
                false
            }
        });
        Ok(Self {
            socket,
            path: path.to_owned(),
            owner,
            has_readers,
            permits: Arc::new(Semaphore::new(MAX_CLIENTS)),
            pending_requests: VecDeque::new(),
        })
    }

    /// A permit for one more client, once there is one.
    async fn acquire_permit(&mut self) -> OwnedSemaphorePermit {
        self.pending_requests.retain(|client| !client.is_closed());
        if self.permits.available_permits() == 0 {
            while let Some(oldest) = self.pending_requests.pop_front() {
                if oldest.send(()).is_ok() {
                    tracing::debug!("control socket full: closed the oldest idle client");
                    break;
                }
            }
        }
        let places = Arc::clone(&self.permits);
        places.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// The process at the other end; `None` unless it runs as root or as this daemon's user, or
    /// the socket is open to a group: then the kernel has checked the membership (unix(7), mode
    /// 0660).
    fn authorize(&self, stream: &UnixStream) -> Option<ClientIdentity> {
        let peer = stream.peer_cred().ok()?;
        let may_change = peer.uid() == 0 || peer.uid() == self.owner;
        let client = ClientIdentity { uid: peer.uid(), pid: peer.pid(), may_change };
        if client.may_change || self.has_readers {
            return Some(client);
        }
        tracing::warn!(%client, "control connection refused: not root or the daemon's user");
        None
    }
}

/// The process at the other end of a control connection (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Its effective user.
    pub uid: u32,
    /// Its process id, where the kernel gives one.
    pub pid: Option<i32>,
    /// It may change the node; a reader may only query.
    pub may_change: bool,
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, " pid {pid}"))
    }
}

impl Connected<IncomingStream<'_, ControlListener>> for ClientIdentity {
    fn connect_info(stream: IncomingStream<'_, ControlListener>) -> Self {
        *stream.remote_addr()
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn make_folder(folder: &Path, owner: u32) -> Result<(), BindError> {
    let io = |error| BindError::Io { path: folder.to_owned(), error };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let meta = fs::symlink_metadata(folder).map_err(io)?;
    let unfit = |reason: String| Err(BindError::Folder { path: folder.to_owned(), reason });
    if !meta.is_dir() {
        return unfit("is not a directory".to_owned());
    }
    if meta.uid() != owner {
        return unfit(format!("belongs to uid {}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io)?;
    }
    Ok(())
}

/// Opens the socket and its directory to a group. The owner of a file may give it to a group of its
/// own without a capability (chown(2)).
fn admit_group(folder: &Path, socket: &Path, group: u32) -> io::Result<()> {
    unix_fs::chown(folder, None, Some(group))?;
    unix_fs::chown(socket, None, Some(group))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o750))
}

impl axum::serve::Listener for ControlListener {
    type Io = ClientStream;
    type Addr = ClientIdentity;

    async fn accept(&mut self) -> (ClientStream, ClientIdentity) {
        loop {
            let (stream, _) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: the next attempt may find one free.
                    tracing::debug!(%error, "control socket: accept failed, retrying in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if let Some(client) = self.authorize(&stream) {
                let place = self.acquire_permit().await;
                let (make_room, evicted) = oneshot::channel();
                self.pending_requests.push_back(make_room);
                return (ClientStream::new(stream, place, evicted), client);
            }
            let error = "only root and the daemon's own user may connect".to_owned();
            let body = serde_json::to_string(&VersionedBody::new(ErrorBody { error }));
            let body = body.unwrap_or_default();
            let head = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\n\
                        connection: close\r\n\r\n";
            // Fits the socket buffer; lost if the client does not read it.
            let _ = stream.try_write(format!("{head}{body}").as_bytes());
        }
    }

    fn local_addr(&self) -> io::Result<ClientIdentity> {
        let pid = i32::try_from(std::process::id()).ok();
        Ok(ClientIdentity { uid: self.owner, pid, may_change: true })
    }
}

/// One client.
pub struct ClientStream {
    stream: UnixStream,
    /// Deadline of the request until the answer begins, then of the reader.
    deadline: Pin<Box<Sleep>>,
    /// `None` once the answer begins.
    eviction: Option<oneshot::Receiver<()>>,
    /// A write waits for the reader.
    is_write_blocked: bool,
    /// Bytes left for the request.
    request_bytes_left: usize,
    _permit: OwnedSemaphorePermit,
}

impl ClientStream {
    fn new(
        stream: UnixStream,
        place: OwnedSemaphorePermit,
        evicted: oneshot::Receiver<()>,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(CLIENT_TIMEOUT));
        let eviction = Some(evicted);
        Self {
            stream,
            deadline,
            eviction,
            is_write_blocked: false,
            request_bytes_left: MAX_REQUEST_BYTES,
            _permit: place,
        }
    }

    /// Fails a write that has waited too long for its reader.
    fn poll_write_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.eviction = None;
        if written.is_ready() {
            self.is_write_blocked = false;
            return written;
        }
        if !self.is_write_blocked {
            self.is_write_blocked = true;
            self.deadline.as_mut().reset(Instant::now() + CLIENT_TIMEOUT);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(evicted) = &mut this.eviction {
            let late = this.deadline.as_mut().poll(cx).is_ready();
            if late || matches!(Pin::new(evicted).poll(cx), Poll::Ready(Ok(()))) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        // At most the limit is read: the rest stays in the socket, so that an answer can still be
        // sent.
        let mut space = [0; 4096];
        let room = space.len().min(buf.remaining()).min(this.request_bytes_left);
        if room == 0 && buf.remaining() > 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let mut part = ReadBuf::new(&mut space[..room]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        this.request_bytes_left -= part.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_write_deadline(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.poll_write_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
