//! Serves the control socket, and makes it anew when somebody removed it.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinHandle};

use crate::control::{
    backend::ControlBackend, listener::ControlListener, server, server::ControlContext,
};

/// Interval of the checks; SIGHUP causes one at once.
const SOCKET_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The server and the place of its socket.
pub(super) struct ControlServer<N> {
    socket: PathBuf,
    /// Group whose members may query.
    readers: Option<u32>,
    control: Arc<ControlContext<N>>,
    server: ServerTask,
    /// Inode of the socket.
    inode: Option<u64>,
    /// The last attempt failed, and was logged.
    is_failing: bool,
}

/// The task that serves; aborted when dropped, which removes the socket.
struct ServerTask(Option<JoinHandle<()>>);

impl Drop for ServerTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl<N: ControlBackend> ControlServer<N> {
    /// Serves `listener`, bound at `socket` for the group `readers`.
    pub(super) fn new(
        socket: PathBuf,
        readers: Option<u32>,
        listener: ControlListener,
        control: ControlContext<N>,
    ) -> Self {
        let control = Arc::new(control);
        let server = ServerTask(None);
        let mut this = Self { socket, readers, control, server, inode: None, is_failing: false };
        this.serve(listener);
        this
    }

    /// State that its answers are made from.
    pub(super) fn context(&self) -> Arc<ControlContext<N>> {
        Arc::clone(&self.control)
    }

    fn serve(&mut self, listener: ControlListener) {
        self.inode = self.read_inode();
        let control = Arc::clone(&self.control);
        self.server.0 = Some(tokio::spawn(server::serve(listener, control)));
    }

    fn read_inode(&self) -> Option<u64> {
        fs::symlink_metadata(&self.socket).ok().map(|meta| meta.ino())
    }

    /// Checks the socket now and then, and at every notification, until aborted.
    pub(super) async fn keep_socket(mut self, check_now: Arc<Notify>) {
        loop {
            // Either way it is time to look.
            let _ = tokio::time::timeout(SOCKET_CHECK_INTERVAL, check_now.notified()).await;
            if self.inode.is_none() || self.read_inode() != self.inode {
                self.bind_anew().await;
            }
        }
    }

    async fn bind_anew(&mut self) {
        if let Some(task) = self.server.0.take() {
            task.abort();
            // Its socket is gone before the new one is made: it removes the path.
            let _ = task.await;
        }
        match ControlListener::bind(&self.socket, self.readers) {
            Ok(listener) => {
                self.is_failing = false;
                tracing::warn!("control socket {} was removed: restored", self.socket.display());
                self.serve(listener);
            }
            Err(error) => {
                self.inode = None;
                if !self.is_failing {
                    tracing::error!(
                        "the control socket was removed and cannot be restored: {error}"
                    );
                }
                self.is_failing = true;
            }
        }
    }
}
