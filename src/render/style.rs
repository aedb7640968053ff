//! Layout of text output: width, colours, time zone. Pure.

use jiff::tz::TimeZone;

use crate::{clock, text::escape};

/// How text is laid out for its reader.
#[derive(Clone, Debug)]
pub struct OutputStyle {
    /// Columns of the terminal; `None` for a pipe or a file, where no line is wrapped.
    pub width: Option<usize>,
    /// Colours are understood and wanted.
    pub is_coloured: bool,
    /// Time zone of the reader.
    pub zone: TimeZone,
}

impl Default for OutputStyle {
    /// For a pipe: as wide as needed, without colours, in UTC.
    fn default() -> Self {
        Self { width: None, is_coloured: false, zone: TimeZone::UTC }
    }
}

/// Meaning of a text, shown by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextTone {
    /// Nothing to say.
    #[default]
    Plain,
    /// Works.
    Good,
    /// Works with a restriction.
    Warning,
    /// Does not work.
    Bad,
    /// Switched off, or a remark.
    Faint,
}

impl TextTone {
    /// Parameter of the escape sequence that sets the colour (ECMA-48, SGR); `None` for none.
    const fn sgr_code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

impl OutputStyle {
    /// `text` in the colour of its tone.
    pub fn paint_text(&self, text: &str, tone: TextTone) -> String {
        match tone.sgr_code().filter(|_| self.is_coloured && !text.is_empty()) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    /// An RFC 3339 time in the reader's zone, escaped.
    pub fn local_time(&self, at: &str) -> String {
        clock::to_zone(at, &self.zone).unwrap_or_else(|| escape(at))
    }
}
