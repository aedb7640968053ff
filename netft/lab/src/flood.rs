//! Floods of handmade frames, as somebody on the network would send them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{error::LabError, netns::Netns, sys};

/// Frames sent before the clock is read again.
const BURST: u64 = 32;

/// A running flood.
#[derive(Debug)]
pub struct FrameFlood {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
}

impl FrameFlood {
    /// Sends `frames` in turn out of `interface` in `netns`, `per_second` of them, until finished.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses packet sockets.
    pub fn start(
        netns: &Netns,
        interface: &str,
        frames: Vec<Vec<u8>>,
        per_second: u32,
    ) -> Result<Self, LabError> {
        let failed = LabError::io_error(format!("flood {interface}"));
        let socket = netns.run_inside(|| sys::packet_socket(interface)).map_err(failed)?;
        // Nothing reads what it receives.
        let _ = socket.set_recv_buffer_size(0);
        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut sent, start) = (0u64, Instant::now());
                for frame in frames.iter().cycle() {
                    if sent.is_multiple_of(BURST) {
                        let due = Duration::from_secs_f64(sent as f64 / f64::from(per_second));
                        thread::sleep(due.saturating_sub(start.elapsed()));
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                    // A full queue loses it, as a real network would.
                    let _ = socket.send(frame);
                    sent += 1;
                }
                sent
            }
        });
        Ok(Self { stop, sender })
    }

    /// Stops; returns the number of frames sent.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        // A thread that panicked has printed why.
        self.sender.join().unwrap_or_default()
    }
}
