//! A network whose grey faults are ours: loss, bursts, delay, a size limit, a bottleneck, frames
//! that come twice or late.
//!
//! A thread per direction relays frames between the ports of a flat network's two nodes, in place
//! of its bridge. Frames have their size on the wire: the nodes' interfaces cut segmented sends.

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rtnetlink::{LinkUnspec, packet_route::link::LinkAttribute};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};
use socket2::Socket;

use super::{Lab, LabError, Netns, interface_index, sys};

/// The kernel's `virtio_net_hdr` in front of every frame: offloads survive the relay.
const META: usize = 10;
/// Ethernet header.
const ETHERNET: usize = 14;
/// Bytes that wait at the bottleneck; what comes on top is lost.
const QUEUE: usize = 128 << 10;
/// How long a relay sleeps at most, so that it ends when asked to.
const LOOK: Duration = Duration::from_millis(20);
/// The most a frame is late.
const LATE: Duration = Duration::from_millis(1);

/// What one direction does to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Grey {
    /// Share of frames lost at random, 0.0–1.0.
    pub loss: f64,
    /// Every first duration, everything is lost for the second one.
    pub burst: Option<(Duration, Duration)>,
    /// Time on the way. Order is kept.
    pub delay: Duration,
    /// Share of frames that come twice, the copy at once or late, 0.0–1.0.
    pub twice: f64,
    /// Share of frames (and of copies) that come up to a millisecond late, so that others overtake
    /// them, 0.0–1.0.
    pub late: f64,
    /// IP packets longer than this vanish, bytes.
    pub largest: Option<usize>,
    /// A bottleneck, bytes per second, with a queue of 128 KiB.
    pub rate: Option<u64>,
    /// Frames marked CS6 (RFC 4594, network control) pass the bottleneck's queue by.
    pub classes: bool,
}

/// A running wire; when dropped, the network carries nothing any more.
#[derive(Debug)]
pub struct Wire {
    /// By the node that sends.
    ways: [Arc<Way>; 2],
}

#[derive(Debug, Default)]
struct Way {
    stop: AtomicBool,
    grey: Mutex<Grey>,
    lost: AtomicU64,
    relayed: AtomicU64,
}

impl Lab {
    /// Puts a wire in place of the bridge of a flat network of two nodes. `seed` decides which
    /// frames random loss takes.
    ///
    /// # Errors
    /// When the kernel refuses packet sockets.
    pub fn wire(&self, network: usize, seed: u64) -> Result<Wire, LabError> {
        assert_eq!(self.nodes(), 2, "a wire has two ends");
        for node in [0, 1] {
            self.cut_segments(network, node)?;
        }
        let switch = self.switch(network);
        for node in [0, 1] {
            let port = Self::port(node);
            switch.netlink("take a port off the bridge", |netlink| async move {
                let index = interface_index(&netlink, &port).await?;
                let alone = LinkUnspec::new_with_index(index).nocontroller().build();
                netlink.link().change(alone).execute().await
            })?;
        }
        Wire::between(switch, [&Self::port(0), &Self::port(1)], seed)
    }
}

impl Lab {
    /// Makes a node's interface send frames of wire size only.
    pub(super) fn cut_segments(&self, network: usize, node: usize) -> Result<(), LabError> {
        let nic = Self::nic(network);
        self.node(node).netlink("cut segmented sends", |netlink| async move {
            let index = interface_index(&netlink, &nic).await?;
            let cut = LinkUnspec::new_with_index(index)
                .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
                .build();
            netlink.link().change(cut).execute().await
        })
    }
}

impl Wire {
    /// Relays frames between two interfaces of a namespace.
    pub(super) fn between(switch: &Netns, ports: [&str; 2], seed: u64) -> Result<Self, LabError> {
        let open = |port: &str| {
            let failed = LabError::io(format!("relay frames of {port}"));
            switch.run(|| sys::relay_socket(port)).map_err(failed).map(Arc::new)
        };
        let sockets = [open(ports[0])?, open(ports[1])?];
        let ways = [Arc::<Way>::default(), Arc::default()];
        for node in [0, 1] {
            let (from, to) = (Arc::clone(&sockets[node]), Arc::clone(&sockets[1 - node]));
            let way = Arc::clone(&ways[node]);
            thread::spawn(move || Relay::new(way, seed ^ node as u64).run(&from, &to));
        }
        Ok(Self { ways })
    }

    /// Sets the faults of what `from` sends.
    pub fn set(&self, from: usize, grey: Grey) {
        *self.ways[from].grey.lock().unwrap_or_else(PoisonError::into_inner) = grey;
    }

    /// Sets the faults of both directions.
    pub fn set_both(&self, grey: Grey) {
        [0, 1].into_iter().for_each(|from| self.set(from, grey));
    }

    /// Frames of `from` that were lost, and that were relayed.
    pub fn counts(&self, from: usize) -> (u64, u64) {
        let way = &self.ways[from];
        (way.lost.load(Relaxed), way.relayed.load(Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ways.iter().for_each(|way| way.stop.store(true, Relaxed));
    }
}

/// One direction at work.
struct Relay {
    way: Arc<Way>,
    seed: u64,
    start: Instant,
    /// Frames on their way, in order, and when they arrive.
    flying: VecDeque<(Instant, Vec<u8>)>,
    /// When the bottleneck has sent what waits there.
    free: Instant,
}

impl Relay {
    fn new(way: Arc<Way>, seed: u64) -> Self {
        let now = Instant::now();
        Self { way, seed, start: now, flying: VecDeque::new(), free: now }
    }

    fn run(mut self, from: &Socket, to: &Socket) {
        let mut frame = vec![0; META + 70_000];
        while !self.way.stop.load(Relaxed) {
            self.deliver(to);
            let next = self.flying.front().map(|(due, _)| *due - Instant::now().min(*due));
            let wait = next.map_or(LOOK, |next| next.min(LOOK));
            let wait = Timespec::try_from(wait).unwrap_or_default();
            let mut fds = [PollFd::new(from, PollFlags::IN)];
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, Some(&wait));
            while let Ok((length, _)) = recv(from.as_fd(), &mut *frame, RecvFlags::DONTWAIT) {
                self.take(&frame[..length], Instant::now());
                self.deliver(to);
            }
        }
    }

    /// Decides what becomes of a frame.
    fn take(&mut self, frame: &[u8], now: Instant) {
        let grey = *self.way.grey.lock().unwrap_or_else(PoisonError::into_inner);
        if self.swallows(&grey, frame, now) {
            self.way.lost.fetch_add(1, Relaxed);
            return;
        }
        let mut due = now + grey.delay;
        let control = grey.classes && is_control(frame);
        if let Some(rate) = grey.rate.filter(|_| !control) {
            let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
            let waits = self.free.saturating_duration_since(now);
            if waits > time(QUEUE) {
                self.way.lost.fetch_add(1, Relaxed);
                return;
            }
            self.free = self.free.max(now) + time(frame.len());
            due = self.free + grey.delay;
        }
        self.fly(&grey, due, control, frame);
        if grey.twice > 0.0 && self.dice() < grey.twice {
            self.fly(&grey, due, control, frame);
        }
    }

    fn fly(&mut self, grey: &Grey, mut due: Instant, control: bool, frame: &[u8]) {
        if grey.late > 0.0 && self.dice() < grey.late {
            due += LATE.mul_f64(self.dice());
        }
        // Frames are overtaken by the privileged class, and when they are late.
        let overtakes = control || grey.late > 0.0;
        let sorted = || self.flying.partition_point(|(other, _)| *other <= due);
        let place = if overtakes { sorted() } else { self.flying.len() };
        self.flying.insert(place, (due, frame.to_vec()));
    }

    fn swallows(&mut self, grey: &Grey, frame: &[u8], now: Instant) -> bool {
        let phase = |(period, _): (Duration, Duration)| {
            let nanos = now.duration_since(self.start).as_nanos() % period.as_nanos().max(1);
            Duration::from_nanos(nanos as u64)
        };
        let bursting = grey.burst.is_some_and(|burst| phase(burst) < burst.1);
        let large = grey.largest.is_some_and(|most| frame.len() > META + ETHERNET + most);
        bursting || large || self.dice() < grey.loss
    }

    fn deliver(&mut self, to: &Socket) {
        let now = Instant::now();
        while let Some((due, _)) = self.flying.front()
            && *due <= now
            && let Some((_, frame)) = self.flying.pop_front()
        {
            // An interface that is gone, or full, loses the frame.
            match to.send(&frame) {
                Ok(_) => self.way.relayed.fetch_add(1, Relaxed),
                Err(_) => self.way.lost.fetch_add(1, Relaxed),
            };
        }
    }

    /// SplitMix64, in 0.0–1.0.
    fn dice(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// IPv4 with type of service CS6.
fn is_control(frame: &[u8]) -> bool {
    const CS6: u8 = 0xc0;
    let kind = frame.get(META + 12..META + 14);
    kind == Some(&[8, 0]) && frame.get(META + ETHERNET + 1) == Some(&CS6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(grey: Grey) -> Relay {
        let way = Way { grey: Mutex::new(grey), ..Way::default() };
        Relay::new(Arc::new(way), 7)
    }

    #[test]
    fn loss_comes_as_often_as_asked() {
        let mut relay = relay(Grey { loss: 0.2, ..Grey::default() });
        for _ in 0..10_000 {
            relay.take(&[0; 100], Instant::now());
        }
        let lost = relay.way.lost.load(Relaxed);
        assert!((1800..2200).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn frames_come_twice_and_late_as_often_as_asked() {
        let mut relay = relay(Grey { twice: 0.1, late: 0.1, ..Grey::default() });
        let start = Instant::now();
        for number in 0..5000u64 {
            relay.take(&number.to_be_bytes(), start + Duration::from_micros(number * 10));
        }
        let came = relay.flying.len();
        assert!((5350..5650).contains(&came), "{came} of 5000");
        assert!(relay.flying.iter().map(|(due, _)| *due).is_sorted());
        let overtaken = |pair: &[&Vec<u8>]| pair[0] > pair[1];
        let frames: Vec<&Vec<u8>> = relay.flying.iter().map(|(_, frame)| frame).collect();
        let late = frames.windows(2).filter(|pair| overtaken(pair)).count();
        assert!((350..650).contains(&late), "{late} of {came}");
    }

    #[test]
    fn a_bottleneck_spaces_frames_and_bounds_its_queue() {
        let mut relay = relay(Grey { rate: Some(1_000_000), classes: true, ..Grey::default() });
        let now = Instant::now();
        for _ in 0..1000 {
            relay.take(&[0; 1000], now);
        }
        let waiting = relay.flying.len();
        assert!((125..=140).contains(&waiting), "{waiting} frames of 1000 bytes");
        let last = relay.flying.back().map(|(due, _)| due.duration_since(now).as_millis());
        assert!(last.is_some_and(|last| (125..=140).contains(&last)), "{last:?}");
        let mut control = vec![0; 100];
        control[META + 12] = 8;
        control[META + ETHERNET + 1] = 0xc0;
        relay.take(&control, now);
        assert_eq!(relay.flying.front().map(|(_, frame)| frame.len()), Some(100));
    }

    #[test]
    fn bursts_and_sizes_are_kept_to() {
        let burst = Some((Duration::from_secs(10), Duration::from_secs(1)));
        let mut relay = relay(Grey { burst, largest: Some(1300), ..Grey::default() });
        let start = relay.start;
        let grey = *relay.way.grey.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = |at, size| {
            let frame = vec![0; META + ETHERNET + size];
            relay.swallows(&grey, &frame, start + Duration::from_millis(at))
        };
        assert!(lost(500, 100) && lost(10_500, 100), "within a burst");
        assert!(!lost(1500, 1300) && lost(1500, 1301), "by size");
    }
}
