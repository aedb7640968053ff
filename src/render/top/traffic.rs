//! What a route carried over the last minute. Pure.

use std::collections::VecDeque;

use crate::control::schema::RouteView;

/// Round-trip times kept per route: a minute, at one sample a second.
const MAX_RTT_SAMPLES: usize = 60;
/// Heights of a bar of the sparkline.
const SPARK_BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Smallest difference of round-trip times that fills the height, microseconds.
const MIN_SPARK_RANGE_US: u64 = 100;

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
struct CounterReading {
    elapsed_ms: u64,
    tx_bytes: u64,
    rx_bytes: u64,
}

/// The recent traffic of a route.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteHistory {
    last: Option<CounterReading>,
    /// Bytes a second sent between the last two samples; `None` until there are two.
    pub(super) tx_rate: Option<u64>,
    /// The same, received.
    pub(super) rx_rate: Option<u64>,
    /// Round-trip times, the newest last; `None` where none was known.
    rtts: VecDeque<Option<u64>>,
}

impl RouteHistory {
    /// Takes a route's counters and its round-trip time.
    pub(super) fn on_sample(&mut self, elapsed_ms: u64, route: &RouteView) {
        let reading =
            CounterReading { elapsed_ms, tx_bytes: route.tx_bytes, rx_bytes: route.rx_bytes };
        let before = self.last.replace(reading);
        let rate = |read: fn(&CounterReading) -> u64| {
            let before = before.as_ref()?;
            let millis = reading.elapsed_ms.checked_sub(before.elapsed_ms).filter(|ms| *ms > 0)?;
            // Counters that fell belong to a daemon that started anew.
            let bytes = read(&reading).checked_sub(read(before))?;
            Some(bytes.saturating_mul(1000) / millis)
        };
        self.tx_rate = rate(|reading| reading.tx_bytes);
        self.rx_rate = rate(|reading| reading.rx_bytes);
        if self.rtts.len() == MAX_RTT_SAMPLES {
            self.rtts.pop_front();
        }
        self.rtts.push_back(route.rtt_us);
    }

    /// The last `width` round-trip times as bars, the newest at the right; the lowest bar is the
    /// least of them.
    pub(super) fn sparkline(&self, width: usize) -> String {
        let width = width.min(MAX_RTT_SAMPLES);
        let shown = self.rtts.iter().skip(self.rtts.len().saturating_sub(width));
        let known = || shown.clone().flatten().copied();
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let range = (most - least).max(MIN_SPARK_RANGE_US);
        let bar = |rtt: &Option<u64>| match rtt {
            None => ' ',
            Some(us) => {
                let top = SPARK_BARS.len() - 1;
                SPARK_BARS[((us - least).saturating_mul(top as u64) / range) as usize]
            }
        };
        let bars: String = shown.clone().map(bar).collect();
        format!("{bars:>width$}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A route of the JSON schema with these counters; fields of no account are left out.
    fn route(tx: u64, rx: u64, rtt: Option<u64>) -> RouteView {
        let mut value = serde_json::json!({
            "id": 1, "peer": "b", "real_local": "10.1.0.1:1", "real_remote": "10.1.0.2:1",
            "virtual_local": "fe80::1", "virtual_remote": "fe80::2", "delay_ms": 30,
            "threshold": 5, "priority": 1, "attributes": 1, "transport": "udp", "state": "up",
            "tx": true, "rx": true, "active": true, "loss": 0.0, "heartbeats_sent": 0,
            "heartbeats_missed": 0, "last_change": "", "reason": "", "tx_frames": 0,
        });
        value["tx_bytes"] = tx.into();
        value["rx_bytes"] = rx.into();
        value["rtt_us"] = rtt.into();
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rates_follow_the_counters_and_begin_anew_with_the_daemon() {
        let mut traffic = RouteHistory::default();
        traffic.on_sample(0, &route(1000, 10, None));
        assert_eq!((traffic.tx_rate, traffic.rx_rate), (None, None));
        traffic.on_sample(500, &route(2000, 20, None));
        assert_eq!((traffic.tx_rate, traffic.rx_rate), (Some(2000), Some(20)));
        traffic.on_sample(1500, &route(5, 5, None));
        assert_eq!((traffic.tx_rate, traffic.rx_rate), (None, None));
        traffic.on_sample(1500, &route(9, 9, None));
        assert_eq!(traffic.tx_rate, None, "no time passed");
    }

    #[test]
    fn a_sparkline_shows_the_range_and_the_gaps_of_the_last_minute() {
        let mut traffic = RouteHistory::default();
        assert_eq!(traffic.sparkline(4), "    ");
        for (second, rtt) in [Some(200), Some(900), None, Some(550)].into_iter().enumerate() {
            traffic.on_sample(second as u64, &route(0, 0, rtt));
        }
        assert_eq!(traffic.sparkline(6), "  ▁█ ▄");
        assert_eq!(traffic.sparkline(2), " ▁");
        for second in 4..200 {
            traffic.on_sample(second, &route(0, 0, Some(u64::MAX - second)));
        }
        assert_eq!(traffic.sparkline(500).chars().count(), MAX_RTT_SAMPLES);
    }
}
