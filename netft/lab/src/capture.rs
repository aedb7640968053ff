//! Packet capture on one interface, and injection of frames.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use socket2::Socket;

use crate::{error::LabError, netns::Netns, sys};

/// Bytes a capture keeps at most; frames beyond are counted only.
const MAX_KEPT_BYTES: usize = 256 << 20;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    socket: Arc<Socket>,
    shared: Arc<CaptureState>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct CaptureState {
    stop: AtomicBool,
    kept: Mutex<KeptFrames>,
}

#[derive(Debug, Default)]
struct KeptFrames {
    frames: Vec<Vec<u8>>,
    bytes: usize,
    not_kept: u64,
}

impl Capture {
    /// Captures frames of both directions on `interface` in `netns`, from the Ethernet header on. A
    /// send that the kernel leaves to be segmented later (GSO) is one frame.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses packet sockets.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self, LabError> {
        let failed = || LabError::io_error(format!("capture on {interface}"));
        let socket = netns.run_inside(|| sys::packet_socket(interface)).map_err(failed())?;
        // Best effort: the limit of the machine applies.
        let _ = socket.set_recv_buffer_size(8 << 20);
        socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(failed())?;
        let (socket, shared) = (Arc::new(socket), Arc::new(CaptureState::default()));
        let reader = thread::spawn({
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || read_frames(&socket, &shared)
        });
        Ok(Self { socket, shared, reader: Some(reader) })
    }

    /// The frames captured so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).frames.clone()
    }

    /// Sends a frame, as if it came from inside the network's switch.
    ///
    /// # Errors
    /// When the interface is down, or the frame exceeds its MTU.
    pub fn inject_frame(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Stops; returns the frames, and the number of frames that were not kept.
    pub fn finish(mut self) -> (Vec<Vec<u8>>, u64) {
        self.stop_reader();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut kept.frames), kept.not_kept)
    }

    fn stop_reader(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop_reader();
    }
}

fn read_frames(socket: &Socket, shared: &CaptureState) {
    use std::io::Read;
    let mut buffer = vec![0; 1 << 17];
    while !shared.stop.load(Relaxed) {
        let Ok(length) = (&mut &*socket).read(&mut buffer) else { continue };
        let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + length > MAX_KEPT_BYTES {
            kept.not_kept += 1;
        } else {
            kept.bytes += length;
            kept.frames.push(buffer[..length].to_vec());
        }
    }
}
