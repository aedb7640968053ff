//! A wire with impairments: loss, bursts, delay, a size limit, a bottleneck, duplicates,
//! reordering, and harm to data alone.
//!
//! A thread per direction relays frames between the ports of a flat network's two nodes, in place
//! of its bridge. Frames have wire size: the nodes' interfaces do not leave segmentation to it.

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

use rtnetlink::LinkUnspec;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};
use socket2::Socket;

use crate::{
    build::Lab,
    error::LabError,
    netns::{Netns, interface_index},
    sys,
};

/// The kernel's `virtio_net_hdr` in front of every frame: offloads survive the relay.
const VNET_HEADER_LEN: usize = 10;
/// Ethernet header.
const ETHERNET_HEADER_LEN: usize = 14;
/// Queue of the bottleneck, bytes (tail drop).
const BOTTLENECK_QUEUE: usize = 128 << 10;
/// Interval at which a relay checks whether it should stop.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest extra delay of a reordered frame.
const MAX_LATENESS: Duration = Duration::from_millis(1);

/// Impairments of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WireImpairments {
    /// Share of frames lost at random, 0.0–1.0.
    pub loss: f64,
    /// Burst loss: period, and time at its start in which every frame is lost.
    pub burst: Option<(Duration, Duration)>,
    /// One-way delay. Order is kept.
    pub delay: Duration,
    /// Share of duplicated frames, 0.0–1.0.
    pub duplicate: f64,
    /// Share of frames (and of duplicates) delayed by up to a millisecond more, so that others
    /// overtake them, 0.0–1.0.
    pub reorder: f64,
    /// Largest IP packet that passes, bytes.
    pub max_packet: Option<usize>,
    /// A bottleneck, bytes per second, with a queue of 128 KiB.
    pub rate: Option<u64>,
    /// Frames marked CS6 (RFC 4594, network control) bypass the bottleneck's queue.
    pub prioritise_control: bool,
    /// Harm to data alone.
    pub data: DataImpairments,
}

/// Harm to IP packets of more than [`SPARED_PACKET`] bytes; heartbeats are smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DataImpairments {
    /// Share lost at random, 0.0–1.0.
    pub loss: f64,
    /// Share that arrives with a byte changed, 0.0–1.0.
    pub corruption: f64,
    /// As [`WireImpairments::burst`].
    pub burst: Option<(Duration, Duration)>,
    /// One-way delay.
    pub delay: Duration,
    /// A policer, bytes per second: more is lost.
    pub policer: Option<u64>,
    /// Segmented sends (UDP_SEGMENT) vanish; see [`ImpairedWire::insert_whole`].
    pub segmented: bool,
}

/// The largest IP packet that [`DataImpairments`] spare, bytes.
pub const SPARED_PACKET: usize = 600;
/// Bytes that pass a policer at once, as time at its rate.
const POLICER_BURST: Duration = Duration::from_millis(5);

/// A running wire. When it is dropped, its network carries nothing.
#[derive(Debug)]
pub struct ImpairedWire {
    /// By sending node.
    directions: [Arc<WireDirection>; 2],
}

#[derive(Debug, Default)]
struct WireDirection {
    stop: AtomicBool,
    impairments: Mutex<WireImpairments>,
    lost: AtomicU64,
    relayed: AtomicU64,
}

impl ImpairedWire {
    /// Puts a wire in place of the bridge of a flat network of two nodes. `seed` decides which
    /// frames random loss takes.
    ///
    /// # Errors
    /// When the kernel refuses packet sockets.
    pub fn insert(lab: &Lab, network: usize, seed: u64) -> Result<Self, LabError> {
        [0, 1].into_iter().try_for_each(|node| lab.disable_segmentation(network, node))?;
        Self::insert_whole(lab, network, seed)
    }

    /// The same with segmented sends left whole, as on a card that segments. Needs Linux 6.2.
    ///
    /// # Errors
    /// When the kernel refuses packet sockets.
    pub fn insert_whole(lab: &Lab, network: usize, seed: u64) -> Result<Self, LabError> {
        assert_eq!(lab.node_count(), 2, "a wire has two ends");
        let switch = lab.switch_netns(network);
        for node in [0, 1] {
            let port = Lab::port_name(node);
            switch.run_netlink("detach a port from the bridge", |netlink| async move {
                let index = interface_index(&netlink, &port).await?;
                let detached = LinkUnspec::new_with_index(index).nocontroller().build();
                netlink.link().change(detached).execute().await
            })?;
        }
        Self::connect_ports(switch, [&Lab::port_name(0), &Lab::port_name(1)], seed)
    }

    /// Relays frames between two interfaces of a namespace.
    pub(crate) fn connect_ports(
        switch: &Netns,
        ports: [&str; 2],
        seed: u64,
    ) -> Result<Self, LabError> {
        let open = |port: &str| {
            let failed = LabError::io_error(format!("relay frames of {port}"));
            switch.run_inside(|| sys::relay_socket(port)).map_err(failed).map(Arc::new)
        };
        let sockets = [open(ports[0])?, open(ports[1])?];
        let directions = [Arc::<WireDirection>::default(), Arc::default()];
        for node in [0, 1] {
            let (from, to) = (Arc::clone(&sockets[node]), Arc::clone(&sockets[1 - node]));
            let direction = Arc::clone(&directions[node]);
            thread::spawn(move || {
                DirectionRelay::new(direction, seed ^ node as u64).relay_frames(&from, &to)
            });
        }
        Ok(Self { directions })
    }

    /// Sets the impairments of frames from node `from`.
    pub fn set_impairments(&self, from: usize, impairments: WireImpairments) {
        *self.directions[from].impairments.lock().unwrap_or_else(PoisonError::into_inner) =
            impairments;
    }

    /// Sets the impairments of both directions.
    pub fn set_both_impairments(&self, impairments: WireImpairments) {
        [0, 1].into_iter().for_each(|from| self.set_impairments(from, impairments));
    }

    /// Frames of node `from` lost and relayed.
    pub fn lost_and_relayed(&self, from: usize) -> (u64, u64) {
        let direction = &self.directions[from];
        (direction.lost.load(Relaxed), direction.relayed.load(Relaxed))
    }
}

impl Drop for ImpairedWire {
    fn drop(&mut self) {
        self.directions.iter().for_each(|direction| direction.stop.store(true, Relaxed));
    }
}

/// Relay of one direction.
struct DirectionRelay {
    direction: Arc<WireDirection>,
    seed: u64,
    start: Instant,
    /// Frames in flight with their times of arrival, in order.
    in_flight: VecDeque<(Instant, Vec<u8>)>,
    /// When the bottleneck's queue is empty.
    bottleneck_free_at: Instant,
    /// When the policer has forgotten what passed.
    policer_free_at: Instant,
}

impl DirectionRelay {
    fn new(direction: Arc<WireDirection>, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            direction,
            seed,
            start: now,
            in_flight: VecDeque::new(),
            bottleneck_free_at: now,
            policer_free_at: now,
        }
    }

    fn relay_frames(mut self, from: &Socket, to: &Socket) {
        let mut frame = vec![0; VNET_HEADER_LEN + 70_000];
        while !self.direction.stop.load(Relaxed) {
            self.deliver_due(to);
            let next = self.in_flight.front().map(|(due, _)| *due - Instant::now().min(*due));
            let wait = next.map_or(STOP_POLL_INTERVAL, |next| next.min(STOP_POLL_INTERVAL));
            let wait = Timespec::try_from(wait).unwrap_or_default();
            let mut fds = [PollFd::new(from, PollFlags::IN)];
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, Some(&wait));
            while let Ok((length, _)) = recv(from.as_fd(), &mut *frame, RecvFlags::DONTWAIT) {
                self.accept_frame(&frame[..length], Instant::now());
                self.deliver_due(to);
            }
        }
    }

    /// Drops a frame or queues its copies.
    fn accept_frame(&mut self, frame: &[u8], now: Instant) {
        let impairments =
            *self.direction.impairments.lock().unwrap_or_else(PoisonError::into_inner);
        if self.should_drop(&impairments, frame, now) {
            self.direction.lost.fetch_add(1, Relaxed);
            return;
        }
        let data = impairments.data;
        let is_data = frame.len() > VNET_HEADER_LEN + ETHERNET_HEADER_LEN + SPARED_PACKET;
        let mut due = now + impairments.delay;
        let corrupted;
        let mut frame = frame;
        if is_data {
            if self.should_drop_data(&data, frame, now) {
                self.direction.lost.fetch_add(1, Relaxed);
                return;
            }
            due += data.delay;
            if data.corruption > 0.0 && self.random_unit() < data.corruption {
                corrupted = with_last_byte_changed(frame);
                frame = &corrupted;
            }
        }
        let control = impairments.prioritise_control && is_control(frame);
        if let Some(rate) = impairments.rate.filter(|_| !control) {
            let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
            let waits = self.bottleneck_free_at.saturating_duration_since(now);
            if waits > time(BOTTLENECK_QUEUE) {
                self.direction.lost.fetch_add(1, Relaxed);
                return;
            }
            self.bottleneck_free_at = self.bottleneck_free_at.max(now) + time(frame.len());
            due = self.bottleneck_free_at + impairments.delay;
            due += if is_data { data.delay } else { Duration::ZERO };
        }
        self.enqueue_frame(&impairments, due, control, frame);
        if impairments.duplicate > 0.0 && self.random_unit() < impairments.duplicate {
            self.enqueue_frame(&impairments, due, control, frame);
        }
    }

    fn enqueue_frame(
        &mut self,
        impairments: &WireImpairments,
        mut due: Instant,
        control: bool,
        frame: &[u8],
    ) {
        if impairments.reorder > 0.0 && self.random_unit() < impairments.reorder {
            due += MAX_LATENESS.mul_f64(self.random_unit());
        }
        // Prioritised and reordered frames are inserted by time, all others in order of arrival.
        let overtakes =
            control || impairments.reorder > 0.0 || impairments.data.delay > Duration::ZERO;
        let sorted = || self.in_flight.partition_point(|(other, _)| *other <= due);
        let place = if overtakes { sorted() } else { self.in_flight.len() };
        self.in_flight.insert(place, (due, frame.to_vec()));
    }

    fn should_drop(&mut self, impairments: &WireImpairments, frame: &[u8], now: Instant) -> bool {
        let bursting = self.is_bursting(impairments.burst, now);
        let large = impairments
            .max_packet
            .is_some_and(|most| frame.len() > VNET_HEADER_LEN + ETHERNET_HEADER_LEN + most);
        bursting || large || self.random_unit() < impairments.loss
    }

    fn should_drop_data(&mut self, data: &DataImpairments, frame: &[u8], now: Instant) -> bool {
        if data.segmented && is_segmented_send(frame)
            || self.is_bursting(data.burst, now)
            || data.loss > 0.0 && self.random_unit() < data.loss
        {
            return true;
        }
        let Some(rate) = data.policer else { return false };
        let free_at = self.policer_free_at.max(now);
        if free_at.duration_since(now) > POLICER_BURST {
            return true;
        }
        self.policer_free_at = free_at + Duration::from_secs_f64(frame.len() as f64 / rate as f64);
        false
    }

    fn is_bursting(&self, burst: Option<(Duration, Duration)>, now: Instant) -> bool {
        let Some((period, lost)) = burst else { return false };
        let nanos = now.duration_since(self.start).as_nanos() % period.as_nanos().max(1);
        Duration::from_nanos(nanos as u64) < lost
    }

    fn deliver_due(&mut self, to: &Socket) {
        let now = Instant::now();
        while let Some((due, _)) = self.in_flight.front()
            && *due <= now
            && let Some((_, frame)) = self.in_flight.pop_front()
        {
            // An interface that is gone, or full, loses the frame.
            match to.send(&frame) {
                Ok(_) => self.direction.relayed.fetch_add(1, Relaxed),
                Err(_) => self.direction.lost.fetch_add(1, Relaxed),
            };
        }
    }

    /// SplitMix64, in 0.0–1.0.
    fn random_unit(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The kernel was to segment it (linux/virtio_net.h: the type is the second byte).
fn is_segmented_send(frame: &[u8]) -> bool {
    const GSO_UDP_L4: u8 = 5;
    frame.get(1) == Some(&GSO_UDP_L4)
}

fn with_last_byte_changed(frame: &[u8]) -> Vec<u8> {
    let mut changed = frame.to_vec();
    if let Some(last) = changed.last_mut() {
        *last = !*last;
    }
    changed
}

/// IPv4 with type of service CS6.
fn is_control(frame: &[u8]) -> bool {
    const TOS_CS6: u8 = 0xc0;
    let kind = frame.get(VNET_HEADER_LEN + 12..VNET_HEADER_LEN + 14);
    kind == Some(&[8, 0]) && frame.get(VNET_HEADER_LEN + ETHERNET_HEADER_LEN + 1) == Some(&TOS_CS6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(impairments: WireImpairments) -> DirectionRelay {
        let impairments = Mutex::new(impairments);
        let direction = WireDirection { impairments, ..WireDirection::default() };
        DirectionRelay::new(Arc::new(direction), 7)
    }

    #[test]
    fn loss_comes_as_often_as_asked() {
        let mut relay = relay(WireImpairments { loss: 0.2, ..WireImpairments::default() });
        for _ in 0..10_000 {
            relay.accept_frame(&[0; 100], Instant::now());
        }
        let lost = relay.direction.lost.load(Relaxed);
        assert!((1800..2200).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn frames_come_twice_and_late_as_often_as_asked() {
        let mut relay =
            relay(WireImpairments { duplicate: 0.1, reorder: 0.1, ..WireImpairments::default() });
        let start = Instant::now();
        for number in 0..5000u64 {
            relay.accept_frame(&number.to_be_bytes(), start + Duration::from_micros(number * 10));
        }
        let came = relay.in_flight.len();
        assert!((5350..5650).contains(&came), "{came} of 5000");
        assert!(relay.in_flight.iter().map(|(due, _)| *due).is_sorted());
        let overtaken = |pair: &[&Vec<u8>]| pair[0] > pair[1];
        let frames: Vec<&Vec<u8>> = relay.in_flight.iter().map(|(_, frame)| frame).collect();
        let late = frames.windows(2).filter(|pair| overtaken(pair)).count();
        assert!((350..650).contains(&late), "{late} of {came}");
    }

    #[test]
    fn a_bottleneck_spaces_frames_and_bounds_its_queue() {
        let mut relay = relay(WireImpairments {
            rate: Some(1_000_000),
            prioritise_control: true,
            ..WireImpairments::default()
        });
        let now = Instant::now();
        for _ in 0..1000 {
            relay.accept_frame(&[0; 1000], now);
        }
        let waiting = relay.in_flight.len();
        assert!((125..=140).contains(&waiting), "{waiting} frames of 1000 bytes");
        let last = relay.in_flight.back().map(|(due, _)| due.duration_since(now).as_millis());
        assert!(last.is_some_and(|last| (125..=140).contains(&last)), "{last:?}");
        let mut control = vec![0; 100];
        control[VNET_HEADER_LEN + 12] = 8;
        control[VNET_HEADER_LEN + ETHERNET_HEADER_LEN + 1] = 0xc0;
        relay.accept_frame(&control, now);
        assert_eq!(relay.in_flight.front().map(|(_, frame)| frame.len()), Some(100));
    }

    #[test]
    fn bursts_and_sizes_are_kept_to() {
        let burst = Some((Duration::from_secs(10), Duration::from_secs(1)));
        let mut relay =
            relay(WireImpairments { burst, max_packet: Some(1300), ..WireImpairments::default() });
        let start = relay.start;
        let impairments =
            *relay.direction.impairments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = |at, size| {
            let frame = vec![0; VNET_HEADER_LEN + ETHERNET_HEADER_LEN + size];
            relay.should_drop(&impairments, &frame, start + Duration::from_millis(at))
        };
        assert!(lost(500, 100) && lost(10_500, 100), "within a burst");
        assert!(!lost(1500, 1300) && lost(1500, 1301), "by size");
    }

    /// Of 5000 frames of 1000 bytes and as many of 100, a pair every 100 µs, what is lost of each
    /// and what is changed or late.
    fn harmed(data: DataImpairments) -> ([usize; 2], usize, usize) {
        let mut relay = relay(WireImpairments { data, ..WireImpairments::default() });
        let start = relay.start;
        for number in 0..5000 {
            let at = start + number * Duration::from_micros(100);
            for size in [1000, 100] {
                let mut frame = vec![0; VNET_HEADER_LEN + ETHERNET_HEADER_LEN + size];
                frame[1] = 5;
                frame[20..24].copy_from_slice(&number.to_be_bytes());
                relay.accept_frame(&frame, at);
            }
        }
        let came = &relay.in_flight;
        let large = came.iter().filter(|(_, frame)| frame.len() > 1000).count();
        let changed = came.iter().filter(|(_, frame)| frame.last() != Some(&0)).count();
        let late = came.iter().filter(|(due, frame)| {
            let number = u32::from_be_bytes(frame[20..24].try_into().unwrap_or_default());
            *due > start + number * Duration::from_micros(100)
        });
        assert!(came.iter().map(|(due, _)| *due).is_sorted());
        ([5000 - large, 5000 + large - came.len()], changed, late.count())
    }

    #[test]
    fn harm_to_data_spares_small_frames() {
        let data = DataImpairments::default;
        let ([lost, 0], 0, 0) = harmed(DataImpairments { loss: 0.1, ..data() }) else { panic!() };
        assert!((400..600).contains(&lost), "{lost}");
        let ([0, 0], changed, 0) = harmed(DataImpairments { corruption: 0.1, ..data() }) else {
            panic!()
        };
        assert!((400..600).contains(&changed), "{changed}");
        let delay = Duration::from_millis(3);
        assert_eq!(harmed(DataImpairments { delay, ..data() }), ([0, 0], 0, 5000));
        assert_eq!(harmed(DataImpairments { segmented: true, ..data() }), ([5000, 0], 0, 0));
        let burst = Some((Duration::from_millis(100), Duration::from_millis(20)));
        assert_eq!(harmed(DataImpairments { burst, ..data() }), ([1000, 0], 0, 0));
        // Offered: 10 MB/s.
        let policer = Some(7_680_000);
        let ([lost, 0], 0, 0) = harmed(DataImpairments { policer, ..data() }) else { panic!() };
        assert!((1150..1350).contains(&lost), "{lost}");
    }
}
