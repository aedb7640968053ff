//! Text for terminals: escapes and units. Pure.

use std::{fmt::Write, time::Duration};

/// Finding about a config without peers, in one line.
pub const NO_PEERS: &str =
    "no peers: nothing can be reached through the adapter; add a `[[peer]]` to the configuration";

/// Escapes what a terminal would act on: control, bidirectional and invisible characters.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_bidi_or_invisible(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for text of several lines: line feeds and tabs stay.
pub fn escape_lines(text: &str) -> String {
    escape_except(text, &['\n', '\t'])
}

/// The same for text with colours.
pub fn escape_styled(text: &str) -> String {
    escape_except(text, &['\n', '\t', '\x1b'])
}

fn escape_except(text: &str, kept: &[char]) -> String {
    text.split_inclusive(kept)
        .map(|part| match part.strip_suffix(kept) {
            Some(before) => escape(before) + &part[before.len()..],
            None => escape(part),
        })
        .collect()
}

/// True for invisible characters and those that change the writing direction.
const fn is_bidi_or_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// `yes` or `no`.
pub const fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Microseconds as milliseconds.
pub fn format_millis(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// A share in per cent.
pub fn format_percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A duration in its two largest units.
pub fn format_duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A number of bytes, with three digits and a unit of 1024.
pub fn format_bytes(count: u64) -> String {
    const BINARY_UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10) as usize;
    format!("{:.1} {}", count as f64 / (1u64 << (10 * power)) as f64, BINARY_UNITS[power - 1])
}

/// A number of bytes in at most five characters, with a unit of 1024.
pub fn format_short_bytes(count: u64) -> String {
    const BINARY_UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if count < 1024 {
        return count.to_string();
    }
    let power = (count.ilog2() / 10) as usize;
    let unit = BINARY_UNITS[power - 1];
    // Tenths, rounded down: 9.99 is no 10.0.
    let tenths = (u128::from(count) * 10) >> (10 * power);
    match tenths < 100 {
        true => format!("{}.{}{unit}", tenths / 10, tenths % 10),
        false => format!("{}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_out() {
        assert_eq!(escape("b\x1b[31m\r\n\u{9b}\u{202e}x"), r"b\u{1b}[31m\u{d}\u{a}\u{9b}\u{202e}x");
        assert_eq!(escape("node-1.ä"), "node-1.ä");
        assert_eq!(escape_lines("a\x1b[2J\r\nb\n"), "a\\u{1b}[2J\\u{d}\nb\n");
        assert_eq!(escape_styled("\x1b[31ma\x1b[0m\x07\n"), "\x1b[31ma\x1b[0m\\u{7}\n");
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(format_millis(12_345), "12.34 ms");
        assert_eq!(format_percent(0.0125), "1.2 %");
        assert_eq!(format_duration(Duration::from_secs(59)), "59 s");
        assert_eq!(format_duration(Duration::from_secs(3_661)), "1 h 1 min");
        assert_eq!(format_duration(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(1536), "1.5 KiB");
        assert_eq!(format_bytes(u64::MAX), "16.0 EiB");
        for (count, text) in
            [(1023, "1023"), (1536, "1.5K"), (10 << 20, "10M"), ((1 << 20) - 1, "1023K")]
        {
            assert_eq!(format_short_bytes(count), text);
        }
        assert_eq!(format_short_bytes(u64::MAX), "15E");
    }
}
